"""A call whose arguments do not fit says which words do, alike in the compiled calls and the reference."""

from __future__ import annotations

import contextlib
import gc
import pickle
import sys

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import layers

X = np.ones(4, np.float32)
MASK = fd.keep_mask(4, keep_prob=0.5, rng=1)
LAYER = layers.Dropout(keep_prob=0.9, rng=1)
SWITCHED = r"a layer is in training until its eval\(\) is called, and again after its train\(\)"
KEPT = r"keep_prob, the probability that an element is kept \(a dropout rate r is keep_prob = 1 - r\)"

WRONG = [
    ("dropout", (X,), {"p": 0.1}, rf"dropout\(\) has no argument 'p': pass {KEPT}"),
    ("dropout", (X,), {"rate": 0.1}, f"has no argument 'rate': pass {KEPT}"),
    ("relu_dropout", (X,), {"drop_prob": 0.1}, f"has no argument 'drop_prob': pass {KEPT}"),
    ("gaussian_dropout", (X,), {"rate": 0.1}, f"gaussian_dropout.* has no argument 'rate': pass {KEPT}"),
    ("dropout", (X,), {"keep_prob": 0.9, "seed": 1}, "no argument 'seed': pass rng, an int, a numpy"),
    ("keep_mask", (3,), {"keep_prob": 0.9, "random_state": 1}, "no argument 'random_state': pass rng"),
    ("dropout", (X,), {"keep_prob": 0.9, "training": False}, "call dropout in training and dropout_predict"),
    ("alpha_dropout", (X,), {"keep_prob": 0.9, "training": True}, "and use x itself at prediction"),
    ("dropout", (X,), {"keep_prob": 0.9, "noise_shape": (1,)}, "'noise_shape': pass broadcast_dims"),
    ("dropout", (X,), {"keep_prob": 0.9, "inplace": True}, r"pass out, .* \(out=x works in place\)"),
    ("dropout", (), {"input": X, "keep_prob": 0.9}, "no argument 'input': pass x, by position"),
    ("dropout", (X, 0.9), {}, r"1 positional argument \(x\), got 2: .* dropout\(x, keep_prob=0.9, rng=0\)"),
    ("dropout", (X, 0.9, np.random.default_rng(0)), {}, r"pass the others by keyword, such as .* rng=0\)"),
    ("dropout_add", (X, X, 0.9), {}, r"takes 2 positional arguments \(x, residual\), got 3"),
    ("dropout", (X,), {}, rf"dropout\(\) needs {KEPT}: dropout\(x, keep_prob=0.9, rng=0\)"),
    ("keep_mask", (3,), {"rng": 1}, rf"keep_mask\(\) needs {KEPT}: keep_mask\(shape, keep_prob=0.9, rng=0\)"),
    ("dropout_add", (X,), {"keep_prob": 0.5}, r"dropout_add\(\) needs residual"),
    ("dropout", (), {}, r"dropout\(\) needs x and keep_prob"),
    ("dropout_backward", (X, MASK), {"keep_prob": 0.5}, "it accepts dy, mask, bias_grad, out"),
    ("dropout_backward", (X,), {}, r"dropout_backward\(\) needs mask"),
    ("dropout", (X,), {"x": X, "keep_prob": 0.9}, "multiple values for argument 'x'"),
]


@pytest.mark.parametrize(("name", "args", "kwargs", "message"), WRONG)
def test_a_wrong_call_is_told_the_right_one(name, args, kwargs, message):
    texts = set()
    for library in (fd, fd.reference):
        with pytest.raises(TypeError, match=message) as raised:
            getattr(library, name)(*args, **kwargs)
        texts.add(str(raised.value))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Dropout(p=0.1), rf"Dropout\(\) has no argument 'p': pass {KEPT}"),
        (lambda: layers.ReLUDropout(0.9), r"takes 0 .*, such as ReLUDropout\(keep_prob=0.9, rng=0\)"),
        (lambda: layers.Dropout(keep_prob=0.9, seed=1), "no argument 'seed': pass rng"),
        (lambda: layers.Dropout(keep_prob=0.9, training=False), rf"Dropout\(\) has .* 'training': {SWITCHED}"),
        (lambda: LAYER(X, training=True), rf"Dropout\(\) has no argument 'training': {SWITCHED}"),
        (lambda: LAYER(X, rng=1), r"Dropout\(\) has no argument 'rng': it accepts x, out"),
        (lambda: LAYER(X, X), r"Dropout\(\) takes 1 positional argument \(x\), got 2"),
        (lambda: LAYER(), r"Dropout\(\) needs x"),
        (lambda: layers.DropConnect(np.ones((2, 2))), rf"DropConnect\(\) needs {KEPT}"),
        (lambda: layers.GaussianDropout(stddev=1), "no argument 'stddev': it accepts keep_prob, rng"),
    ],
)
def test_a_layer_is_told_too(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fd.mc_predict(abs, X, 3, seed=1), r"mc_predict\(\) has no argument 'seed': pass rng"),
        (lambda: fd.mc_predict(abs, X, n_samples=3), "'n_samples': pass samples, the number of predictions"),
        (lambda: fd.mc_predict(abs, X), r"mc_predict\(\) needs samples"),
    ],
)
def test_monte_carlo_is_told_too(make, message):
    with pytest.raises(TypeError, match=message):
        make()


def test_an_error_inside_of_a_method_stays_itself():
    with pytest.raises(TypeError, match="seed must be None, an int"):
        fd.Stream("7")
    with pytest.raises(TypeError, match="x must have dtype"):
        LAYER(np.ones(3, int))


def test_an_error_of_a_call_that_fits_stays_itself():
    for library in (fd, fd.reference):
        with pytest.raises(TypeError, match="x must have dtype"):
            library.dropout(np.ones(3, int), keep_prob=0.5)

        class Hostile:
            def __array__(self, dtype=None, copy=None):
                raise TypeError("mine")

        with pytest.raises(TypeError, match="mine") as raised:
            library.dropout(Hostile(), keep_prob=0.5)
        assert isinstance(raised.value.__cause__, TypeError)


WRONG_WORD = {"p": 0.1}


def test_every_way_to_call_is_covered():
    ways = [
        lambda: fd.dropout(X, p=0.1),
        lambda: fd.dropout(*[X], **WRONG_WORD),
        lambda: fd.dropout.__call__(X, p=0.1),
        lambda: list(map(fd.dropout, [X])),
    ]
    for way in ways:
        with pytest.raises(TypeError, match="keep_prob, the probability"):
            way()


@pytest.mark.parametrize("call", [lambda: fd.dropout(X, p=0.1), lambda: LAYER(X, p=0.1)])
def test_an_error_leaks_nothing(call):
    def wrong():
        for _ in range(100):
            with pytest.raises(TypeError):
                call()

    @contextlib.contextmanager
    def nothing_else():
        """Let the collector forget what the process has, which takes a second each time where frameworks are loaded."""
        gc.collect()
        gc.freeze()
        try:
            yield
        finally:
            gc.unfreeze()

    def counts():
        gc.collect()
        return sys.getrefcount(X), sys.getrefcount(TypeError), len(gc.get_objects())

    def growth():
        before = counts()
        wrong()
        return [a - b for a, b in zip(counts(), before)]

    wrong()
    # A leak shows in every round. What other threads and caches keep does not.
    with nothing_else():
        assert all(min(grown) < 50 for grown in zip(*[growth() for _ in range(5)]))


# --- results that were not unpacked -----------------------------------------------------------

FORGOTTEN = {
    "a matrix product": lambda h: h @ np.ones((4, 2), np.float32),
    "a sum": lambda h: h + np.float32(1),
    "a ufunc": np.exp,
    "a comparison": lambda h: np.maximum(h, 0),
    "a function": np.mean,
    "an array": np.asarray,
    "a list of them": lambda h: np.stack([h, h]),
}
ROWS = np.ones((2, 4), np.float32)
RESULTS = {
    "relu_dropout": lambda: fd.relu_dropout(ROWS, keep_prob=0.5, rng=1),
    "gaussian_dropout": lambda: fd.gaussian_dropout(ROWS, keep_prob=0.5, rng=1),
    "bias_grad": lambda: fd.dropout_backward(ROWS, fd.keep_mask((2, 4), keep_prob=0.5, rng=1), bias_grad=True),
}


@pytest.mark.parametrize("what", FORGOTTEN)
@pytest.mark.parametrize("name", RESULTS)
def test_results_that_were_not_unpacked_are_no_array(name, what):
    with pytest.raises(TypeError, match="unpack it, as in y, mask = relu_dropout"):
        FORGOTTEN[what](RESULTS[name]())


@pytest.mark.parametrize("name", RESULTS)
def test_results_are_a_tuple_otherwise(name):
    results = RESULTS[name]()
    first, second = results
    assert results[0] is first
    assert type(pickle.loads(pickle.dumps(results))) is tuple
    assert repr(results) == repr((first, second))


def test_a_layer_is_looked_for_in_layers():
    with pytest.raises(AttributeError, match=r"no attribute 'Dropout': the layer is fastdrop\.layers\.Dropout$"):
        fd.Dropout  # noqa: B018
    with pytest.raises(TypeError, match="'rng': a prediction draws nothing"):
        fd.dropout_predict(ROWS, rng=0)
    with pytest.raises(TypeError, match="got None"):
        fd.dropout(None, keep_prob=0.5)
    with pytest.raises(TypeError, match="got ndarray: pass the mask that the forward call returned"):
        fd.dropout_backward(ROWS, X > 0)
