"""Dropout in plain NumPy: the definition that the compiled kernels are held to, bit for bit.

The first half says which elements are kept (``docs/stream.md``); the second what becomes
of them. Names, signatures and errors are those of the compiled calls, which document them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import arguments
from fastdrop.arguments import Axes, MaskMode, Mode
from fastdrop.mask import Mask, mask_of_dropout, packed, saved_for_backward
from fastdrop.stream import RNG, c_strides, reserved

# --- which elements are kept ------------------------------------------------------------------

ROUNDS = 7
BLOCK = 128  # the elements that one call of the generator decides a bit of
WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)  # golden ratio, sqrt(3) - 1: Random123's constants
CHUNK = 2**20  # elements at a time, so that temporary memory stays bounded


def xtime(byte: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Times x in AES's field GF(2**8), modulo x**8 + x**4 + x**3 + x + 1 (FIPS 197, 4.2)."""
    return (byte << 1) ^ np.where(byte & 0x80, np.uint8(0x1B), np.uint8(0))


def substitution_box() -> NDArray[np.uint8]:
    """SubBytes: the inverse in the field, then an affine map of its bits (FIPS 197, 5.1.1)."""
    powers = [np.uint8(1)]  # of the generator 3 = x + 1
    while len(powers) < 255:
        powers.append(xtime(powers[-1]) ^ powers[-1])
    inverse = np.zeros(256, np.uint8)
    inverse[powers] = powers[:1] + powers[:0:-1]
    rotated = [(inverse << k) | (inverse >> (8 - k)) for k in range(5)]
    return np.bitwise_xor.reduce(rotated) ^ np.uint8(0x63)


SBOX = substitution_box()
SHIFT_ROWS = np.array([(i + 4 * (i % 4)) % 16 for i in range(16)])  # byte i comes from byte ...


def mix_columns(state: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each column times 3x**3 + x**2 + x + 2 (FIPS 197, 5.1.3): 2a + 3b + c + d, rotating."""
    a = state.reshape(-1, 4, 4)
    b = np.roll(a, -1, axis=2)
    return (xtime(a ^ b) ^ b ^ np.roll(b ^ np.roll(b, -1, axis=2), -1, axis=2)).reshape(-1, 16)


def round_key(seed: int, r: int) -> NDArray[np.uint8]:
    low, high = seed % 2**64, seed >> 64
    words = ((low + r * WEYL[0]) % 2**64, (high + r * WEYL[1]) % 2**64)
    return np.array(words, "<u8").view(np.uint8)


def ars(counters: NDArray[np.uint8], seed: int, rounds: int = ROUNDS) -> NDArray[np.uint8]:
    """ARS (Salmon et al. 2011): 16 random bytes for each 16-byte counter, shape (n, 16)."""
    state = counters ^ round_key(seed, 0)
    for r in range(1, rounds):
        state = mix_columns(SBOX[state][:, SHIFT_ROWS]) ^ round_key(seed, r)
    return SBOX[state][:, SHIFT_ROWS] ^ round_key(seed, rounds)


def plane(seed: int, blocks: NDArray[np.uint64], j: int) -> NDArray[np.uint8]:
    """The j-th most significant bit of the uniforms of `blocks`, packed, shape (n, 16)."""
    counters = np.empty((len(blocks), 2), "<u8")
    counters[:, 0] = blocks
    counters[:, 1] = j
    return ars(counters.view(np.uint8), seed)


def keep_bits(seed: int, blocks: NDArray[np.uint64], threshold: int) -> NDArray[np.uint8]:
    """Whether ``U < threshold``, packed: compared bit by bit from the top, while any is tied."""
    below = np.zeros((len(blocks), 16), np.uint8)
    tied = np.full((len(blocks), 16), 0xFF, np.uint8)
    for j in range(64):
        if (threshold << j) % 2**64 == 0:  # only zeros to come: the tied are not below
            break
        undecided = np.flatnonzero(tied.any(axis=1))
        if not undecided.size:
            break
        bits = plane(seed, blocks[undecided], j)
        if (threshold >> (63 - j)) & 1:
            below[undecided] |= tied[undecided] & ~bits
            tied[undecided] &= bits
        else:
            tied[undecided] &= ~bits
    return below


def kept(seed: int, start: int, count: int, keep_prob: float) -> NDArray[np.bool_]:
    """Whether the elements at positions ``start, ..., start + count - 1`` are kept."""
    threshold = arguments.threshold(keep_prob)
    if keep_prob == 1 or threshold == 0 or count == 0:
        return np.full(count, keep_prob == 1)
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = np.uint64(first) + np.arange(last - first + 1, dtype=np.uint64)
    flags = np.unpackbits(keep_bits(seed, blocks, threshold), bitorder="little").view(np.bool_)
    return flags[start - first * BLOCK :][:count]


def decisions(
    rng: RNG, shape: tuple[int, ...], shared: tuple[int, ...], keep_prob: float
) -> NDArray[np.uint8]:
    """The packed decisions on an array of a shape, with but one along the axes `shared`."""
    decided = arguments.decided_shape(shape, shared)
    size = math.prod(decided)
    bits = np.empty(packed(size), np.uint8)
    seed, start, strides = reserved(rng, shape, shared)
    if not size or strides == c_strides(decided):
        for part in _parts(size):
            flags = kept(seed, start + part.start, part.stop - part.start, keep_prob)
            bits[_bytes(part)] = np.packbits(flags, bitorder="little")
        return bits
    rows = np.ndindex(decided[:-1])
    starts = (start + sum(i * stride for i, stride in zip(row, strides)) for row in rows)
    whole = np.array([kept(seed, first, decided[-1], keep_prob) for first in starts], np.bool_)
    return np.packbits(whole, axis=None, bitorder="little")


# --- what becomes of them ---------------------------------------------------------------------


def relu_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = scale * relu(x + bias)`` where kept, else +0; the mask says where kept and passed."""
    mode = arguments.dropout_mode(mode)
    return _forward(x, keep_prob, mode, broadcast_dims, rng, out, return_mask, bias=bias, relu=True)


def dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = scale * (x + bias)`` where kept, else +0."""
    mode = arguments.dropout_mode(mode)
    return _forward(x, keep_prob, mode, broadcast_dims, rng, out, return_mask, bias=bias)


def dropout_add(
    x: ArrayLike,
    residual: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = residual + dropout(x + bias)``."""
    mode = arguments.dropout_mode(mode)
    return _forward(
        x, keep_prob, mode, broadcast_dims, rng, out, return_mask,
        bias=bias, residual=arguments.given("residual", residual),
    )  # fmt: skip


def alpha_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    broadcast_dims: Axes = (),
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = a * x + b`` where kept, else ``a * alpha + b``: mean and variance stay (after SELU)."""
    return _forward(x, keep_prob, "alpha", broadcast_dims, rng, out, return_mask)


def _forward(
    x: Any, keep_prob: Any, mode: MaskMode, broadcast_dims: Any, rng: RNG, out: Any, return_mask: bool,
    bias: Any = None, residual: Any = None, relu: bool = False,
) -> tuple[NDArray[Any], Mask | None]:  # fmt: skip
    x = arguments.elements("x", x)
    keep_prob = arguments.keep_probability(keep_prob)
    y = arguments.result(out, x)
    x, bias, residual = _operands(x, bias, residual, y)
    scale, dropped, shift = arguments.training_affine(keep_prob, mode)
    shared = arguments.shared_axes(broadcast_dims, x.ndim)
    bits = decisions(rng, x.shape, shared, keep_prob)
    decided = arguments.decided_shape(x.shape, shared)
    passed_bits = np.empty(packed(x.size), np.uint8) if relu else bits
    for part in _parts(x.size):
        passed = _unpacked(bits, decided, x.shape, part)
        values = _biased(x, bias, part)
        if relu:
            passed = passed & ~(values <= 0)
            passed_bits[_bytes(part)] = np.packbits(passed, bitorder="little")
        values = _selected(values, passed, scale, dropped)
        if mode == "alpha":
            with np.errstate(all="ignore"):
                values = values + values.dtype.type(shift)
        _flat(y)[part] = _rounded(_plus(residual, values, part), y.dtype)
    mask = Mask(passed_bits, x.shape if relu else decided, keep_prob, mode)
    return y if out is None else out, mask if return_mask else None


def relu_dropout_backward(
    dy: ArrayLike,
    saved: Mask | ArrayLike,
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    bias_grad: bool = False,
    out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """``dx = scale * dy`` where the element passed, else +0; with `bias_grad`, its column sums."""
    dy = arguments.elements("dy", dy)
    saved, scale = saved_for_backward(saved, keep_prob, mode, dy)
    if bias_grad:
        arguments.columns_of(dy)
    dx = arguments.result(out, dy)
    dy = _apart(dy, dx)
    known, decided = _known(saved, dx)
    for part in _parts(dy.size):
        if isinstance(saved, Mask):
            passed = _unpacked(known, decided, dy.shape, part)
        else:
            passed = _flat(known)[part] != 0
        _flat(dx)[part] = _rounded(_selected(_biased(dy, None, part), passed, scale), dx.dtype)
    written = dx if out is None else out
    return (written, _column_sums(dx)) if bias_grad else written


def dropout_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """``dx = scale * dy`` where kept, else +0."""
    return relu_dropout_backward(dy, mask_of_dropout(mask), bias_grad=bias_grad, out=out)


def dropout_add_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """The gradient of `x`; that of the residual is `dy`."""
    return dropout_backward(dy, mask, bias_grad=bias_grad, out=out)


def alpha_dropout_backward(
    dy: ArrayLike, mask: Mask, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``dx = a * dy`` where kept, else +0."""
    return dropout_backward(dy, mask, out=out)  # type: ignore[return-value]


def _known(saved: Mask | NDArray[Any], dx: NDArray[Any]) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The packed decisions of a mask, which are its own, or an output; and the shape of either."""
    if isinstance(saved, Mask):
        bits, shape, _, _ = Mask._fields(saved)
        return np.frombuffer(bits, np.uint8), shape
    return _apart(saved, dx), saved.shape


def _column_sums(dx: NDArray[Any]) -> NDArray[Any]:
    """Over all axes but the last, in float64: strips of rows in order, then the strips in order."""
    rows = dx.reshape(math.prod(dx.shape[:-1]), dx.shape[-1])
    strip = arguments.rows_in_strip(rows.shape[1])
    sums = np.zeros(rows.shape[1])
    with np.errstate(all="ignore"):
        for first in range(0, len(rows), strip):
            partial = np.zeros_like(sums)
            for row in rows[first : first + strip]:
                partial += row.astype(np.float64)
            sums += partial
        return _rounded(sums, dx.dtype)


def relu_dropout_predict(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = relu(x + bias)``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, bias=bias, relu=True)


def dropout_predict(
    x: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = x + bias``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, bias=bias)


def dropout_add_predict(
    x: ArrayLike,
    residual: ArrayLike,
    keep_prob: float,
    *,
    bias: ArrayLike | None = None,
    mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``y = residual + (x + bias)``, the latter times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, bias=bias, residual=arguments.given("residual", residual))


def _predict(
    x: Any, keep_prob: Any, mode: Any, out: Any, bias: Any = None, residual: Any = None, relu: bool = False
) -> NDArray[Any]:
    x = arguments.elements("x", x)
    keep_prob, mode = arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
    y = arguments.result(out, x)
    x, bias, residual = _operands(x, bias, residual, y)
    for part in _parts(x.size):
        values = _biased(x, bias, part)
        passed = ~(values <= 0) if relu else np.True_
        values = _selected(values, passed, arguments.prediction_scale(keep_prob, mode))
        _flat(y)[part] = _rounded(_plus(residual, values, part), y.dtype)
    return y if out is None else out


def keep_mask(
    shape: int | tuple[int, ...], keep_prob: float, *, broadcast_dims: Axes = (), rng: RNG = None
) -> Mask:
    """The decisions alone: the bits that the calls above draw."""
    shape, keep_prob = arguments.shape_of("shape", shape), arguments.keep_probability(keep_prob)
    shared = arguments.shared_axes(broadcast_dims, len(shape))
    bits = decisions(rng, shape, shared, keep_prob)
    return Mask(bits, arguments.decided_shape(shape, shared), keep_prob)


def _operands(x: NDArray[Any], bias: Any, residual: Any, y: NDArray[Any]) -> tuple[Any, Any, Any]:
    """The inputs, checked, and none of them in the way of the result."""
    if bias is not None:
        bias = arguments.bias_for(bias, x).astype(arguments.arithmetic(x.dtype))
    if residual is not None:
        residual = _apart(arguments.residual_for(residual, x), y)
    return _apart(x, y), bias, residual


def _biased(x: NDArray[Any], bias: NDArray[Any] | None, part: slice) -> NDArray[Any]:
    """``x + bias`` in the dtype of the arithmetic: that of the array, or float32 for shorter ones."""
    values = _flat(x)[part].astype(arguments.arithmetic(x.dtype))
    with np.errstate(all="ignore"):
        return values if bias is None else values + _flat(np.broadcast_to(bias, x.shape))[part]


def _selected(values: NDArray[Any], passed: Any, scale: float, dropped: float = 0.0) -> NDArray[Any]:
    """One multiply; selected, so that nothing leaks out of a dropped NaN."""
    dtype = values.dtype.type
    with np.errstate(all="ignore"):
        return np.where(passed, values * dtype(scale), dtype(dropped))


def _plus(residual: NDArray[Any] | None, values: NDArray[Any], part: slice) -> NDArray[Any]:
    """What is added comes before the one rounding."""
    if residual is None:
        return values
    with np.errstate(all="ignore"):
        return _flat(residual)[part].astype(values.dtype) + values


def _unpacked(
    bits: NDArray[np.uint8], decided: tuple[int, ...], shape: tuple[int, ...], part: slice
) -> NDArray[np.bool_]:
    """The decisions on a part of an array."""
    if decided == shape:
        flags = np.unpackbits(bits[_bytes(part)], count=part.stop - part.start, bitorder="little")
        return flags.view(np.bool_)
    flags = np.unpackbits(bits, count=math.prod(decided), bitorder="little").view(np.bool_)
    return _flat(np.broadcast_to(flags.reshape(decided), shape))[part]


def _flat(array: NDArray[Any]) -> Any:
    """Its elements in C order. NumPy's `flat` has at most 32 axes, and more are of length 1 or empty."""
    return (array if array.ndim <= 32 else array.squeeze()).flat


def _rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(all="ignore"):
        return values.astype(dtype)


def _parts(size: int) -> Iterator[slice]:
    return (slice(i, min(i + CHUNK, size)) for i in range(0, size, CHUNK))


def _bytes(part: slice) -> slice:
    """Where the bits of `part`, which starts at a multiple of 8, are packed."""
    return slice(part.start // 8, (part.stop + 7) // 8)


def _apart(source: NDArray[Any], result: NDArray[Any]) -> NDArray[Any]:
    """`source`, copied if writing `result` element by element would change what is yet to be read."""
    in_place = (
        source.ctypes.data == result.ctypes.data
        and source.strides == result.strides
    )
    return source.copy() if np.may_share_memory(source, result) and not in_place else source


# --- Gaussian dropout, which builds on the above -----------------------------------------------

from fastdrop.reference_gaussian import gaussian_dropout, gaussian_dropout_backward  # noqa: E402, F401
