"""Code that runs in the middle of a call and arguments that lie get a right result or an error."""

from __future__ import annotations

import pytest
from hostile import FAMILIES

from support import ROOT, run_python

# Blocks above this size go back to the system when they are freed, so a later read of one is a crash.
FREED_AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "32768"}


@pytest.mark.parametrize("family", [*FAMILIES, "values"])
def test_hostile_arguments_get_a_right_result_or_a_clear_error(family):
    process = run_python(ROOT / "tests" / "hostile.py", family, **FREED_AT_ONCE)
    last = process.stderr[-500:].rpartition("\r")[2]
    assert process.returncode == 0, f"{process.stdout[-2000:]}\nended by {process.returncode} at: {last}"
    assert process.stdout.endswith(" 0 wrong\n"), process.stdout[-4000:]
