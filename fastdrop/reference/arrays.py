"""The common steps on the elements of an array: parts, decisions per element, rounding, copies."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHUNK = 2**20  # elements per part, so that temporary memory stays bounded


def flat(array: NDArray[Any]) -> Any:
    """Return the elements in C order. NumPy's `flat` has at most 32 axes; further ones have length 1 or 0."""
    return (array if array.ndim <= 32 else array.squeeze()).flat


def parts(size: int) -> Iterator[slice]:
    """Yield slices of at most CHUNK of the elements 0, ..., size - 1."""
    return (slice(i, min(i + CHUNK, size)) for i in range(0, size, CHUNK))


def bytes_of(part: slice) -> slice:
    """Return the slice of the bytes that hold a part's bits. The part starts at a multiple of 8."""
    return slice(part.start // 8, (part.stop + 7) // 8)


def unpacked(
    bits: NDArray[np.uint8], decided: tuple[int, ...], shape: tuple[int, ...], part: slice
) -> NDArray[np.bool_]:
    """Return the decisions on a part of an array of shape `shape`, from those of shape `decided`."""
    if decided == shape:
        flags = np.unpackbits(bits[bytes_of(part)], count=part.stop - part.start, bitorder="little")
        return flags.view(np.bool_)
    flags = np.unpackbits(bits, count=math.prod(decided), bitorder="little").view(np.bool_)
    return flat(np.broadcast_to(flags.reshape(decided), shape))[part]


def rounded(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Round the values to the dtype of the result."""
    with np.errstate(all="ignore"):
        return values.astype(dtype)


def apart(source: NDArray[Any], result: NDArray[Any]) -> NDArray[Any]:
    """Return `source`, copied if writing `result` could change elements that are still to be read."""
    in_place = source.ctypes.data == result.ctypes.data and source.strides == result.strides
    return source.copy() if np.may_share_memory(source, result) and not in_place else source
