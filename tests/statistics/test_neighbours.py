"""Streams whose seeds or offsets are close, or alike to the generator, have nothing in common."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastdrop as fd
from coins import BLOCK, assert_independent, drawn
from fastdrop.reference.generator import ROUNDS, WEYL


def test_seeds_that_differ_in_a_bit(seed: int, size: int) -> None:
    sequence = drawn(0.5, seed, size)
    for bit in range(128):
        assert_independent(sequence, drawn(0.5, seed ^ 1 << bit, size))


def test_successive_seeds(seed: int, size: int) -> None:
    sequences = [drawn(0.5, seed + i, size) for i in range(16)]
    for first, second in itertools.combinations(sequences, 2):
        assert_independent(first, second)


@pytest.mark.parametrize("r", range(1, ROUNDS + 1))
def test_seeds_a_round_key_apart(r: int, seed: int, size: int) -> None:
    """The key of round 0 of one stream is the key of round `r` of the other."""
    low, high = ((word + r * constant) % 2**64 for word, constant in zip((seed % 2**64, seed >> 64), WEYL))
    assert_independent(drawn(0.5, seed, size), drawn(0.5, low | high << 64, size))


@pytest.mark.parametrize("difference", [1, 2, 3, 128, 511])
def test_seed_and_counter_that_cancel(difference: int, seed: int, size: int) -> None:
    """These blocks begin with the same state, because a counter is added to a seed without carry."""
    first, second = (drawn(0.5, key, size).reshape(-1, BLOCK) for key in (seed, seed ^ difference))
    assert_independent(first.ravel(), second[np.arange(len(second)) ^ difference].ravel())


def test_offsets_a_power_of_two_apart(seed: int, size: int) -> None:
    sequence = drawn(0.5, seed, size)
    for exponent in range(28, 64):
        assert_independent(sequence, drawn(0.5, seed, size, offset=2**exponent))


def test_successive_calls(seed: int, size: int) -> None:
    """A stream gives neighbouring offsets to successive calls."""
    stream = fd.Stream(seed)
    sequences = [fd.keep_mask(size // 16 + 1, keep_prob=0.5, rng=stream).to_array() for _ in range(16)]
    for first, second in itertools.combinations(sequences, 2):
        assert_independent(first, second)


def test_spawned_streams(seed: int, size: int) -> None:
    parent = fd.Stream(seed)
    children = parent.spawn(8)
    family = [parent, *children, *children[0].spawn(4), *children[1].spawn(4)]
    sequences = [fd.keep_mask(size, keep_prob=0.5, rng=stream).to_array() for stream in family]
    for first, second in itertools.combinations(sequences, 2):
        assert_independent(first, second)
