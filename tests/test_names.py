"""The distribution is fastdrop-kernels, and nothing here asks an index for it, or for its import name.

`fastdrop` on PyPI is somebody else's package, and ours is published nowhere yet: whoever follows a
page, a message or a rule of the Makefile must get this checkout, never what an index has.
"""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import extras
from support import ROOT

IMPORTED = "fastdrop"
SKIPPED = {"_build", "gallery", "__pycache__"}
SUFFIXES = {
    *("", ".c", ".cff", ".cfg", ".h", ".in", ".ini", ".md", ".pxd", ".pxi", ".py", ".pyi", ".pyx"),
    *(".rst", ".sh", ".toml", ".txt", ".yaml", ".yml"),
}
FOLDERS = (".ci", ".github", "benchmarks", "docs", "examples", IMPORTED, "tests")

NAME = rf"{IMPORTED}(?:[-_]kernels)?"
GAP = r"[\s\"',]+"  # between the words of a command, also where they are a list of strings
INSTALLER = r"(?:pip[\d.]*\)?|pipx|uvx?|conda|mamba|micromamba|pixi|poetry|pdm|hatch|rye|easy_install)"
ASKS = [
    # This is an argument of a command. A name behind a slash or before a dot is a path or a module.
    rf"\b{INSTALLER}(?!\w)(?:[^\n`;&|#()]*?{GAP})(?:--with[ =])?{NAME}(?![\w./-])",
    # This is an extra, which only a distribution has.
    rf"(?<![\w./-]){NAME}\[",
    # This has a version, as in a list of requirements.
    rf"(?<![\w./-]){NAME}\s*(?:[=!~]=|[<>]=?)\s*\d",
    # This is a line of a list of requirements, or an item of a YAML list.
    rf"^(?:\s*-\s+)?[\"']?{NAME}[\"']?\s*(?:[;#].*)?$",
    # This is an item of a list of requirements in TOML or in Python, inline scripts included.
    rf"(?:dependencies|requires|require)[\"']?\s*[=:(]\s*\[?[^\]\)]*[\"']{NAME}[\"']",
    # This asks the installed distribution of that name, which may be somebody else's.
    rf"\b(?:metadata|pkg_resources)\.\w+\(\s*[\"']{IMPORTED}[\"']",
    rf"\b(?:version|distribution|requires|get_distribution)\(\s*[\"']{IMPORTED}[\"']",
    # This is a page or a badge of an index.
    rf"\b(?:pypi|pythonhosted|anaconda|conda-forge|libraries\.io)\b[^\s)]*/{NAME}\b",
]
PATTERNS = [re.compile(pattern, re.IGNORECASE | re.MULTILINE) for pattern in ASKS]


def asked(text):
    """Return what in `text` asks an index for the package."""
    joined = re.sub(r"\\\n\s*", " ", text)
    return [found[0] for pattern in PATTERNS for found in pattern.finditer(joined)]


def sources():
    """Yield the text files of a checkout, or of an unpacked source distribution."""
    paths = [*ROOT.iterdir(), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))]
    for path in paths:
        in_c = path.suffix == ".c" and (path.with_suffix(".pyx").exists() or path.with_suffix(".py").exists())
        if path.is_file() and path.suffix in SUFFIXES and not in_c and not SKIPPED.intersection(path.parts):
            yield path


@pytest.mark.parametrize(
    "form",
    [
        "pip install {}",
        "`pip install {}`",
        "python -m pip install --quiet spacy '{}' numba",
        "$(PIP) install {}",
        "pip3.12 install -U \\\n    numpy {}",
        "pip download --no-deps {}",
        "uv pip install {}",
        "uv add {}",
        "uvx {} info",
        "uv run --with {} script.py",
        "uv run --with={} script.py",
        "pipx run {}",
        "conda install -c conda-forge {}",
        '[sys.executable, "-m", "pip", "install", "{}"]',
        "{}[torch]",
        "f\"'{}[{{extra}}]'\"",
        "{} == 0.1.0",
        "{}>=0.1",
        "numpy>=2\n{}\n",
        "{}  # a comment\n",
        "  - {}\n",
        'dependencies = ["numpy>=2.0", "{}"]',
        '# dependencies = [\n#   "{}",\n# ]',
        'install_requires=["{}"]',
        "https://pypi.org/project/{}/",
        "https://img.shields.io/pypi/v/{}",
    ],
)
@pytest.mark.parametrize("name", [IMPORTED, IMPORTED + "-kernels"])
def test_every_form_of_asking_is_found(form, name):
    assert asked(form.format(name))


@pytest.mark.parametrize(
    "form", ['metadata.version("{}")', "version('{}')", 'pkg_resources.get_distribution("{}")']
)
def test_a_look_at_another_distribution_is_found(form):
    assert asked(form.format(IMPORTED))


@pytest.mark.parametrize(
    "form",
    [
        "pip install .",
        "pip install '.[torch]'  # in the checkout",
        "pip install dist/{}_kernels-0.1.0-cp311-cp311-linux_x86_64.whl",
        "`pip install .` installs `{}-kernels`, which you import as `{}`",
        "import {} as fd",
        "python -m {} info",
        "make build && {} info",
        'packages = ["{}", "{}.kernels"]',
        "{}.keep_mask(8, 0.5).bits[0]",
    ],
)
def test_what_asks_nobody_is_left_alone(form):
    assert not asked(form.replace("{}", IMPORTED))


def test_no_file_asks_an_index_for_the_package():
    found = {}
    for path in sources():
        text = path.read_text("utf-8", errors="replace")
        if path.name == "pyproject.toml":  # its extras name each other, which pip finds in the same file
            text = re.sub(rf'"{IMPORTED}-kernels\[[a-z,]+\]"', '"."', text)
        if some := asked(text):
            found[path.relative_to(ROOT).as_posix()] = some
    assert not found


def test_the_files_that_are_looked_at_are_those_that_matter():
    looked_at = {path.relative_to(ROOT).as_posix() for path in sources()}
    assert {"README.md", "Makefile", "pyproject.toml", "CHANGELOG.md", "docs/start.md"} <= looked_at
    assert {f"{IMPORTED}/__main__.py", "examples/numba_loop.py", "tests/extras.py"} <= looked_at


def test_the_distribution_is_ours():
    assert extras.PROJECT["name"] == f"{IMPORTED}-kernels"
    assert set(extras.PROJECT["scripts"]) == {IMPORTED}


def test_an_extra_or_a_group_is_what_it_requires_and_never_the_package():
    for name, lines in extras.LISTS.items():
        assert not any(IMPORTED in line for line in extras.requirements(name)), name
        plain = {line for line in lines if isinstance(line, str) and IMPORTED not in line}
        assert plain <= set(extras.requirements(name))
    assert set(extras.requirements("dev")) == {*extras.LISTS["test"], *extras.LISTS["lint"], *extras.LISTS["docs"]}
    assert set(extras.requirements("frameworks")) >= set(extras.LISTS["torch"])
    command = [sys.executable, extras.__file__, "torch", "test"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == list(dict.fromkeys([*extras.requirements("torch"), *extras.requirements("test")]))
