"""Every adapter takes the word for the probability that the table of the frameworks' page has, and no other."""

from __future__ import annotations

import inspect
import re
from inspect import Parameter

import pytest

import fastdrop as fd
from support import ROOT

PAGE = ROOT / "docs" / "frameworks" / "index.md"
ROW = re.compile(r"^\| `(fastdrop(?:\.\w+)*)`[^|]*\| `(\w+)` \| (keep|drop) \| ([^|]*?) \|", re.MULTILINE)
MEANS = {"keep_prob": "keep", "p": "drop", "rate": "drop", "drop": "drop"}


def parameters(module):
    """The parameters of everything public that can be called."""
    names = getattr(module, "__all__", None) or [name for name in vars(module) if name[0].isupper()]
    for thing in (getattr(module, name) for name in names):
        if getattr(thing, "__module__", "").startswith("fastdrop."):
            yield from inspect.signature(thing).parameters.values()


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are in a checkout alone")
@pytest.mark.parametrize("name", ["fastdrop", "fastdrop.layers", *(f"fastdrop.{name}" for name in fd._ADAPTERS)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks' own dependencies
def test_the_word_of_an_adapter_is_the_one_in_the_table(name):
    table = {module: row for module, *row in ROW.findall(PAGE.read_text("utf-8"))}
    word, means, passed = table[name]
    assert MEANS[word] == means
    module = pytest.importorskip(name, reason=f"{name} needs its framework", exc_type=ModuleNotFoundError)
    found = [parameter for parameter in parameters(module) if parameter.name in MEANS]
    assert {parameter.name for parameter in found} == {word}
    if passed == "by keyword only":
        assert {parameter.kind for parameter in found} == {Parameter.KEYWORD_ONLY}
