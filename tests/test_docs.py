"""The Python code of the pages runs, and their links lead to files."""

from __future__ import annotations

import re

import pytest

import fastdrop as fd
from support import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")


def name(page):
    return page.relative_to(ROOT).as_posix()


def test_there_are_pages_with_python():
    with_python = {name(page) for page in PAGES if BLOCK.search(page.read_text("utf-8"))}
    assert {"README.md", "docs/start.md", "docs/dropout.md", "docs/stream.md"} <= with_python


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text("utf-8"))], ids=name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page):
    text = page.read_text("utf-8")
    names = {"__name__": "page"}
    for block in BLOCK.finditer(text):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(page), "exec"), names)
    assert "fd" in names, "a page's example uses the package"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_that_are_there(page):
    for target in LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


def test_the_reference_page_has_everything_public():
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    described = {name.rpartition(".")[2] for name in re.findall(r"auto(?:function|class):: (\S+)", page)}
    own = {name for name, value in vars(fd.layers).items()
           if isinstance(value, type) and value.__module__ == fd.layers.__name__}  # fmt: skip
    classes = {name for name in own if not name.startswith("_")}
    assert {*fd.__all__, *classes} - {"layers", "reference"} <= described


@pytest.mark.parametrize("adapter", fd._ADAPTERS)
def test_the_reference_page_of_an_adapter_has_everything_public(adapter):
    module = pytest.importorskip(f"fastdrop.{adapter}", exc_type=ModuleNotFoundError)
    page = (ROOT / "docs" / "reference" / f"{adapter}.md").read_text("utf-8")
    assert sorted(re.findall(r"auto(?:function|class):: (\S+)", page)) == sorted(module.__all__)
