"""Monte Carlo dropout gives the mean and variance of its samples, and each sample can be computed again."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdrop as fd
from fastdrop import layers, monte_carlo
from support import assert_identical

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 6))
W1, W2 = RNG.standard_normal((6, 20)), RNG.standard_normal((20, 3))


def predict(x, stream):
    """Predict with a network that has dropout in two places."""
    hidden, _ = fd.relu_dropout(x @ W1, keep_prob=0.5, rng=stream)
    output, _ = fd.dropout(hidden @ W2, keep_prob=0.9, rng=stream)
    return output


def single_precision(x, stream):
    return predict(x, stream).astype(np.float32)


@pytest.mark.parametrize("network", [predict, single_precision])
def test_mean_and_variance_are_those_of_the_samples(network):
    result = fd.mc_predict(network, X, 50, rng=1, keep_samples=True)
    assert result.samples.shape == (50, 10, 3)
    assert result.samples.dtype == network(X, fd.Stream(0)).dtype
    assert result.mean.dtype == result.variance.dtype == np.float64
    exact = result.samples.astype(np.float64)
    np.testing.assert_allclose(result.mean, exact.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(result.variance, exact.var(axis=0, ddof=1), rtol=1e-12)
    assert np.all(result.variance > 0)


def test_the_variance_is_stable_far_from_zero():
    result = fd.mc_predict(lambda x, stream: predict(x, stream) + 1e9, X, 50, rng=1)
    expected = fd.mc_predict(predict, X, 50, rng=1).variance
    np.testing.assert_allclose(result.variance, expected, rtol=1e-5)


@pytest.mark.parametrize("parts", [np.float64, np.complex128])
def test_infinite_predictions_have_the_mean_that_numpy_gives_them(parts):
    rows = np.array([
        [np.inf, 1, np.inf, 1, np.nan, -np.inf], [np.inf, np.inf, 1, 2, 1, np.inf], [np.inf, 2, 2, 3, 2, 0],
    ])  # fmt: skip
    rows = rows.astype(parts)
    if parts is np.complex128:
        rows.imag = rows.real[:, ::-1]
    samples = iter(rows)
    mean = fd.mc_predict(lambda x, stream: next(samples), X, 3, rng=1).mean
    exact = rows[0].copy()
    with np.errstate(invalid="ignore"):
        exact.real = rows.real.mean(axis=0)
        if parts is np.complex128:
            exact.imag = rows.imag.mean(axis=0)
    assert np.array_equal(mean.view(np.float64), exact.view(np.float64), equal_nan=True)


def test_the_mean_of_large_predictions_is_finite():
    samples = iter(np.array([[1.7e308, 1e308], [-1.7e308, 1e308], [1.7e308, 1e308]]))
    result = fd.mc_predict(lambda x, stream: next(samples), X, 3, rng=1)
    np.testing.assert_allclose(result.mean, [1.7e308 / 3, 1e308])
    assert result.variance.tolist() == [np.inf, 0]


def test_each_sample_can_be_made_again(library):
    result = fd.mc_predict(predict, X, 5, rng=fd.Stream(3, 70), keep_samples=True)
    for k in range(5):
        assert_identical(predict(X, result.stream(k)), result.samples[k])
    assert result.stream(0).offset == 70
    with pytest.raises(IndexError, match=r"sample must be in \[0, 5\), got 5"):
        result.stream(5)


def test_a_sample_does_not_depend_on_how_many_there_are():
    few = fd.mc_predict(predict, X, 3, rng=1, keep_samples=True)
    many = fd.mc_predict(predict, X, 9, rng=1, keep_samples=True)
    assert_identical(many.samples[:3], few.samples)
    assert len({sample.tobytes() for sample in many.samples}) == 9


@pytest.mark.parametrize("chunk", [1, 3, 5, 9, 10, 11])
def test_chunks_change_nothing(chunk):
    """The matrix products may be rounded differently for another number of rows."""
    whole = fd.mc_predict(predict, X, 4, rng=fd.Stream(1, 5), keep_samples=True)
    chunked = fd.mc_predict(predict, X, 4, rng=fd.Stream(1, 5), chunk=chunk, keep_samples=True)
    np.testing.assert_allclose(chunked.samples, whole.samples, rtol=1e-12)
    assert np.array_equal(chunked.samples == 0, whole.samples == 0)


@pytest.mark.thread_unsafe
def test_memory_does_not_grow_with_the_samples():
    x = np.ones((1000, 50))

    def peak(samples):
        tracemalloc.start()
        fd.mc_predict(lambda x, stream: fd.dropout(x, keep_prob=0.5, rng=stream)[0], x, samples, rng=1)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(2)
    assert peak(60) < peak(5) + x.nbytes


def test_a_stream_is_moved_past_all_samples():
    stream = fd.Stream(1)
    fd.mc_predict(predict, X, 3, rng=stream, stretch=1000)
    assert stream.offset == 3000
    whole = fd.mc_predict(predict, X, 6, rng=1, stretch=1000, keep_samples=True)
    later = fd.mc_predict(predict, X, 3, rng=stream, stretch=1000, keep_samples=True)
    assert_identical(later.samples, whole.samples[3:])


def test_one_sample_has_no_variance():
    result = fd.mc_predict(predict, X, 1, rng=1)
    assert np.isnan(result.variance).all()
    assert_identical(result.mean, predict(X, result.stream(0)))
    assert result.samples is None


def test_without_dropout_there_is_no_uncertainty():
    result = fd.mc_predict(lambda x, stream: fd.dropout_predict(x, keep_prob=0.5), X, 7)
    assert_identical(result.mean, X)
    assert not result.variance.any()


def test_progress_is_counted(monkeypatch):
    shown = []

    @contextmanager
    def progress(description, total):
        yield lambda: shown.append((description, total))

    monkeypatch.setattr(monte_carlo, "progress_bar", progress)
    fd.mc_predict(predict, X, 4, rng=1)
    assert shown == []
    fd.mc_predict(predict, X, 4, rng=1, progress=True)
    assert shown == [("predicting", 4)] * 4


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"predict": 3}, TypeError, "predict must be callable, got int"),
        ({"samples": 0}, ValueError, "samples must be at least 1, got 0"),
        ({"samples": 2.0}, TypeError, "samples must be an int, got 2.0"),
        ({"chunk": 0}, ValueError, "chunk must be at least 1, got 0"),
        ({"stretch": 0}, ValueError, "stretch must be at least 1, got 0"),
        ({"samples": 2**30}, ValueError, "samples must be at most 16777215"),
        ({"x": 1.0, "chunk": 2}, ValueError, "x must have a first axis that counts examples"),
    ],
)
def test_an_error_says_what_is_wrong_and_moves_nothing(values, error, message):
    stream = fd.Stream(1, 2)
    with pytest.raises(error, match=message):
        fd.mc_predict(**{"predict": predict, "x": X, "samples": 3, "rng": stream, **values})
    assert stream.offset == 2


def test_a_predict_that_breaks_its_word():
    with pytest.raises(ValueError, match="stretch must be at least the 230 that predict uses, got 229"):
        fd.mc_predict(predict, X, 3, rng=1, stretch=229)
    with pytest.raises(ValueError, match="stretch must be at least the 230 that predict uses, got 229"):
        fd.mc_predict(predict, X, 3, rng=1, stretch=229, chunk=4)
    with pytest.raises(ValueError, match="chunk must be left out where dropout is not applied to 3 examples"):
        fd.mc_predict(lambda x, stream: fd.dropout(x[:2], keep_prob=0.5, rng=stream)[0], X[:, :1], 3, rng=1, chunk=3)
    shapes = iter([(2,), (3,)])
    with pytest.raises(ValueError, match="predict must give the same shape each time"):
        fd.mc_predict(lambda x, stream: np.ones(next(shapes)), X, 2, rng=1)


# --- chunks, exactly --------------------------------------------------------------------------

AXES = st.sampled_from([(), 0, (0,), 1, (1, 2), (0, 2), (0, 1, 2), -1])
WITH_AXES = ["dropout", "relu_dropout", "alpha_dropout", "Dropout", "AlphaDropout"]
ALONE = ["gaussian_dropout", "GaussianDropout", "bits", "reserve", "narrow"]
AROUND = ["spawn", "copy", "pickle", "set back"]
STEPS = st.deferred(
    lambda: st.one_of(
        st.tuples(st.sampled_from(WITH_AXES), AXES),
        st.tuples(st.sampled_from(ALONE), st.none()),
        st.tuples(st.sampled_from(AROUND), PROGRAMS),
    )
)
PROGRAMS = st.lists(STEPS, max_size=3)
EXAMPLES = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def run(program, calls, x, stream):
    """Run a network without a sum, so no rounding depends on the number of rows."""
    for step, argument in program:
        if step in ("dropout", "relu_dropout", "alpha_dropout"):
            x, _ = getattr(calls, step)(x, keep_prob=0.7, broadcast_dims=argument, rng=stream)
        elif step in ("Dropout", "AlphaDropout"):
            x = getattr(layers, step)(keep_prob=0.6, broadcast_dims=argument, rng=stream)(x)
        elif step == "GaussianDropout":
            x = layers.GaussianDropout(keep_prob=0.6, rng=stream)(x)
        elif step == "gaussian_dropout":
            x, _ = calls.gaussian_dropout(x, keep_prob=0.7, rng=stream)
        elif step == "bits":
            x = x * calls.keep_mask(x.shape, keep_prob=0.7, rng=stream).to_array()
        elif step == "narrow":
            x = x + calls.dropout(x[:, :1], keep_prob=0.7, rng=stream)[0]
        elif step == "reserve":
            stream.offset += 37
        elif step == "set back":
            start = stream.offset
            x = run(argument, calls, x, stream)
            stream.offset = start
        elif step == "spawn":
            for child in stream.spawn(2):
                x = run([*argument, ("dropout", ())], calls, x, child)
        else:
            other = copy.copy(stream) if step == "copy" else pickle.loads(pickle.dumps(stream))
            x = run(argument, calls, x, other)
    return x


@EXAMPLES
@given(st.sampled_from([fd, fd.reference]), PROGRAMS, st.integers(1, 6), st.integers(1, 7))
def test_chunks_change_nothing_whatever_predict_does(calls, program, chunk, rows):
    x = np.random.default_rng(0).standard_normal((rows, 3, 5)).astype(np.float32)

    def predict(x, stream):
        return run(program, calls, x, stream)

    whole, chunked = (
        fd.mc_predict(predict, x, 2, rng=fd.Stream(2**100, 70), chunk=size, keep_samples=True)
        for size in (None, chunk)
    )
    assert_identical(chunked.samples, whole.samples)
    assert_identical(chunked.variance, whole.variance)
    assert_identical(predict(x, whole.stream(1)), whole.samples[1])


def test_what_rows_of_a_stream_cannot_do_is_refused():
    def tiles(x, stream):
        return fd.dropout(x, keep_prob=0.5, rng=stream.tile(x.shape, (0, 0)))[0]

    with pytest.raises(TypeError, match="chunk must be left out where predict makes tiles"):
        fd.mc_predict(tiles, X, 2, rng=1, chunk=3)
    with pytest.raises(TypeError, match="rng must be a stream of its own here, not the stream of some rows"):
        fd.mc_predict(lambda x, stream: fd.mc_predict(predict, x, 2, rng=stream).mean, X, 2, rng=1, chunk=3)
    for shape in ((), (2, 3), (6, 3), (1, 3)):

        def elsewhere(x, stream, shape=shape):
            return fd.keep_mask(shape, keep_prob=0.5, rng=stream).to_array()

        with pytest.raises(ValueError, match="chunk must be left out where dropout is not applied to 3 ex"):
            fd.mc_predict(elsewhere, X, 2, rng=1, chunk=3)


# --- streams of a sample's own ----------------------------------------------------------------


def from_a_child(x, stream):
    return fd.dropout(x, keep_prob=0.5, rng=stream.spawn(1)[0])[0]


@pytest.mark.parametrize(
    "ask", [lambda s: fd.Stream(s.seed), lambda s: s.reserve(6), lambda s: fd.Tile((3, 6), 0, s.seed)]
)
def test_rows_tell_nothing_that_other_rows_would_draw_from(ask):
    with pytest.raises(TypeError, match="chunk must be left out where predict"):
        fd.mc_predict(lambda x, stream: ask(stream) and x, X, 2, rng=1, chunk=3)


@pytest.mark.parametrize("reduce", [np.mean, lambda y: y.mean(0), lambda y: y.mean(0, keepdims=True)])
def test_a_chunk_has_a_result_for_each_of_its_examples(reduce):
    def predict(x, stream):
        return reduce(fd.dropout(x, keep_prob=0.5, rng=stream)[0])

    with pytest.raises(ValueError, match="predict must give a result for each example"):
        fd.mc_predict(predict, X, 2, rng=1, chunk=3)


@pytest.mark.parametrize("chunk", [None, 3])
def test_what_a_sample_spawns_is_its_own(chunk):
    stream = fd.Stream(1)
    results = [
        fd.mc_predict(from_a_child, X, 20, rng=stream, keep_samples=True, chunk=chunk) for _ in range(2)
    ]
    samples = [sample.tobytes() for result in results for sample in result.samples]
    assert len({*samples, from_a_child(X, fd.Stream(1)).tobytes()}) == 41
    for result in results:
        assert np.all(result.variance > 0)
        for k in range(20):
            assert_identical(from_a_child(X, result.stream(k)), result.samples[k])
            assert_identical(from_a_child(X, copy.copy(result.stream(k))), result.samples[k])
            assert_identical(from_a_child(X, pickle.loads(pickle.dumps(result)).stream(k)), result.samples[k])


def test_a_stream_s_own_children_are_what_they_were():
    seeds = [child.seed for child in fd.Stream(5).spawn(2)]
    words = (np.random.SeedSequence(5, spawn_key=(child,)).generate_state(4, np.uint32) for child in range(2))
    assert seeds == [sum(int(word) << 32 * i for i, word in enumerate(key)) for key in words]


def test_samples_within_a_sample_spawn_their_own():
    """They do so also if the inner samples begin at the position of the outer one."""
    inner = []

    def predict(x, stream):
        result = fd.mc_predict(from_a_child, x, 2, rng=stream, keep_samples=True, stretch=1000)
        inner.extend(sample.tobytes() for sample in result.samples)
        inner.append(from_a_child(x, stream).tobytes())
        return result.mean

    fd.mc_predict(predict, X, 3, rng=1)
    assert len(set(inner)) == 9


# --- what predict gives -----------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [None, 3])
def test_predict_may_use_one_buffer_and_write_to_its_input(chunk):
    room = np.empty_like(X)
    whole = fd.mc_predict(lambda x, stream: fd.dropout(x, keep_prob=0.5, rng=stream)[0], X, 5, rng=1, keep_samples=True)

    def reusing(x, stream):
        return fd.dropout(x, keep_prob=0.5, rng=stream, out=room[: len(x)])[0]

    def in_place(x, stream):
        return fd.dropout(x, keep_prob=0.5, rng=stream, out=x)[0]

    before = X.copy()
    for predict in (reusing, in_place):
        result = fd.mc_predict(predict, X, 5, rng=1, keep_samples=True, chunk=chunk)
        assert_identical(result.samples, whole.samples)
        assert_identical(result.variance, whole.variance)
    assert_identical(X, before)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_the_variance_of_complex_predictions_is_real(dtype):
    def predict(x, stream):
        return (fd.dropout(x, keep_prob=0.5, rng=stream)[0] + 1j * fd.dropout(x, keep_prob=0.5, rng=stream)[0]).astype(
            dtype
        )

    result = fd.mc_predict(predict, X, 50, rng=1, keep_samples=True)
    assert result.mean.dtype == np.complex128
    assert result.variance.dtype == np.float64
    exact = result.samples.astype(np.complex128)
    np.testing.assert_allclose(result.variance, np.var(exact, axis=0, ddof=1), rtol=1e-12)
    one = fd.mc_predict(predict, X, 1, rng=1)
    assert np.isnan(one.variance).all() and one.variance.dtype == np.float64


@pytest.mark.parametrize(
    ("prediction", "message"),
    [
        (["a", "b"], "predict must give numbers, got str"),
        ([None], "predict must give numbers, got object"),
        (np.zeros(3, "m8[s]"), "predict must give numbers, got timedelta64"),
        (np.zeros(3, "M8[s]"), "predict must give numbers, got datetime64"),
        (np.ma.ones(3), "the result of predict must not be a masked array"),
    ],
)
@pytest.mark.parametrize("chunk", [None, 3])
def test_predictions_that_are_no_numbers_are_refused(prediction, message, chunk):
    with pytest.raises(TypeError, match=message):
        fd.mc_predict(lambda x, stream: prediction, X, 2, rng=1, chunk=chunk)
    with pytest.raises(TypeError, match="x must not be a masked array"):
        fd.mc_predict(predict, np.ma.ones((3, 6)), 2, rng=1, chunk=chunk)
