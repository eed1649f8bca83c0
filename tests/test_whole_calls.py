"""Any call, on any arrays, with any settings, gives the results, errors and memory of the reference."""

from __future__ import annotations

import random

import pytest
from whole_calls import fault, numbered

SEED = 20261125
BATCH = 100  # cases in a test
FRESH = random.SystemRandom().getrandbits(32)  # other cases at each run


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("batch", range(10))
def test_a_call_does_what_the_reference_does(batch):
    agree(SEED, batch)


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("batch", range(3))
def test_a_call_of_today_does_what_the_reference_does(batch):
    agree(FRESH, batch)


def agree(seed: int, batch: int) -> None:
    for number in range(BATCH * batch, BATCH * (batch + 1)):
        case = numbered(seed, number)
        found = fault(case)
        assert not found, f"{found}\n{case}\nrepeated by tests/fuzz.py --seed {seed} --case {number}"
