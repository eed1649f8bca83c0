"""Streams and the argument `rng=` keep the promises of random access: slicing, nesting and replay."""

from __future__ import annotations

import itertools
import json
import re
import runpy

import numpy as np
import pytest

import fastdrop as fd
from fastdrop.stream import seed_of
from support import DATA, assert_identical, golden_streams, sample

OFFSETS = (0, 1, 31, 127, 128, 2**32 - 5, 2**63 + 3)
LAST = 2**64


# --- the object -------------------------------------------------------------------------------


def test_a_stream_starts_where_it_is_told():
    stream = fd.Stream(7, 5)
    assert (stream.seed, stream.offset) == (7, 5)
    assert repr(stream) == "Stream(seed=7, offset=5)"
    assert fd.Stream(7).offset == 0


def test_a_stream_without_a_seed_has_a_fresh_one():
    seeds = {fd.Stream().seed for _ in range(10)}
    assert len(seeds) == 10
    assert max(seeds).bit_length() > 64


def test_a_stream_can_be_set_back(library):
    stream = fd.Stream(3, 1000)
    first = library.keep_mask(300, keep_prob=0.5, rng=stream)
    second = library.keep_mask(300, keep_prob=0.5, rng=stream)
    assert first != second
    stream.offset = 1000
    assert library.keep_mask(300, keep_prob=0.5, rng=stream) == first


def test_a_stream_is_made_of_whatever_rng_takes(library):
    sequence, generator = np.random.SeedSequence(11), np.random.default_rng(1)
    for source in (7, np.int64(7), sequence):
        assert library.keep_mask(99, keep_prob=0.5, rng=fd.Stream(source)) == library.keep_mask(
            99, keep_prob=0.5, rng=source
        )
    stream = fd.Stream(generator)
    expected = library.keep_mask(99, keep_prob=0.5, rng=np.random.default_rng(1))
    assert library.keep_mask(99, keep_prob=0.5, rng=stream) == expected
    stream.spawn(2)
    twin = fd.Stream(stream)
    assert twin.state == stream.state
    assert twin.spawn(1)[0].seed == stream.spawn(1)[0].seed
    assert fd.Stream(stream, 5).state == {**stream.state, "offset": 5}
    assert stream.offset == 99


def test_the_state_replays_spawned_children_too():
    stream = fd.Stream(5, 3)
    stream.spawn(3)
    saved = json.loads(json.dumps(stream.state))
    expected = [child.seed for child in stream.spawn(2)], fd.keep_mask(99, keep_prob=0.5, rng=stream)
    elsewhere = fd.Stream(5)
    for again in (stream, elsewhere):
        again.state = saved
        assert ([child.seed for child in again.spawn(2)], fd.keep_mask(99, keep_prob=0.5, rng=again)) == expected
    sample = fd.mc_predict(lambda x, stream: x, [1.0], 2, rng=6).stream(1)
    alike = fd.Stream(6)
    alike.state = sample.state
    assert alike.spawn(1)[0].seed == sample.spawn(1)[0].seed


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ({"seed": 6, "offset": 0, "children": 0, "prefix": []}, ValueError, "with the seed 5, got 6"),
        ({"seed": 5, "offset": -1, "children": 0, "prefix": []}, ValueError, "offset must be in"),
        ({"seed": 5, "offset": 0, "children": "1", "prefix": []}, TypeError, "children must be an int"),
        ({"seed": 5, "offset": 0, "children": 0, "prefix": [1]}, ValueError, "prefix must be pairs"),
        ({"seed": 5, "offset": 0}, TypeError, "state must be a dict of seed, offset, children, prefix"),
        ((5, 0), TypeError, "state must be a dict"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(state, error, message):
    stream = fd.Stream(5, 9)
    with pytest.raises(error, match=message):
        stream.state = state
    assert stream.state == {"seed": 5, "offset": 9, "children": 0, "prefix": []}


def test_spawned_streams_differ_and_can_be_made_again():
    stream = fd.Stream(5)
    seeds = [child.seed for child in stream.spawn(3) + stream.spawn(2)]
    assert len({*seeds, 5}) == 6
    assert [child.seed for child in fd.Stream(5).spawn(5)] == seeds
    assert stream.offset == 0
    assert stream.spawn(0) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((-1,), ValueError, "seed must be in [0, 2**128), got -1"),
        ((2**128,), ValueError, f"seed must be in [0, 2**128), got {2**128}"),
        ((1.5,), TypeError, "numpy.random.Generator or a Stream, got 1.5"),
        ((fd.Tile(3, 0, 1),), TypeError, "seed must be None, an int, a numpy.random.SeedSequence, a numpy"),
        ((True,), TypeError, "numpy.random.Generator or a Stream, got True"),
        ((1, -1), ValueError, "offset must be in [0, 2**64], got -1"),
        ((1, 2**64 + 1), ValueError, f"offset must be in [0, 2**64], got {2**64 + 1}"),
        ((1, 0.5), TypeError, "offset must be an int, got 0.5"),
    ],
)
def test_what_a_stream_cannot_be(arguments, error, message):
    with pytest.raises(error, match=re.escape(message)):
        fd.Stream(*arguments)


def test_an_offset_that_is_refused_is_not_taken():
    stream = fd.Stream(1, 9)
    with pytest.raises(ValueError, match="offset"):
        stream.offset = -1
    with pytest.raises(ValueError, match="n_children"):
        stream.spawn(-1)
    with pytest.raises(ValueError, match="count"):
        stream.reserve(-1)
    for count in (1.5, True, "2"):
        with pytest.raises(TypeError, match=f"count must be an int, got {count!r}"):
            stream.reserve(count)
    assert stream.offset == 9


def test_positions_are_plain_ints():
    """A NumPy integer as a count must not turn the offset into an integer of 64 bits."""
    stream = fd.Stream(1, np.uint64(2**63))
    assert stream.reserve(np.int64(2**62)) == 2**63
    assert (stream.offset, type(stream.offset)) == (2**63 + 2**62, int)


# --- rng= -------------------------------------------------------------------------------------


def test_an_int_is_the_seed_itself(library):
    expected = fd.reference.keep_mask(200, keep_prob=0.5, rng=fd.Stream(7))
    for rng in (7, np.int64(7), np.uint8(7)):
        assert library.keep_mask(200, keep_prob=0.5, rng=rng) == expected
        assert library.keep_mask(200, keep_prob=0.5, rng=rng) == expected


def test_a_seed_sequence_gives_the_same_mask_at_every_call(library):
    sequence = np.random.SeedSequence(11)
    first = library.keep_mask(200, keep_prob=0.5, rng=sequence)
    assert library.keep_mask(200, keep_prob=0.5, rng=sequence) == first
    assert library.keep_mask(200, keep_prob=0.5, rng=np.random.SeedSequence(11)) == first
    assert first == library.keep_mask(200, keep_prob=0.5, rng=seed_of(sequence))
    assert seed_of(sequence).bit_length() > 64


def test_a_generator_is_asked_for_128_bits(library):
    generator, twin = np.random.default_rng(1), np.random.default_rng(1)
    first, second = (library.keep_mask(200, keep_prob=0.5, rng=generator) for _ in range(2))
    assert first != second
    seed = int.from_bytes(twin.bytes(16), "little")
    assert first == library.keep_mask(200, keep_prob=0.5, rng=seed)


def test_without_rng_every_call_differs(library):
    masks = [library.keep_mask(200, keep_prob=0.5).bits.tobytes() for _ in range(5)]
    assert len(set(masks)) == 5


def test_every_bit_of_the_seed_changes_the_mask(library):
    """Other libraries have cut seeds to 32 or 64 bits."""
    seeds = [0, *(1 << bit for bit in range(128))]
    masks = {library.keep_mask(128, keep_prob=0.5, rng=seed).bits.tobytes() for seed in seeds}
    assert len(masks) == len(seeds)


# --- positions --------------------------------------------------------------------------------


@pytest.mark.parametrize("golden", list(golden_streams()))
def test_stored_streams(implementation, golden):
    as_text = runpy.run_path(str(DATA / "make_golden.py"))["as_text"]
    stream = fd.Stream(golden.seed, golden.offset)
    mask = implementation.keep_mask(golden.count, keep_prob=golden.keep_prob, rng=stream)
    assert as_text(mask.bits.tobytes(), golden.count) == golden.bits


def test_the_stream_that_the_documentation_shows(implementation):
    kept = implementation.keep_mask(2**20, keep_prob=0.9, rng=42).to_array()
    assert "".join(map(str, kept[:32].astype(int))) == "11110111111110111111111111111111"
    assert np.count_nonzero(kept) == 943_591


@pytest.mark.parametrize("offset", OFFSETS)
def test_any_slice_can_be_made_alone(isa, offset):
    x = sample(5000, seed=1)
    whole, mask = fd.relu_dropout(x, keep_prob=0.7, rng=fd.Stream(9, offset))
    passed = mask.to_array()
    generator = np.random.default_rng(offset)
    bounds = [(0, 1), (4999, 5000), (127, 129), *np.sort(generator.integers(0, 5001, (40, 2)), axis=1)]
    for start, stop in bounds:
        part, part_mask = fd.relu_dropout(x[start:stop], keep_prob=0.7, rng=fd.Stream(9, offset + int(start)))
        assert_identical(part, whole[start:stop], f"{start}:{stop}")
        assert np.array_equal(part_mask.to_array(), passed[start:stop])


def test_successive_calls_are_slices_of_one_stream(library):
    whole = library.keep_mask(1000, keep_prob=0.6, rng=8).to_array()
    stream = fd.Stream(8)
    parts = [library.keep_mask(length, keep_prob=0.6, rng=stream).to_array() for length in (1, 7, 120, 0, 500, 372)]
    assert np.array_equal(np.concatenate(parts), whole)


@pytest.mark.parametrize("seed", [0, 42, 2**100])
def test_what_is_kept_stays_kept_at_a_higher_keep_prob(library, seed):
    keep_probs = sorted([0, 1e-300, 2.0**-11, 0.1, 0.25, 0.5, 0.5 + 2.0**-53, 0.75, 0.9, 1 - 2.0**-53, 1])
    masks = [library.keep_mask(20_000, keep_prob=keep_prob, rng=seed).to_array() for keep_prob in keep_probs]
    for fewer, more in itertools.pairwise(masks):
        assert not np.any(fewer & ~more)


def test_dtypes_and_calls_draw_one_mask(library):
    """Other libraries have compared in the dtype of the data."""
    expected = library.keep_mask(3000, keep_prob=0.9, rng=4).to_array()
    for dtype in ("float32", "float64"):
        x = np.ones(3000, dtype)
        for call in (library.dropout, library.relu_dropout):
            y, mask = call(x, keep_prob=0.9, rng=4)
            assert np.array_equal(mask.to_array(), expected)
            assert np.array_equal(y != 0, expected)


@pytest.mark.parametrize("left", [0, 1, 299])
def test_no_call_runs_past_the_last_position(library, left):
    stream = fd.Stream(6, LAST - left)
    out = np.full(300, 5.0)
    with pytest.raises(ValueError, match=r"2\*\*64"):
        library.relu_dropout(np.ones(300), keep_prob=0.5, rng=stream, out=out)
    assert stream.offset == LAST - left
    assert np.all(out == 5.0)
    with pytest.raises(ValueError, match=r"2\*\*64"):
        library.keep_mask(300, keep_prob=1.0, rng=stream)
    assert stream.offset == LAST - left
