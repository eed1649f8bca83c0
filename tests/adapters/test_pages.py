"""The code that the frameworks' pages tell users to write runs."""

from __future__ import annotations

import re

import pytest

from support import ROOT

BLOCK = re.compile(r"^```py\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the frameworks' own dependencies
@pytest.mark.parametrize(
    ("page", "framework"),
    [("pytorch", "torch"), ("thinc", "thinc.api"), ("jax", "jax"), ("dask", "dask.array"), ("keras", "keras")],
)
def test_the_lines_a_user_writes(page, framework, monkeypatch, tmp_path):
    if page == "keras":  # which chooses its backend, and writes into its home, when it is imported
        pytest.importorskip("torch", reason="torch is an optional dependency")
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    pytest.importorskip(framework, reason=f"{framework} is an optional dependency")
    blocks = BLOCK.findall((ROOT / "docs" / "frameworks" / f"{page}.md").read_text("utf-8"))
    assert blocks
    exec(compile("".join(blocks), page, "exec"), {})
