"""Mask: one bit per element."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import checks, formulas, values
from fastdrop.foreign import base_array
from fastdrop.formulas import MaskMode


class Mask:
    """Mask(bits, shape, *, keep_prob, mode='inverted')\n--\n
    One bit per element, which says whether the element passed, and how it was scaled.

    The calls return masks. Make one yourself if its bits come from elsewhere. A mask is immutable and
    has a copy of its bits. ``numpy.asarray(mask)``, indexing, iteration and the operators ``~ & |``
    give bool arrays. Arithmetic with a mask is refused, because it does not say whether to scale: use
    `dropout_backward`, or `to_array`.

    Parameters
    ----------
    bits : ndarray of uint8, shape (ceil(size / 8),)
        The packed bits: element ``n`` in C order is bit ``n % 8`` of byte ``n // 8``, as
        ``numpy.packbits(..., bitorder="little")`` packs them. Bits past the last element are zero.
    shape : int or sequence of int
        The shape of the array that the mask belongs to, with at most 64 axes.
    keep_prob : float
        The probability with which an element was kept, in [0, 1].
    mode : {"inverted", "vanilla", "alpha"}, default "inverted"
        How kept elements were scaled: by ``1 / keep_prob``, not at all, or as in alpha dropout.

    Attributes
    ----------
    bits : ndarray of uint8, shape (ceil(size / 8),)
        The packed bits; the array is read-only.
    shape : tuple of int
    size : int
        The number of elements.
    kept : int
        The number of elements that passed.
    keep_prob : float
    mode : {"inverted", "vanilla", "alpha"}
    scale : float
        The factor of a passed element, before it is rounded to the dtype of the array.
    nbytes : int
        The size of `bits` in bytes.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted.
    ValueError
        If a value is out of range, or `bits` does not fit `shape`.

    See Also
    --------
    keep_mask : Draw a mask without an array.
    Mask.from_array : Pack a bool array.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, mask = fd.relu_dropout([1.0, -1.0, 2.0, 3.0], keep_prob=0.5, rng=1)
    >>> mask.to_array()
    array([False, False,  True, False])
    >>> mask
    Mask(shape=(4,), keep_prob=0.5, mode='inverted', 1 of 4 kept, 75 % dropped)
    """

    __slots__ = ("_bits", "_keep_prob", "_mode", "_shape")
    __hash__: ClassVar[None] = None  # type: ignore[assignment]
    __array_ufunc__ = None  # NumPy's arithmetic leaves it to the methods below

    def __init__(
        self,
        bits: NDArray[np.uint8],
        shape: int | Sequence[int],
        *,
        keep_prob: float,
        mode: MaskMode = "inverted",
    ) -> None:
        self._begin(bits, shape, keep_prob, mode)

    def _begin(self, bits: Any, shape: Any, keep_prob: Any, mode: Any) -> None:
        if self._made():
            raise values.made_already("Mask")
        shape = checks.shape_of("shape", shape)
        own = checks.packed_bits(bits, math.prod(shape))
        keep_prob, mode = checks.keep_probability(keep_prob), checks.mask_mode(mode)
        self._shape, self._keep_prob, self._mode, self._bits = shape, keep_prob, mode, own

    def _restore(self, bits: Any, shape: Any, keep_prob: Any, mode: Any) -> None:
        if type(bits) is not bytes:
            raise TypeError(f"bits must be bytes, got {type(bits).__name__}")
        self._begin(np.frombuffer(bits, np.uint8), shape, keep_prob, mode)

    def _made(self) -> bool:
        try:
            return self._bits is not None
        except AttributeError:  # plain Python has no such slot yet; the compiled field is None
            return False

    def _known(self) -> None:
        if not self._made():
            raise values.unmade("Mask")

    def _fields(self) -> tuple[Any, ...]:
        self._known()
        return self._bits, self._shape, self._keep_prob, self._mode

    @classmethod
    def from_array(cls, array: ArrayLike, *, keep_prob: float, mode: MaskMode = "inverted") -> Mask:
        """Return the mask whose set bits are the true elements of a bool array.

        Parameters
        ----------
        array : array_like of bool, any shape
            Whether each element passed.
        keep_prob : float
            The probability with which an element was kept, in [0, 1].
        mode : {"inverted", "vanilla", "alpha"}, default "inverted"
            How kept elements were scaled: by ``1 / keep_prob``, not at all, or as in alpha dropout.

        Returns
        -------
        Mask

        Raises
        ------
        TypeError
            If `array` is not of dtype bool, or another argument has a type that is not accepted.
        ValueError
            If `keep_prob` or `mode` is not accepted.

        Examples
        --------
        >>> import fastdrop as fd
        >>> fd.Mask.from_array([True, False, True], keep_prob=0.5)
        Mask(shape=(3,), keep_prob=0.5, mode='inverted', 2 of 3 kept, 33.3 % dropped)
        """
        flags = base_array("array", array)
        if flags.dtype != np.bool_:
            raise TypeError(f"array must have dtype bool, got {flags.dtype.name}")
        bits = np.packbits(flags, axis=None, bitorder="little")
        return cls(bits, flags.shape, keep_prob=keep_prob, mode=mode)

    @property
    def bits(self) -> NDArray[np.uint8]:
        """The packed bits, a read-only array of uint8."""
        self._known()
        return np.frombuffer(self._bits, np.uint8)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the array that the mask belongs to."""
        self._known()
        return self._shape

    @property
    def size(self) -> int:
        """The number of elements."""
        self._known()
        return math.prod(self._shape)

    @property
    def kept(self) -> int:
        """The number of elements that passed."""
        self._known()
        return count_of(self._bits)

    @property
    def keep_prob(self) -> float:
        """The probability with which an element was kept."""
        self._known()
        return self._keep_prob

    @property
    def mode(self) -> MaskMode:
        """``"inverted"``, ``"vanilla"`` or ``"alpha"``."""
        self._known()
        return self._mode

    @property
    def scale(self) -> float:
        """The factor of a passed element, before it is rounded to the dtype of the array."""
        self._known()
        return formulas.training_scale(self._keep_prob, self._mode)

    @property
    def nbytes(self) -> int:
        """The size of `bits` in bytes."""
        self._known()
        return len(self._bits)

    def to_array(self) -> NDArray[np.bool_]:
        """Return the mask as a bool array.

        Returns
        -------
        ndarray of bool, shape `shape`
            Whether each element passed.

        Examples
        --------
        >>> import fastdrop as fd
        >>> fd.keep_mask(4, keep_prob=0.5, rng=1).to_array()
        array([False,  True,  True, False])
        """
        bits, shape, _, _ = Mask._fields(self)
        flags = np.unpackbits(np.frombuffer(bits, np.uint8), count=math.prod(shape), bitorder="little")
        return flags.view(np.bool_).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("copy must not be False, because the bits of a Mask are unpacked")
        flags = Mask.to_array(self)
        return flags if dtype is None else flags.astype(dtype, copy=False)

    def __len__(self) -> int:
        self._known()
        if not self._shape:
            raise TypeError("len() needs a Mask with at least one axis, got one of shape ()")
        return self._shape[0]

    def __bool__(self) -> bool:
        raise ValueError("a Mask has no truth value: compare it with None, or use its kept or to_array()")

    def __getitem__(self, key: Any) -> Any:
        return Mask.to_array(self)[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(Mask.to_array(self))

    def __invert__(self) -> NDArray[np.bool_]:
        return ~Mask.to_array(self)

    def __and__(self, other: Any) -> NDArray[np.bool_]:
        return Mask.to_array(self) & flags_of(other)

    def __or__(self, other: Any) -> NDArray[np.bool_]:
        return Mask.to_array(self) | flags_of(other)

    def __rand__(self, other: Any) -> NDArray[np.bool_]:
        return flags_of(other) & Mask.to_array(self)

    def __ror__(self, other: Any) -> NDArray[np.bool_]:
        return flags_of(other) | Mask.to_array(self)

    def __mul__(self, other: Any) -> Any:
        raise not_a_factor()

    def __rmul__(self, other: Any) -> Any:
        raise not_a_factor()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, (np.ndarray, bool, np.bool_)):
            raise TypeError("a Mask equals another Mask as a whole: compare its elements by mask.to_array() == ...")
        if not isinstance(other, Mask):
            return NotImplemented
        return Mask._fields(self) == Mask._fields(other)

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, Mask, Mask._fields(self))

    def __repr__(self) -> str:
        bits, shape, keep_prob, mode = Mask._fields(self)
        passed, size = count_of(bits), math.prod(shape)
        dropped = f", {100 * (1 - passed / size):.3g} % dropped" if size else ""
        return f"Mask(shape={shape}, keep_prob={keep_prob}, mode={mode!r}, {passed} of {size} kept{dropped})"


values.register(Mask)


def count_of(bits: bytes) -> int:
    """Return the number of set bits."""
    return int(np.bitwise_count(np.frombuffer(bits, np.uint8)).sum(dtype=np.int64))


def not_a_factor() -> TypeError:
    """Return the error for a product with a mask."""
    return TypeError(
        "a Mask cannot be multiplied, because a product does not say whether to scale: use "
        "dropout_backward(x, mask), which scales, or mask.to_array() * x"
    )


def flags_of(other: Any) -> NDArray[np.bool_]:
    """Return what is combined with a mask as a bool array."""
    flags = Mask.to_array(other) if isinstance(other, Mask) else base_array("the other operand", other)
    if flags.dtype != np.bool_:
        raise TypeError(f"a Mask combines with a Mask or a bool array, got {flags.dtype.name}")
    return flags


def saved_for_backward(
    name: str, saved: Any, keep_prob: Any, mode: Any, dy: NDArray[Any]
) -> tuple[Mask | NDArray[Any], float]:
    """Return the mask or output from which a backward call reads its decisions, and the scale."""
    if isinstance(saved, Mask):
        _, shape, *known = Mask._fields(saved)  # whatever a subclass overrides
        if keep_prob is not None and checks.keep_probability(keep_prob) != known[0]:
            raise ValueError(f"keep_prob must be left out or be the mask's {known[0]!r}, got {keep_prob!r}")
        if name == "saved" and known[1] == "alpha":
            raise ValueError("saved must be no mask of alpha_dropout, which scales otherwise")
        if mode is not None and checks.mask_mode(mode) != known[1]:
            raise ValueError(f"mode must be left out or be the mask's {known[1]!r}, got {mode!r}")
        # A ReLU decides for each element, so its mask has no axis along which elements share one decision.
        fits = shape == dy.shape if name == "saved" else shared_by(shape, dy.shape)
        scale = formulas.training_scale(*known)
    else:
        if isinstance(saved, tuple):
            raise TypeError(f"saved must be a Mask or the output y, got {described(saved)}")
        saved = checks.elements("saved", saved)
        if saved.dtype is not dy.dtype and saved.dtype.newbyteorder("=") != dy.dtype.newbyteorder("="):
            raise TypeError(f"saved must have dy's dtype {dy.dtype.name}, got {saved.dtype.name}")
        if keep_prob is None or mode is None:
            missing = "keep_prob" if keep_prob is None else "mode"
            raise TypeError(f"{missing} must be given where saved is the output y, not a Mask")
        shape, fits = saved.shape, saved.shape == dy.shape
        scale = formulas.training_scale(
            checks.keep_probability(keep_prob), checks.dropout_mode(mode)
        )
    if not fits:
        raise ValueError(f"{name} must have dy's shape {dy.shape}, got {shape}")
    return saved, scale


def shared_by(decided: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether decisions of shape `decided` fit an array: equal lengths, or 1 along axes that share one."""
    return len(decided) == len(shape) and all(
        a == b or a == 1 for a, b in zip(decided, shape)
    )


def mask_of_dropout(mask: Any, alpha: bool = False) -> Mask:
    """Return `mask` if it is a Mask, of alpha dropout or not. The gradient of dropout without a ReLU needs one."""
    if isinstance(mask, Mask):
        mode = Mask._fields(mask)[3]
        if (mode == "alpha") != alpha:
            wanted = "the mask of alpha_dropout" if alpha else "no mask of alpha_dropout, which scales otherwise"
            raise ValueError(f"mask must be {wanted}, got one with mode {mode!r}")
        return mask
    if isinstance(mask, tuple):
        raise TypeError(f"mask must be a Mask, got {described(mask)}")
    if isinstance(mask, np.ndarray) and mask.dtype == np.bool_:
        raise TypeError("mask must be a Mask, got ndarray: pass the mask that the forward call returned")
    raise TypeError(
        f"mask must be a Mask, got {type(mask).__name__}: without a ReLU, the output does not show which "
        "zeros were dropped"
    )


def described(values: tuple[Any, ...]) -> str:
    """Return what a tuple is that was passed as a mask, and how to pass the mask in it."""
    kinds: list[str] = []
    whole = False
    for value in values:
        kinds.append(type(value).__name__)
        whole = whole or isinstance(value, Mask)
    return f"a tuple ({', '.join(kinds)})" + whole * ": the forward call returns y and the mask, so pass the mask alone"
