"""Mask: one bit an element."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import arguments
from fastdrop.arguments import MaskMode
from fastdrop.stream import lengths


class Mask:
    """Which elements passed, at one bit an element, and what they were scaled by.

    The calls return it; `Mask` itself is for masks from elsewhere.

    Parameters
    ----------
    bits : ndarray of uint8, shape (ceil(size / 8),)
        Element ``n`` in C order is bit ``n % 8`` of byte ``n // 8``
        (``numpy.packbits(..., bitorder="little")``); bits past the last element are zero.
    shape : tuple of int
        The shape of the array that the mask belongs to.
    keep_prob : float
        The probability that an element was kept with.
    mode : {"inverted", "vanilla", "alpha"}
        Whether kept elements were scaled by ``1 / keep_prob``, left alone, or scaled as alpha
        dropout does it.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, mask = fd.relu_dropout([1.0, -1.0, 2.0, 3.0], keep_prob=0.5, rng=1)
    >>> mask.to_array()
    array([False, False,  True, False])
    >>> mask
    Mask(shape=(4,), keep_prob=0.5, mode='inverted', 1 of 4 set)
    """

    __slots__ = ("_bits", "_keep_prob", "_mode", "_shape")
    __hash__ = None  # type: ignore[assignment]

    def __init__(
        self,
        bits: NDArray[np.uint8],
        shape: int | Sequence[int],
        keep_prob: float,
        mode: MaskMode = "inverted",
    ) -> None:
        self._shape = as_shape(shape)
        self._bits = checked_bits(bits, math.prod(self._shape))
        self._keep_prob = arguments.keep_probability(keep_prob)
        self._mode = arguments.mask_mode(mode)

    @classmethod
    def from_array(cls, array: ArrayLike, keep_prob: float, mode: MaskMode = "inverted") -> Mask:
        """The mask whose set bits are the true elements of a bool array."""
        flags = np.asarray(array)
        if flags.dtype != np.bool_:
            raise TypeError(f"array must have dtype bool, got {flags.dtype.name}")
        return cls(np.packbits(flags, axis=None, bitorder="little"), flags.shape, keep_prob, mode)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """The packed bits, ``uint8``."""
        return self._bits

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the mask belongs to."""
        return self._shape

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self._shape)

    @property
    def keep_prob(self) -> float:
        """The probability that an element was kept with."""
        return self._keep_prob

    @property
    def mode(self) -> MaskMode:
        """``"inverted"``, ``"vanilla"`` or ``"alpha"``."""
        return self._mode

    @property
    def scale(self) -> float:
        """What a passed element is multiplied by, before it is rounded to the array's dtype."""
        return arguments.training_scale(self._keep_prob, self._mode)

    @property
    def nbytes(self) -> int:
        """The size of `bits` in bytes."""
        return self._bits.nbytes

    def to_array(self) -> NDArray[np.bool_]:
        """The mask as a bool array of its shape."""
        flags = np.unpackbits(self._bits, count=self.size, bitorder="little")
        return flags.view(np.bool_).reshape(self._shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return (
            self._shape == other.shape
            and self._keep_prob == other.keep_prob
            and self._mode == other.mode
            and np.array_equal(self._bits, other.bits)
        )

    def __getstate__(self) -> tuple[Any, ...]:
        return self._bits, self._shape, self._keep_prob, self._mode

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.__init__(*state)  # type: ignore[misc]

    def __repr__(self) -> str:
        passed = int(np.bitwise_count(self._bits).sum(dtype=np.int64))
        return (
            f"Mask(shape={self._shape}, keep_prob={self._keep_prob}, mode={self._mode!r}, "
            f"{passed} of {self.size} set)"
        )


def as_shape(shape: Any) -> tuple[int, ...]:
    """`shape` as a tuple of lengths; an int stands for one axis."""
    checked = lengths("shape", shape)
    if math.prod(checked) >= 2**63:
        raise ValueError(f"shape must have fewer than 2**63 elements, got {shape!r}")
    return checked


def checked_bits(bits: Any, size: int) -> NDArray[np.uint8]:
    if not isinstance(bits, np.ndarray) or bits.dtype != np.uint8:
        kind = getattr(bits, "dtype", type(bits).__name__)
        raise TypeError(f"bits must be an array of dtype uint8, got {kind}")
    if bits.shape != ((size + 7) // 8,):
        raise ValueError(f"bits must have shape {((size + 7) // 8,)} for {size} elements, got {bits.shape}")
    if size % 8 and bits[-1] >> (size % 8):
        raise ValueError(f"bits past the last of {size} elements must be zero, got {bits[-1]:#04x} last")
    return np.ascontiguousarray(bits)


def saved_for_backward(
    saved: Any, keep_prob: Any, mode: Any, dy: NDArray[Any]
) -> tuple[Mask | NDArray[Any], float]:
    """What a backward call reads its decisions from, the mask or the output, and its scale."""
    if isinstance(saved, Mask):
        for name, value, known in (("keep_prob", keep_prob, saved.keep_prob), ("mode", mode, saved.mode)):
            if value is not None and value != known:
                raise ValueError(f"{name} must be left out or be the mask's {known!r}, got {value!r}")
        scale = saved.scale
    else:
        saved = arguments.elements("saved", saved)
        if saved.dtype.newbyteorder("=") != dy.dtype.newbyteorder("="):
            raise TypeError(f"saved must have dy's dtype {dy.dtype.name}, got {saved.dtype.name}")
        if keep_prob is None or mode is None:
            missing = "keep_prob" if keep_prob is None else "mode"
            raise TypeError(f"{missing} is needed where saved is the output y, not a Mask")
        scale = arguments.training_scale(
            arguments.keep_probability(keep_prob), arguments.dropout_mode(mode)
        )
    if not (saved.shape == dy.shape or (isinstance(saved, Mask) and shared_by(saved.shape, dy.shape))):
        raise ValueError(f"saved must have dy's shape {dy.shape}, got {saved.shape}")
    return saved, scale


def shared_by(decided: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether decisions of one shape are those on an array of another, shared along some axes."""
    return len(decided) == len(shape) and all(
        a == b or a == 1 for a, b in zip(decided, shape)
    )


def mask_of_dropout(mask: Any) -> Mask:
    """`mask`, which a backward without a ReLU cannot do without."""
    if not isinstance(mask, Mask):
        raise TypeError(
            f"mask must be a Mask, got {type(mask).__name__}: without a ReLU the output does "
            "not tell a dropped element from a zero"
        )
    return mask
