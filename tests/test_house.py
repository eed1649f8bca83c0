"""The house keeps its order: who imports whom, what a kernel knows, and that the pages say so."""

from __future__ import annotations

import re
from fnmatch import fnmatch
from graphlib import TopologicalSorter

from support import PACKAGE, ROOT

# A module imports from the layers below its own, and inside a folder from its neighbours. Modules on one line
# do not import each other. Nothing imports an adapter, because nothing is above them.
LAYERS = [
    "keras",  # it stands on the adapters for PyTorch and JAX
    "torch thinc jax dask _pyinstaller",
    "__main__",
    "commands",
    "__init__",  # what `import fastdrop` gives
    "layers monte_carlo",
    "functional capi",
    "cpu threads",
    "core reference",
    "mask noise",
    "stream",
    "checks values usage",
    "formulas foreign optional progress settings",
    "kernels",
    "sweep ensure",  # these say what a kernel is given, so everything that is compiled includes them
    "include",
]
UPWARDS = {  # importer, imported: the reason why it may be. All of them import inside a function.
    ("noise", "functional"): "GaussianNoise.to_array is the gradient of ones, which a call computes.",
    ("commands.info", "jax.paths"): "The info command says how the calls for JAX reach the kernels.",
}
FOLDERS = ("", "core/", "kernels/", "kernels/simd/", "include/")  # where the compiler looks for a header

SOURCES = {
    path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8")
    for path in sorted(PACKAGE.rglob("*"))
    if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".h") and "examples" not in path.parts
}
IMPORT = re.compile(
    r"^( *)(?:from (?:cython\.cimports\.)?fastdrop([\w.]*) c?import (\([^)]*\)|.*)"
    r"|c?import fastdrop([\w.]*))",
    re.MULTILINE,
)
INCLUDE = re.compile(r'^\s*(?:#include|include|cdef extern from) "([^"]+)"', re.MULTILINE)
INSTRUCTION_SET = re.compile(r"\b_?(?:avx|vaes|neon|sse\d|sve)\w*", re.IGNORECASE)
# The vocabulary of the layers above the kernels, and objects of Python.
NOT_A_KERNEL_S = re.compile(
    r"\b(?:shape|ndim|ax[ie]s|strides|Mask|Stream|Tile|np|cnp|numpy|ndarray|object|list|tuple|dict|Py\w+_\w+)\b"
)


def module_of(path: str) -> str:
    """The dotted name of a file. A .pxd is one module with its .pyx, .py or .h."""
    return path.rpartition(".")[0].removesuffix("/__init__").replace("/", ".")


MODULES = {module_of(path) for path in SOURCES}


def code_of(path: str) -> str:
    """The text of a file without comments and docstrings."""
    comments = r"/\*.*?\*/|//[^\n]*" if path.endswith(".h") else r'""".*?"""|#[^\n]*'
    return re.sub(comments, "", SOURCES[path], flags=re.DOTALL)


def named_in(path: str, inside_functions: bool) -> set[str]:
    """The modules of the package that a file imports or includes."""
    found = set()
    for indent, package, names, whole in IMPORT.findall(code_of(path)):
        if inside_functions or not indent:
            home = (package or whole)[1:]
            inner = [f"{home}.{name}".lstrip(".") for name in re.findall(r"(?<!\bas )\b(?!as\b)\w+", names)]
            found |= {name if name in MODULES else home or "__init__" for name in inner or [home]}
    beside = path.rpartition("/")[0] + "/"
    for name in INCLUDE.findall(SOURCES[path]):
        places = [folder + name for folder in (beside, *FOLDERS)] + [name.removeprefix("../")]
        found |= {module_of(place) for place in places if place in SOURCES}
    return found - {module_of(path)}


def graph(inside_functions: bool) -> dict[str, set[str]]:
    edges: dict[str, set[str]] = {module: set() for module in MODULES}
    for path in SOURCES:
        edges[module_of(path)] |= named_in(path, inside_functions)
    return edges


def layer_of(module: str) -> int:
    first, last = module.split(".")[0], module.split(".")[-1]
    name = last if last in ("sweep", "ensure") else first
    return next(number for number, layer in enumerate(LAYERS) if name in layer.split())


def test_no_module_imports_itself_by_way_of_others():
    edges = graph(inside_functions=False)
    TopologicalSorter(edges).prepare()  # raises CycleError, which shows the circle
    assert {"checks", "formulas"} <= edges["core.call"], "imports and cimports are seen"
    assert "kernels.kernel" in edges["kernels.generic"], "includes are seen"


def test_no_module_imports_upwards_or_sidewards():
    wrong = {
        (importer, imported)
        for importer, names in graph(inside_functions=True).items()
        for imported in names
        if layer_of(importer) >= layer_of(imported) and importer.split(".")[0] != imported.split(".")[0]
    }
    assert wrong == UPWARDS.keys()


def test_a_kernel_knows_no_shape_and_no_object():
    for path in SOURCES:
        if path.startswith("kernels/"):
            code = code_of(path).replace("PyCapsule_New", "")
            assert not NOT_A_KERNEL_S.findall(code), path
            assert not re.findall(r"cpython\.(?!pycapsule\b)", code), path
            assert path == "kernels/probe.pxi" or not re.findall(r"^ *def ", code, re.MULTILINE), path


def test_only_kernels_and_what_chooses_them_name_an_instruction_set():
    for path in SOURCES:
        if not path.startswith("kernels/") and path not in ("cpu.py", "core/cpu_features.h"):
            code = code_of(path).replace("SSE2 (-mfpmath=sse)", "")  # a flag, which build_checks.h advises
            assert not INSTRUCTION_SET.findall(code), path


# --- the pages --------------------------------------------------------------------------------


def test_the_architecture_s_tables_list_every_module_once():
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    listed = [name for cell in re.findall(r"^\| (`[^|]*`) \|", page, re.MULTILINE)
              for name in re.findall(r"`([^`]+)`", cell)]  # fmt: skip
    implementations = {module_of(path) for path in SOURCES if path.endswith((".py", ".pyx"))}
    wanted = [path for path in SOURCES if not (path.endswith(".pxd") and module_of(path) in implementations)]
    for path in wanted:
        rows = [name for name in listed if fnmatch(path, name)]
        assert len(rows) == 1, f"{path} is in {len(rows)} rows of a table of docs/architecture.md, not in one"
    gone = [name for name in listed if name.endswith((".py", ".pyx", ".pxd", ".pxi", ".h"))
            and not any(fnmatch(path, name) for path in SOURCES)]  # fmt: skip
    assert not gone


def test_the_glossary_has_at_most_fifteen_terms():
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    _, found, section = page.partition("| word |")
    assert found, "CONTRIBUTING.md has a table whose first column is `word`"
    rows = section.partition("\n\n")[0].splitlines()[2:]
    assert 8 <= len(rows) <= 15
