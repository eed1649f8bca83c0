"""Which elements are kept: the uniform of each position is compared with a threshold, bit by bit.

An element is kept when its 64-bit uniform U is below ``floor(keep_prob * 2**64)``. Block b has the
positions 128 b, ..., 128 b + 127. Its plane j has bit j of these 128 uniforms, the most significant
bit first, and is what the generator gives for the counter (b, j).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastdrop.formulas import c_strides, decided_shape, packed, threshold
from fastdrop.reference.arrays import bytes_of, parts
from fastdrop.reference.generator import ars
from fastdrop.stream import RNG, reserved

BLOCK = 128  # positions per block: one call of the generator gives one bit for each


def plane(seed: int, blocks: NDArray[np.uint64], j: int) -> NDArray[np.uint8]:
    """Return plane j of each of n blocks, packed: shape (n, 16)."""
    counters = np.empty((len(blocks), 2), "<u8")
    counters[:, 0] = blocks
    counters[:, 1] = j
    return ars(counters.view(np.uint8), seed)


def keep_bits(seed: int, blocks: NDArray[np.uint64], limit: int) -> NDArray[np.uint8]:
    """Whether ``U < limit`` for each position of n blocks, packed: shape (n, 16).

    Planes are compared from the top for as long as an element is tied, that is, for as long as its
    bits equal those of the limit.
    """
    below = np.zeros((len(blocks), 16), np.uint8)
    tied = np.full((len(blocks), 16), 0xFF, np.uint8)
    for j in range(64):
        if (limit << j) % 2**64 == 0:  # only zeros are left in the limit: tied elements are not below it
            break
        undecided = np.flatnonzero(tied.any(axis=1))
        if not undecided.size:
            break
        bits = plane(seed, blocks[undecided], j)
        if (limit >> (63 - j)) & 1:
            below[undecided] |= tied[undecided] & ~bits
            tied[undecided] &= bits
        else:
            tied[undecided] &= ~bits
    return below


def kept(seed: int, start: int, count: int, keep_prob: float) -> NDArray[np.bool_]:
    """Whether the elements at positions ``start, ..., start + count - 1`` are kept."""
    limit = threshold(keep_prob)
    if keep_prob == 1 or limit == 0 or count == 0:
        return np.full(count, keep_prob == 1)
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = np.uint64(first) + np.arange(last - first + 1, dtype=np.uint64)
    flags = np.unpackbits(keep_bits(seed, blocks, limit), bitorder="little").view(np.bool_)
    return flags[start - first * BLOCK :][:count]


def decisions(
    rng: RNG, shape: tuple[int, ...], shared: tuple[int, ...], keep_prob: float
) -> NDArray[np.uint8]:
    """Return the packed decisions for an array. Along the axes `shared`, elements share one."""
    decided = decided_shape(shape, shared)
    size = math.prod(decided)
    bits = np.empty(packed(size), np.uint8)
    seed, start, strides = reserved(rng, shape, shared)
    if not size or strides == c_strides(decided):
        for part in parts(size):
            flags = kept(seed, start + part.start, part.stop - part.start, keep_prob)
            bits[bytes_of(part)] = np.packbits(flags, bitorder="little")
        return bits
    stretches = np.ndindex(decided[:-1])
    starts = (start + sum(i * stride for i, stride in zip(index, strides)) for index in stretches)
    whole = np.array([kept(seed, first, decided[-1], keep_prob) for first in starts], np.bool_)
    return np.packbits(whole, axis=None, bitorder="little")
