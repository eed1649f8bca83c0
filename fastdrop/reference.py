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
from fastdrop.arguments import Mode
from fastdrop.mask import Mask, as_shape, mask_of_dropout, saved_for_backward
from fastdrop.stream import RNG, as_stream

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


# --- what becomes of them ---------------------------------------------------------------------


def relu_dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    mode: Mode = "inverted",
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = scale * relu(x)`` where kept, else +0; the mask says where kept and passed."""
    return _forward(x, keep_prob, mode, rng, out, return_mask, relu=True)


def dropout(
    x: ArrayLike,
    keep_prob: float,
    *,
    mode: Mode = "inverted",
    rng: RNG = None,
    out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> tuple[NDArray[Any], Mask | None]:
    """``y = scale * x`` where kept, else +0."""
    return _forward(x, keep_prob, mode, rng, out, return_mask, relu=False)


def _forward(
    x: Any, keep_prob: Any, mode: Any, rng: RNG, out: Any, return_mask: bool, relu: bool
) -> tuple[NDArray[Any], Mask | None]:
    x = arguments.elements("x", x)
    keep_prob, mode = arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
    y = arguments.result(out, x)
    x = _apart(x, y)
    bits = np.empty((x.size + 7) // 8, np.uint8)
    stream = as_stream(rng)
    start = stream.reserve(x.size)
    for part in _parts(x.size):
        values = x.flat[part]
        passed = kept(stream.seed, start + part.start, values.size, keep_prob)
        if relu:
            passed &= ~(values <= 0)
        y.flat[part] = _scaled(values, passed, arguments.training_scale(keep_prob, mode))
        bits[_bytes(part)] = np.packbits(passed, bitorder="little")
    return y, Mask(bits, x.shape, keep_prob, mode) if return_mask else None


def relu_dropout_backward(
    dy: ArrayLike,
    saved: Mask | ArrayLike,
    *,
    keep_prob: float | None = None,
    mode: Mode | None = None,
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """``dx = scale * dy`` where the element passed, else +0."""
    dy = arguments.elements("dy", dy)
    saved, scale = saved_for_backward(saved, keep_prob, mode, dy)
    dx = arguments.result(out, dy)
    dy = _apart(dy, dx)
    decisions = _apart(saved.bits if isinstance(saved, Mask) else saved, dx)
    for part in _parts(dy.size):
        values = dy.flat[part]
        if isinstance(saved, Mask):
            passed = np.unpackbits(decisions[_bytes(part)], count=values.size, bitorder="little")
        else:
            passed = decisions.flat[part] != 0
        dx.flat[part] = _scaled(values, passed.view(np.bool_), scale)
    return dx


def dropout_backward(
    dy: ArrayLike, mask: Mask, *, out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``dx = scale * dy`` where kept, else +0."""
    return relu_dropout_backward(dy, mask_of_dropout(mask), out=out)


def relu_dropout_predict(
    x: ArrayLike, keep_prob: float, *, mode: Mode = "inverted", out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``y = relu(x)``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, relu=True)


def dropout_predict(
    x: ArrayLike, keep_prob: float, *, mode: Mode = "inverted", out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """``y = x``, times keep_prob in mode "vanilla"."""
    return _predict(x, keep_prob, mode, out, relu=False)


def _predict(x: Any, keep_prob: Any, mode: Any, out: Any, relu: bool) -> NDArray[Any]:
    x = arguments.elements("x", x)
    keep_prob, mode = arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
    y = arguments.result(out, x)
    x = _apart(x, y)
    for part in _parts(x.size):
        values = x.flat[part]
        passed = ~(values <= 0) if relu else np.True_
        y.flat[part] = _scaled(values, passed, arguments.prediction_scale(keep_prob, mode))
    return y


def keep_mask(shape: int | tuple[int, ...], keep_prob: float, *, rng: RNG = None) -> Mask:
    """The decisions alone: the bits that the calls above draw."""
    shape, keep_prob = as_shape(shape), arguments.keep_probability(keep_prob)
    size = math.prod(shape)
    bits = np.empty((size + 7) // 8, np.uint8)
    stream = as_stream(rng)
    start = stream.reserve(size)
    for part in _parts(size):
        flags = kept(stream.seed, start + part.start, part.stop - part.start, keep_prob)
        bits[_bytes(part)] = np.packbits(flags, bitorder="little")
    return Mask(bits, shape, keep_prob)


def _scaled(values: NDArray[Any], passed: Any, scale: float) -> NDArray[Any]:
    """One multiply in the array's dtype; selected, so that nothing leaks out of a dropped NaN."""
    with np.errstate(all="ignore"):
        dtype = values.dtype.newbyteorder("=").type
        return np.where(passed, values * dtype(scale), dtype(0))


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
