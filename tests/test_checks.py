"""An error names the argument, the value and what is accepted, and a call that raises has changed nothing.

The reference and the package have to raise the same error, word for word. Arguments are checked before a
kernel runs, so it does not matter which one is in use.
"""

from __future__ import annotations

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from numpy.exceptions import AxisError

import fastdrop as fd

X = np.arange(12, dtype=np.float32).reshape(3, 4)
MASK = fd.Mask.from_array(X > 5, keep_prob=0.5)
NOISE = fd.GaussianNoise(1, 0, (3, 4), keep_prob=0.5)

# A call accepts these values of its arguments. A case replaces one or two of them.
PREDICT = {"x": X, "keep_prob": 0.5, "mode": "inverted", "out": None}
GOOD = {
    "relu_dropout": PREDICT | {"rng": 1},
    "dropout": PREDICT | {"rng": 1},
    "dropout_add": PREDICT | {"residual": X, "rng": 1},
    "relu_dropout_predict": PREDICT,
    "dropout_predict": PREDICT,
    "dropout_add_predict": PREDICT | {"residual": X},
    "alpha_dropout": {"x": X, "keep_prob": 0.5, "rng": 1, "out": None},
    "gaussian_dropout": {"x": X, "keep_prob": 0.5, "rng": 1, "out": None},
    "relu_dropout_backward": {"dy": X, "saved": MASK, "keep_prob": None, "mode": None, "out": None},
    "dropout_backward": {"dy": X, "mask": MASK, "out": None},
    "gaussian_dropout_backward": {"dy": X, "noise": NOISE, "out": None},
    "keep_mask": {"shape": (3, 4), "keep_prob": 0.5, "rng": 1},
}
ELEMENTWISE = tuple(name for name in GOOD if name != "keep_mask")
RANDOM = tuple(name for name in GOOD if "rng" in GOOD[name])
WITH_MODE = tuple(name for name in GOOD if "mode" in GOOD[name] and "backward" not in name)
WITH_KEEP_PROB = tuple(name for name in GOOD if "keep_prob" in GOOD[name] and "backward" not in name)

STREAM = fd.Stream(9, 5)  # it must still be at 5 after every error
NEARLY_DONE = fd.Stream(9, 2**64 - 11)


def elements_cases():
    """Only floating dtypes are taken for elements, and no other dtype is converted to one."""
    wrong = [
        (X.astype(np.int64), "int64"),
        (X.astype(np.uint8), "uint8"),
        (X > 0, "bool"),
        (X.astype(np.complex64), "complex64"),
        (X.astype(object), "object"),
        (X.astype("U3"), "str"),
        ([[1, 2], [3, 4]], "int64"),
        (None, "None"),
    ]
    for name in ELEMENTWISE:
        argument = "dy" if "backward" in name else "x"
        for value, dtype in wrong:
            yield name, {argument: value}, TypeError, f"{argument} must have dtype ", dtype


def keep_prob_cases():
    out_of_range = [-0.1, 1.1, -5e-324, 1 + 2.0**-52, math.nan, math.inf, -math.inf, 2, np.float32(1.5)]
    for name in WITH_KEEP_PROB:
        for value in out_of_range:
            yield name, {"keep_prob": value}, ValueError, "keep_prob must be in [0, 1], got ", repr(value)
        for value in ["0.5", None, True, np.False_, 0.5j, [0.5], np.array([0.5, 0.5]), Decimal("0.5")]:
            if value is None and name.endswith("_predict"):
                continue
            expected = f"keep_prob must be a real number in [0, 1], got {value!r}"
            yield name, {"keep_prob": value}, TypeError, expected, ""


def mode_cases():
    for name in WITH_MODE:
        for value in ["upscale_in_train", "Inverted", "", None, 1, ["inverted"]]:
            expected = f"mode must be 'inverted' or 'vanilla', got {value!r}"
            yield name, {"mode": value}, ValueError, expected, ""


def rng_cases():
    accepted = "None, an int, a numpy.random.SeedSequence, a numpy.random.Generator, a Stream or a Tile"
    for name in RANDOM:
        for value in [-1, 2**128]:
            yield name, {"rng": value}, ValueError, f"rng must be in [0, 2**128), got {value}", ""
        for value in [1.5, "seed", True, np.random.RandomState, [1, 2]]:
            yield name, {"rng": value}, TypeError, f"rng must be {accepted}, got {value!r}", ""
        yield name, {"rng": NEARLY_DONE}, ValueError, "rng must have 12 positions left", "which has 11"


def out_cases():
    frozen = X.copy()
    frozen.flags.writeable = False
    column = np.lib.stride_tricks.as_strided(X.copy(), (3, 4), (4, 0))
    windows = np.lib.stride_tricks.as_strided(np.zeros(6, np.float32), (3, 4), (4, 4))
    shifted = np.lib.stride_tricks.as_strided(np.zeros(16, np.float32), (3, 4), (16, 3))
    unlike = [
        (X.tolist(), TypeError, "out must be a numpy.ndarray, got list"),
        (1.0, TypeError, "out must be a numpy.ndarray, got float"),
        (X.astype(np.float64), TypeError, "out must have the input's dtype float32, got float64"),
        (X.astype(np.int32), TypeError, "out must have the input's dtype float32, got int32"),
        (X[:, :3].copy(), ValueError, "out must have the input's shape (3, 4), got (3, 3)"),
        (X.ravel().copy(), ValueError, "out must have the input's shape (3, 4), got (12,)"),
        (X[np.newaxis].copy(), ValueError, "out must have the input's shape (3, 4), got (1, 3, 4)"),
        (frozen, ValueError, "out must be writable, got a read-only array"),
        (column, ValueError, "out must have a place of its own for every element, got strides (4, 0)"),
        (shifted, ValueError, "out must have a place of its own for every element, got strides (16, 3)"),
        (windows, ValueError, "out must have a place of its own for every element, got strides (4, 4)"),
    ]
    for name in ELEMENTWISE:
        for value, error, expected in unlike:
            yield name, {"out": value}, error, expected, ""


def saved_cases():
    name, small = "relu_dropout_backward", fd.Mask.from_array(np.ones(3, bool), keep_prob=0.5)
    double = X.astype(np.float64)
    known = {"keep_prob": 0.5, "mode": "inverted"}
    cases = [
        ({"saved": small}, ValueError, "saved must have dy's shape (3, 4), got (3,)"),
        ({"saved": X[:2], **known}, ValueError, "saved must have dy's shape (3, 4), got (2, 4)"),
        ({"saved": double, **known}, TypeError, "saved must have dy's dtype float32, got float64"),
        ({"saved": X > 0, **known}, TypeError, "saved must have dtype "),
        ({"saved": None}, TypeError, "saved must have dtype "),
        ({"saved": X}, TypeError, "keep_prob must be given where saved is the output y, not a Mask"),
        ({"saved": X, "mode": "vanilla"}, TypeError, "keep_prob must be given where saved is the output y"),
        ({"saved": X, "keep_prob": 0.5}, TypeError, "mode must be given where saved is the output y, not a Mask"),
        ({"saved": X, **known, "keep_prob": 1.5}, ValueError, "keep_prob must be in [0, 1], got 1.5"),
        ({"saved": X, **known, "mode": "up"}, ValueError, "mode must be 'inverted' or 'vanilla', got 'up'"),
        ({"keep_prob": 0.9}, ValueError, "keep_prob must be left out or be the mask's 0.5, got 0.9"),
        ({"mode": "vanilla"}, ValueError, "mode must be left out or be the mask's 'inverted', got 'vanilla'"),
    ]
    for values, error, expected in cases:
        yield name, values, error, expected, ""
    for value in (X > 5, X, None):
        expected = f"mask must be a Mask, got {type(value).__name__}"
        yield "dropout_backward", {"mask": value}, TypeError, expected, ""
    yield "dropout_backward", {"mask": small}, ValueError, "mask must have dy's shape (3, 4), got (3,)", ""
    advice = "the forward call returns y and the mask, so pass the mask alone"
    yield "dropout_backward", {"mask": (X, MASK)}, TypeError, "mask must be a Mask, got a tuple (", advice
    yield name, {"saved": (X, MASK)}, TypeError, "saved must be a Mask or the output y, got a tuple (", advice


def noise_cases():
    yield "gaussian_dropout", {"keep_prob": 0}, ValueError, "keep_prob must be in [2**-126, 1]", "got 0"
    yield "alpha_dropout", {"keep_prob": 1e-80}, ValueError, "keep_prob must be 0 or in [2**-126, 1]", "got 1e-80"
    for value, error, expected in [
        ({"noise": 1}, TypeError, "noise must be a GaussianNoise, got int"),
        ({"dy": X[:2]}, ValueError, "noise must have dy's shape (2, 4)"),
    ]:
        yield "gaussian_dropout_backward", value, error, expected, ""


def variant_cases():
    for values, error, expected in [
        ({"bias": X[0, :2]}, ValueError, "the length of the input's last axis, (4,), got (2,)"),
        ({"bias": np.ones(4)}, TypeError, "bias must have the input's dtype float32, got float64"),
        ({"broadcast_dims": 2}, AxisError, "broadcast_dims: axis 2 is out of bounds for array of dim"),
        ({"broadcast_dims": (0, -3)}, ValueError, "broadcast_dims: axis -3 is out of bounds"),
        ({"broadcast_dims": True}, TypeError, "broadcast_dims must be an int or ints, got True"),
        ({"broadcast_dims": (0, np.True_)}, TypeError, "must be an int or ints, got (0, np.True_)"),
        ({"broadcast_dims": 0.5}, TypeError, "broadcast_dims must be an int or ints, got 0.5"),
        ({"residual": X[0]}, ValueError, "residual must have the input's shape (3, 4), got (4,)"),
        ({"residual": None}, TypeError, "residual must be an array, got None"),
        ({"rng": fd.Tile((3, 4), (1, 0), seed=0)}, ValueError, "rng must be a tile"),
        ({"rng": fd.Tile((4,), (0,), seed=0)}, ValueError, "rng must be a tile"),
    ]:
        yield "dropout_add", values, error, expected, ""
    mask = {"mask": fd.keep_mask((), keep_prob=0.5), "dy": X[0, 0], "bias_grad": True, "out": None}
    yield "dropout_backward", mask, ValueError, "bias_grad needs a gradient with at least one axis", ""


def shape_cases():
    for value, error, expected in [
        ((3, -1), ValueError, "shape must have no negative length, got (3, -1)"),
        (-1, ValueError, "shape must have no negative length, got -1"),
        (2.0, TypeError, "shape must be an int, got 2.0"),
        ((2, None), TypeError, "shape must be an int, got None"),
        (None, TypeError, "shape must be an int, got None"),
    ]:
        yield "keep_mask", {"shape": value}, error, expected, ""


CASES = [
    *elements_cases(),
    *keep_prob_cases(),
    *mode_cases(),
    *rng_cases(),
    *out_cases(),
    *saved_cases(),
    *noise_cases(),
    *variant_cases(),
    *shape_cases(),
]


def described(case) -> str:
    name, values, error, *_ = case
    return f"{name}-{'-'.join(values)}-{error.__name__}"


def message_of(library, case) -> str:
    """Return the error text of a case, and assert that nothing else has happened."""
    name, values, error, *_ = case
    arguments = GOOD[name] | values
    if "rng" in arguments and "rng" not in values:
        arguments["rng"] = STREAM
    result = np.full_like(X, 7.0)
    if "out" in arguments and "out" not in values:
        arguments["out"] = result
    arrays = [value for value in arguments.values() if isinstance(value, np.ndarray)]
    before = [array.tobytes() for array in arrays if array.dtype != object]

    with pytest.raises(error) as raised:
        getattr(library, name)(**arguments)

    assert [array.tobytes() for array in arrays if array.dtype != object] == before
    assert np.all(result == 7.0)
    assert (STREAM.offset, NEARLY_DONE.offset) == (5, 2**64 - 11)
    return str(raised.value)


@pytest.mark.parametrize("case", CASES, ids=described)
def test_an_error_says_what_is_wrong_and_changes_nothing(case):
    *_, start, end = case
    message = message_of(fd, case)
    assert start in message
    assert end in message.partition(start)[2]
    assert message_of(fd.reference, case) == message


def test_integers_are_told_how_to_become_floats(library):
    with pytest.raises(TypeError, match=r"got int64: pass x\.astype\(np\.float32\)"):
        library.dropout(np.arange(3), keep_prob=0.5)


@pytest.mark.parametrize("x", [(X, MASK), [X, MASK], MASK, (X, NOISE)])
def test_what_a_call_returned_is_no_input(library, x):
    with pytest.raises(TypeError, match="x must be an array, got a"):
        library.dropout_predict(x)
    with pytest.raises(TypeError, match="dy must be an array, got a"):
        library.relu_dropout_backward(x, MASK)


def test_prediction_needs_keep_prob_in_mode_vanilla_alone(library):
    for name in ("dropout_predict", "relu_dropout_predict"):
        assert np.array_equal(getattr(library, name)(X), X)
        with pytest.raises(TypeError, match="keep_prob must be given in mode 'vanilla'"):
            getattr(library, name)(X, mode="vanilla")
    assert np.array_equal(library.dropout_add_predict(X, X), 2 * X)


def test_the_elements_that_are_accepted_are_named(library):
    with pytest.raises(TypeError, match=r"x must have dtype .*float32.*float64.*, got int64"):
        library.relu_dropout([1, 2], keep_prob=0.5)


def test_a_keep_prob_out_of_range_is_told_what_it_is(library):
    with pytest.raises(ValueError, match="the probability that an element is kept"):
        library.dropout(X, keep_prob=1.5)


@pytest.mark.parametrize("name", GOOD)
def test_what_is_not_an_argument(library, name):
    with pytest.raises(TypeError, match="rate"):
        getattr(library, name)(**GOOD[name], rate=0.5)
    with pytest.raises(TypeError):
        getattr(library, name)()


@pytest.mark.parametrize("name", WITH_KEEP_PROB)
def test_options_are_keywords(library, name):
    given = [GOOD[name][argument] for argument in ("x", "residual", "shape") if argument in GOOD[name]]
    with pytest.raises(TypeError, match="positional"):
        getattr(library, name)(*given, 0.5, "inverted")


@pytest.mark.parametrize("name", WITH_KEEP_PROB)
def test_any_real_number_is_a_keep_prob(library, name):
    for value in (1, np.float32(0.5), np.float64(0.5), np.int8(1), Fraction(1, 3), np.float16(0.25)):
        result = getattr(library, name)(**GOOD[name] | {"keep_prob": value})
        assert isinstance(result, (tuple, np.ndarray, fd.Mask))
        mask = result[1] if isinstance(result, tuple) else result
        if isinstance(mask, fd.Mask):
            assert mask.keep_prob == float(value)


def test_a_mask_agrees_with_what_is_said_of_it(library):
    dx = library.relu_dropout_backward(X, MASK, keep_prob=0.5, mode="inverted")
    assert np.array_equal(dx, np.where(X > 5, 2 * X, 0))


@pytest.mark.parametrize("shape", [2**60, 2**63, 2**64, (2**32, 2**32), (2**70,)])
def test_the_stream_is_not_used_where_no_memory_is_left(library, shape):
    """There are more bits than addresses, so the allocation fails before positions are reserved."""
    stream = fd.Stream(1)
    with pytest.raises((MemoryError, ValueError)):
        library.keep_mask(shape, keep_prob=0.5, rng=stream)
    assert stream.offset == 0
