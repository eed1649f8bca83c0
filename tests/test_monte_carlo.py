"""Monte Carlo dropout: mean and variance are the samples', and each sample can be made again."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

import fastdrop as fd
from support import assert_identical

RNG = np.random.default_rng(0)
X = RNG.standard_normal((10, 6))
W1, W2 = RNG.standard_normal((6, 20)), RNG.standard_normal((20, 3))


def predict(x, stream):
    """A network with dropout in two places."""
    hidden, _ = fd.relu_dropout(x @ W1, 0.5, rng=stream)
    output, _ = fd.dropout(hidden @ W2, 0.9, rng=stream)
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
    """Up to the rounding of the matrix products, which may differ with the number of rows."""
    whole = fd.mc_predict(predict, X, 4, rng=fd.Stream(1, 5), keep_samples=True)
    chunked = fd.mc_predict(predict, X, 4, rng=fd.Stream(1, 5), chunk=chunk, keep_samples=True)
    np.testing.assert_allclose(chunked.samples, whole.samples, rtol=1e-12)
    assert np.array_equal(chunked.samples == 0, whole.samples == 0)

    def drop(x, stream):
        return fd.gaussian_dropout(fd.dropout(x, 0.5, rng=stream)[0], 0.5, rng=stream)[0]

    exact = [fd.mc_predict(drop, X, 4, rng=1, chunk=c, keep_samples=True).samples for c in (None, chunk)]
    assert_identical(exact[1], exact[0])


@pytest.mark.thread_unsafe
def test_memory_does_not_grow_with_the_samples():
    x = np.ones((1000, 50))

    def peak(samples):
        tracemalloc.start()
        fd.mc_predict(lambda x, stream: fd.dropout(x, 0.5, rng=stream)[0], x, samples, rng=1)
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
    result = fd.mc_predict(lambda x, stream: fd.dropout_predict(x, 0.5), X, 7)
    assert_identical(result.mean, X)
    assert not result.variance.any()


def test_progress_is_counted(monkeypatch):
    from contextlib import contextmanager

    from fastdrop import commands

    shown = []

    @contextmanager
    def progress(description, total):
        yield lambda: shown.append((description, total))

    monkeypatch.setattr(commands, "progress", progress)
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
        fd.mc_predict(lambda x, stream: fd.dropout(x[:2], 0.5, rng=stream)[0], X[:, :1], 3, rng=1, chunk=3)
    shapes = iter([(2,), (3,)])
    with pytest.raises(ValueError, match="predict must give the same shape each time"):
        fd.mc_predict(lambda x, stream: np.ones(next(shapes)), X, 2, rng=1)
