"""Any array, any argument, any instruction set: values and exceptions are the reference's."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastdrop as fd
from support import CANARY, DTYPES, sample

KEEP_PROBS = st.one_of(
    st.floats(0, 1),
    st.sampled_from([0.0, 1.0, 0.5, 0.25, 2**-32, 1 - 2**-32, 2**-64, 5e-324, 1 - 2**-53, 0.9]),
)
EXAMPLES = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def arrays(draw):
    """Shapes, strides, byte orders, dtypes and special values."""
    small, long = st.lists(st.integers(0, 24), max_size=3), st.tuples(st.integers(0, 3000))
    shape = tuple(draw(st.one_of(small, long)))
    double = tuple(2 * n for n in shape)
    dtype, seed = draw(st.sampled_from(DTYPES)), draw(st.integers(0, 2**32))
    native = sample(math.prod(double), dtype, seed)
    x = native.reshape(double).astype(native.dtype.newbyteorder(draw(st.sampled_from("=<>"))))
    steps = [slice(None, None, 2), slice(None, None, -1), None]
    x = x[(*(draw(st.sampled_from(steps)) or slice(n) for n in shape), ...)]
    if draw(st.booleans()):
        x = x.T
    x.flags.writeable = draw(st.booleans())
    return x


def outcome(module, name, *arguments, **options):
    """What a call returns, or the error it raises."""
    try:
        result = getattr(module, name)(*arguments, **options)
    except Exception as error:
        return type(error), str(error)
    y, mask = result if isinstance(result, tuple) else (result, None)
    y = np.ascontiguousarray(y)
    return y.dtype, y.shape, y.tobytes(), mask


@EXAMPLES
@given(
    x=arrays(), keep_prob=KEEP_PROBS, seed=st.integers(0, 2**128 - 1),
    mode=st.sampled_from(["inverted", "vanilla"]),
    offset=st.one_of(st.integers(0, 2**64), st.sampled_from([0, 127, 128, 2**32 - 5, 2**64 - 100])),
    name=st.sampled_from(["dropout", "relu_dropout"]),
)  # fmt: skip
def test_forward_and_backward(isa, x, keep_prob, seed, mode, offset, name):
    streams = [fd.Stream(seed, offset) for _ in range(2)]
    found, expected = (
        outcome(module, name, x, keep_prob, mode=mode, rng=stream)
        for module, stream in zip((fd, fd.reference), streams)
    )
    assert found == expected
    assert streams[0].offset == streams[1].offset
    if not isinstance(found[0], type):
        _, mask = getattr(fd, name)(x, keep_prob, mode=mode, rng=fd.Stream(seed, offset))
        assert outcome(fd, f"{name}_backward", x, mask) == outcome(fd.reference, f"{name}_backward", x, mask)


@EXAMPLES
@given(
    x=arrays(),
    keep_prob=st.sampled_from([0.5, -0.1, 1.5, float("nan"), "0.5", None, True, 1]),
    mode=st.sampled_from(["inverted", "vanilla", "other", None]),
    rng=st.sampled_from([0, -1, 2**128, 1.5, "seed", True]),
    dtype=st.sampled_from([None, np.int32, np.bool_, np.complex64, object]),
    out_shape=st.sampled_from([None, (2,), ()]),
)
def test_exceptions(isa, x, keep_prob, mode, rng, dtype, out_shape):
    if dtype is not None:
        x = np.ones(x.shape, dtype)
    out = None if out_shape is None else np.full(out_shape, 7.0, np.float32)
    found, expected = (
        outcome(module, "relu_dropout", x, keep_prob, mode=mode, rng=rng, out=out)
        for module in (fd, fd.reference)
    )
    assert found == expected
    if out is not None and isinstance(found[0], type):
        assert (out == 7).all(), "a call that raises has written nothing"


@EXAMPLES
@given(size=st.integers(1, 2000), shift=st.integers(-40, 40), keep_prob=KEEP_PROBS)
def test_overlaps(isa, size, shift, keep_prob):
    memory = np.random.default_rng(size).standard_normal(size + 80, dtype=np.float32)
    x, out = memory[40 : 40 + size], memory[40 + shift : 40 + shift + size]
    expected, _ = fd.reference.relu_dropout(x.copy(), keep_prob, rng=size)
    y, _ = fd.relu_dropout(x, keep_prob, rng=size, out=out)
    assert y is out
    assert y.tobytes() == expected.tobytes()


# --- inputs and result anywhere in one block of memory ----------------------------------------

REGION = 1 << 17  # bytes, more than an array reaches over
CALLS = (
    "dropout", "relu_dropout", "dropout_add", "alpha_dropout", "gaussian_dropout", "relu_dropout_predict",
    "dropout_backward", "relu_dropout_backward",
)  # fmt: skip


class Layout(NamedTuple):
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    def of(self, memory):
        return np.ndarray(self.shape, self.dtype, memory, self.start, self.strides)


@st.composite
def layouts(draw, shape, dtype, steps):
    """Axes in any order, steps of 0 too, either byte order, any address, regions shared or not."""
    strides, reach = [0] * len(shape), dtype.itemsize
    start = draw(st.integers(0, 2)) * REGION + draw(st.integers(0, 40)) * draw(st.sampled_from([1, reach]))
    for axis in draw(st.permutations(range(len(shape)))):
        length, step = max(shape[axis], 1), draw(st.sampled_from(steps))
        strides[axis] = step * reach
        start += (length - 1) * max(-strides[axis], 0)
        reach *= length * abs(step) or 1
    return Layout(start, shape, tuple(strides), dtype.newbyteorder(draw(st.sampled_from("=<>"))))


@st.composite
def places(draw):
    """An input, another, and a result array, which may be in place, overlap in any way, or not do."""
    small, long = st.lists(st.integers(0, 12), max_size=3), st.tuples(st.integers(0, 3000))
    shape, dtype = tuple(draw(st.one_of(small, long))), np.dtype(draw(st.sampled_from(DTYPES)))
    x, other = (draw(layouts(shape, dtype, (1, 1, 2, -1, -2, 0))) for _ in range(2))
    out = draw(st.one_of(layouts(shape, dtype, (1, 1, 2, -1, -2)), st.sampled_from([x, other])))
    longer = {"shape": (*shape, 1), "strides": (*out.strides, 8)}
    flaws = [longer, {"strides": (0,) * len(shape)}, {"dtype": np.dtype("i4"), "strides": (8,) * len(shape)}]
    return x, other, out._replace(**draw(st.sampled_from([*[{}] * 9, *flaws])))


def operands(name, x, other, keep_prob, seed):
    """What a call takes besides `out`."""
    match name:
        case "dropout_add":
            return (x, other, keep_prob), {"rng": seed}
        case "relu_dropout_predict":
            return (x, keep_prob), {"mode": "vanilla"}
        case "dropout_backward":
            return (x, fd.reference.keep_mask(x.shape, keep_prob, rng=seed)), {}
        case "relu_dropout_backward":
            return (x, other), {"keep_prob": keep_prob, "mode": "inverted"}
    return (x, keep_prob), {"rng": seed}


@EXAMPLES
@given(
    places=places(), name=st.sampled_from(CALLS), keep_prob=KEEP_PROBS, seed=st.integers(0, 2**32),
    writeable=st.sampled_from([True, True, True, False]),
)  # fmt: skip
def test_anywhere_in_memory(isa, places, name, keep_prob, seed, writeable):
    before = np.full(4 * REGION, CANARY, np.uint8)
    for layout in places[:2]:
        values = sample(math.prod(layout.shape), layout.dtype.type, seed + layout.start)
        layout.of(before)[...] = values.reshape(layout.shape)
    if name == "dropout_add":  # which of two NaNs a sum is, neither IEEE 754 nor NumPy says
        with np.errstate(invalid="ignore"):
            places[1].of(before)[np.isnan(places[1].of(before).astype("f8"))] = 0
    results, memories = [], [before.copy(), before.copy()]
    for module, memory in zip((fd, fd.reference), memories):
        x, other, out = (layout.of(memory) for layout in places)
        out.flags.writeable = writeable
        arguments, options = operands(name, x, other, keep_prob, seed)
        results.append(outcome(module, name, *arguments, out=out, **options))
    assert results[0] == results[1]
    assert np.array_equal(*memories), "as after the reference's call, also around the result"
    if isinstance(results[0][0], type):
        assert np.array_equal(memories[0], before), "a call that raises has written nothing"
