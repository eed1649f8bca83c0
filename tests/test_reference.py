"""The reference agrees with outside sources: FIPS 197, Random123's known answers, stored streams."""

from __future__ import annotations

import inspect
import runpy
import sys
import tracemalloc

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import formulas, reference
from fastdrop.reference import arrays, decisions, generator
from support import DATA, GOLDEN_STREAMS, known_answers, plain_package, printed_by


def ars(counter: int, seed: int, rounds: int = generator.ROUNDS) -> int:
    counters = np.frombuffer(counter.to_bytes(16, "little"), np.uint8).reshape(1, 16)
    return int.from_bytes(generator.ars(counters, seed, rounds).tobytes(), "little")


# --- the generator ----------------------------------------------------------------------------


def test_a_round_of_aes():
    """FIPS 197, appendix C.1, shows the state after each step of round 1."""
    state = np.frombuffer(bytes.fromhex("00102030405060708090a0b0c0d0e0f0"), np.uint8).reshape(1, 16)
    state = generator.SBOX[state]
    assert state.tobytes().hex() == "63cab7040953d051cd60e0e7ba70e18c"
    state = state[:, generator.SHIFT_ROWS]
    assert state.tobytes().hex() == "6353e08c0960e104cd70b751bacad0e7"
    assert generator.mix_columns(state).tobytes().hex() == "5f72641557f5bc92f7be3b291db9f91a"


def test_the_substitution_box_is_that_of_the_standard():
    """The corners are those of FIPS 197, figure 7, and the box is a permutation."""
    assert [generator.SBOX[i] for i in (0x00, 0x0F, 0x53, 0xF0, 0xFF)] == [0x63, 0x76, 0xED, 0x8C, 0x16]
    assert sorted(generator.SBOX) == list(range(256))


@pytest.mark.parametrize("known", list(known_answers()))
def test_known_answers(known):
    assert ars(known.counter, known.key, known.rounds) == known.output


def test_there_are_known_answers_of_7_and_of_10_rounds():
    assert sorted(known.rounds for known in known_answers()) == [7] * 5 + [10] * 3


# --- which elements are kept ------------------------------------------------------------------


def test_the_script_writes_the_stored_streams():
    assert runpy.run_path(str(DATA / "make_golden.py"))["golden_text"]() == GOLDEN_STREAMS.read_text()


def uniform(seed: int, position: int) -> int:
    """Return U of the definition as an integer, computed bit by bit."""
    block, bit = divmod(position, 128)
    planes = (ars(block + (j << 64), seed) for j in range(64))
    return sum(((plane >> bit) & 1) << (63 - j) for j, plane in enumerate(planes))


@pytest.mark.parametrize(("seed", "start"), [(0, 0), (2**127 + 9, 120), (3, 2**32 - 5), (3, 2**64 - 20)])
def test_kept_is_a_comparison_of_integers(seed, start):
    uniforms = [uniform(seed, start + n) for n in range(20)]
    borders = [float(value) / 2**64 for value in uniforms[:4]]  # almost ties
    for keep_prob in (0.0, 1e-300, 2.0**-64, 0.1, 0.5, 0.9, 1 - 2.0**-53, 1.0, *borders):
        threshold = int(keep_prob * 2**64)
        assert decisions.kept(seed, start, 20, keep_prob).tolist() == [u < threshold for u in uniforms]


@pytest.mark.parametrize(
    "keep_prob", [0.0, 2.0**-65, 2.0**-64, 2.0**-32, 0.5, 1 - 2.0**-32, 1 - 2.0**-53, 1.0]
)
@pytest.mark.parametrize(("byte", "uniform"), [(0x00, 0), (0xFF, 2**64 - 1)])
def test_the_extreme_uniforms(monkeypatch, keep_prob, byte, uniform):
    """The least and the greatest uniform are decided exactly: keep_prob 0 keeps none, and 1 keeps all."""

    def plane(seed, blocks, j):
        return np.full((len(blocks), 16), byte, np.uint8)

    monkeypatch.setattr(decisions, "plane", plane)
    assert set(decisions.kept(1, 3, 300, keep_prob)) == {uniform < int(keep_prob * 2**64)}


@pytest.mark.parametrize("keep_prob", [0.0, 5e-324, 2.0**-64, 0.1, 1 / 3, 0.9, 1 - 2.0**-53, 1.0])
def test_the_threshold_is_exact(keep_prob):
    numerator, denominator = keep_prob.as_integer_ratio()
    assert formulas.threshold(keep_prob) == numerator * 2**64 // denominator


@pytest.mark.parametrize("keep_prob", [0.0, 1.0])
def test_certainty_draws_nothing(monkeypatch, keep_prob):
    monkeypatch.setattr(decisions, "plane", lambda *_: pytest.fail("a bit was drawn"))
    assert reference.keep_mask(1000, keep_prob=keep_prob, rng=1).to_array().all() == (keep_prob == 1.0)


@pytest.mark.parametrize(
    ("keep_prob", "planes"), [(0.5, 1), (0.75, 2), (0.25, 2), (3 / 256, 8), (255 / 256, 8)]
)
def test_no_plane_is_drawn_that_cannot_matter(monkeypatch, keep_prob, planes):
    drawn, draw = [], decisions.plane

    def plane(seed, blocks, j):
        drawn.append(j)
        return draw(seed, blocks, j)

    monkeypatch.setattr(decisions, "plane", plane)
    decisions.kept(1, 0, 10_000, keep_prob)
    assert drawn == list(range(planes))


# --- as a module ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", reference.__all__)
def test_signatures_are_those_of_the_compiled_calls(name):
    def described(module):
        parameters = inspect.signature(getattr(module, name)).parameters.values()
        return [(parameter.name, parameter.kind, parameter.default) for parameter in parameters]

    assert described(reference) == described(fd)


def test_nothing_compiled_is_needed(tmp_path):
    """The modules of plain Python alone give the same under an empty `fastdrop/__init__.py`."""
    package = plain_package(tmp_path)
    code = "import fastdrop.reference as r; print(r.__file__, r.dropout([1.0] * 9, keep_prob=0.5, rng=1)[0].tolist())"
    expected = fd.dropout([1.0] * 9, keep_prob=0.5, rng=1)[0].tolist()
    assert printed_by(code, PYTHONPATH=str(tmp_path)) == f"{package / 'reference' / '__init__.py'} {expected}"


@pytest.mark.thread_unsafe
@pytest.mark.skipif(sys.implementation.name != "cpython", reason="tracemalloc is CPython's")
def test_temporary_memory_is_bounded():
    """Eight times the elements take no more memory beside the result and the mask."""

    def temporary(size: int) -> int:
        x = np.zeros(size, np.float32)
        tracemalloc.start()
        y, mask = reference.relu_dropout(x, keep_prob=0.5, rng=0)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak - y.nbytes - mask.nbytes

    assert temporary(8 * arrays.CHUNK) < 1.1 * temporary(arrays.CHUNK)


def test_the_gradient_of_a_bias_is_native_where_out_is_not():
    dy, mask = np.ones((4, 3), np.float32), fd.keep_mask((4, 3), keep_prob=0.5, rng=1)
    for library in (fd, reference):
        out = np.zeros((4, 3), ">f4")
        _, dbias = library.dropout_backward(dy, mask, bias_grad=True, out=out)
        assert dbias.dtype.isnative


def test_a_return_mask_without_a_truth_changes_nothing():
    for library in (fd, reference):
        stream, out = fd.Stream(1), np.zeros(4, np.float32)
        with pytest.raises(ValueError, match="ambiguous"):
            library.dropout(np.ones(4, np.float32), keep_prob=0.5, rng=stream, out=out, return_mask=np.ones(2))
        assert stream.offset == 0
        assert not out.any()
