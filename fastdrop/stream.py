"""Stream: where the next random element comes from."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from operator import index
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

try:
    import cython
except ImportError:  # where this is not compiled: as a part of the reference, in plain Python
    cython = SimpleNamespace(critical_section=nullcontext)

SEED_BITS = 128
SEED_WORDS = SEED_BITS // 32
POSITIONS = 2**64

RNG: TypeAlias = "Stream | Tile | int | np.integer[Any] | np.random.SeedSequence | np.random.Generator | None"


class Stream:
    """A sequence of ``2**64`` random elements, and the place in it where the next call starts.

    Every call reserves as many positions as its input has elements, so successive calls, also
    from several threads, never share one. An element's randomness is a pure function of the
    seed and its position; see ``docs/stream.md``.

    Parameters
    ----------
    seed : int, optional
        The key of the generator, ``0 <= seed < 2**128``. Fresh entropy by default.
    offset : int, default 0
        The position of the next element, ``0 <= offset <= 2**64``.

    Examples
    --------
    >>> import fastdrop as fd
    >>> stream = fd.Stream(42)
    >>> fd.keep_mask(4, 0.5, rng=stream).to_array()
    array([ True, False,  True,  True])
    >>> stream
    Stream(seed=42, offset=4)

    Set it back to replay a step, as activation checkpointing does:

    >>> stream.offset = 0
    >>> fd.keep_mask(4, 0.5, rng=stream).to_array()
    array([ True, False,  True,  True])

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
    1, 2, 3", SC11, 2011.
    """

    __slots__ = ("_children", "_offset", "_seed")

    def __init__(self, seed: int | None = None, offset: int = 0) -> None:
        self._seed = secrets.randbits(SEED_BITS) if seed is None else checked_seed("seed", seed)
        self._children = 0
        self.offset = offset

    @property
    def seed(self) -> int:
        """The key of the generator."""
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the next element; it may be set."""
        with cython.critical_section(self):
            return self._offset

    @offset.setter
    def offset(self, value: int) -> None:
        offset = integer("offset", value)
        if not 0 <= offset <= POSITIONS:
            raise ValueError(f"offset must be in [0, 2**64], got {value!r}")
        with cython.critical_section(self):
            self._offset = offset

    def reserve(self, count: int) -> int:
        """Move on by `count` positions, and return the first of them.

        Raises
        ------
        ValueError
            If fewer than `count` positions are left; the stream is then where it was.
        """
        if type(count) is not int:
            count = integer("count", count)
        # Compiled, nothing here lets another thread run; a lock that one holds at a fork would
        # stay locked in the child. Where there is no GIL, the critical section stands for it.
        with cython.critical_section(self):
            start = self._offset
            if not 0 <= count <= POSITIONS - start:
                raise ValueError(
                    f"count must be in [0, {POSITIONS - start}], the positions that {self!r} "
                    f"has left before 2**64, got {count!r}"
                )
            self._offset = start + count
        return start

    def tile(self, shape: int | Sequence[int], origin: int | Sequence[int]) -> Tile:
        """The randomness of a block of an array whose first element has the next position.

        The stream does not move: `reserve` the whole array's positions when its tiles are made.
        """
        return Tile(shape, origin, self._seed, self.offset)

    def spawn(self, n_children: int) -> list[Stream]:
        """`n_children` new streams with seeds of their own, different at every call.

        The seeds come from `numpy.random.SeedSequence`, so a stream made with the same seed
        spawns the same children.
        """
        count = integer("n_children", n_children)
        if count < 0:
            raise ValueError(f"n_children must not be negative, got {n_children!r}")
        with cython.critical_section(self):
            first, self._children = self._children, self._children + count
        return [
            Stream(seed_of(np.random.SeedSequence(self._seed, spawn_key=(child,))))
            for child in range(first, first + count)
        ]

    def __getstate__(self) -> tuple[int, int, int]:
        with cython.critical_section(self):
            return self._seed, self._offset, self._children

    def __setstate__(self, state: tuple[int, int, int]) -> None:
        self._seed, self._offset, self._children = state

    def __repr__(self) -> str:
        return f"Stream(seed={self._seed}, offset={self.offset})"


class Tile:
    """The randomness of a block of a larger array, to compute it apart from the rest.

    A call that gets it as `rng` draws for its input what it would draw there for the whole array:
    the same at every call, whatever the block. With `broadcast_dims`, axes that share a decision
    count as one of length 1, in the whole array too.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of the whole array.
    origin : int or tuple of int
        Where in it the block's first element lies.
    seed : int
        The seed of the whole array's stream.
    offset : int, default 0
        The position of the whole array's first element.

    Examples
    --------
    >>> import fastdrop as fd
    >>> whole = fd.keep_mask((4, 6), 0.5, rng=7).to_array()
    >>> block = fd.keep_mask((2, 3), 0.5, rng=fd.Tile((4, 6), (1, 2), seed=7)).to_array()
    >>> (block == whole[1:3, 2:5]).all()
    np.True_
    """

    __slots__ = ("_offset", "_origin", "_seed", "_shape")

    def __init__(
        self, shape: int | Sequence[int], origin: int | Sequence[int], seed: int, offset: int = 0
    ) -> None:
        self._shape = lengths("shape", shape)
        self._origin = lengths("origin", origin)
        if len(self._origin) != len(self._shape):
            raise ValueError(
                f"origin must have an index for each axis of shape {self._shape}, got {origin!r}"
            )
        self._seed = checked_seed("seed", seed)
        self._offset = integer("offset", offset)
        if not 0 <= self._offset <= POSITIONS - math.prod(self._shape):
            raise ValueError(
                f"offset must be in [0, 2**64 - {math.prod(self._shape)}] for shape {self._shape}, "
                f"got {offset!r}"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        return self._shape

    @property
    def origin(self) -> tuple[int, ...]:
        """Where in it the block's first element lies."""
        return self._origin

    @property
    def seed(self) -> int:
        """The key of the generator."""
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the whole array's first element."""
        return self._offset

    def place(self, shape: tuple[int, ...], shared: tuple[int, ...] = ()) -> tuple[int, tuple[int, ...]]:
        """Where a block's decisions begin, and how far apart they are on each axis.

        Along the axes `shared` there is but one.
        """
        fits = len(shape) == len(self._shape) and all(
            start + length <= whole for start, length, whole in zip(self._origin, shape, self._shape)
        )
        if not fits:
            raise ValueError(f"rng must be a tile that the input fits in, got {self!r} for shape {shape}")
        start, stride, strides = self._offset, 1, []
        for axis in reversed(range(len(shape))):
            strides.append(stride)
            if axis not in shared:
                start += self._origin[axis] * stride
                stride *= self._shape[axis]
        return start, tuple(reversed(strides))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tile):
            return NotImplemented
        return self.__getstate__() == other.__getstate__()

    def __hash__(self) -> int:
        return hash(self.__getstate__())

    def __getstate__(self) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
        return self._shape, self._origin, self._seed, self._offset

    def __setstate__(self, state: tuple[tuple[int, ...], tuple[int, ...], int, int]) -> None:
        self._shape, self._origin, self._seed, self._offset = state

    def __repr__(self) -> str:
        return f"Tile(shape={self._shape}, origin={self._origin}, seed={self._seed}, offset={self._offset})"


def as_stream(rng: Any) -> Stream:
    """The stream that an argument ``rng=`` stands for (Scientific Python SPEC 7)."""
    if isinstance(rng, Stream):
        return rng
    if isinstance(rng, Tile):
        raise TypeError(f"rng must be able to go on from call to call here, got {rng!r}")
    if rng is None:
        return Stream()
    if isinstance(rng, np.random.SeedSequence):
        return Stream(seed_of(rng))
    if isinstance(rng, np.random.Generator):
        return Stream(int.from_bytes(rng.bytes(SEED_BITS // 8), "little"))
    return Stream(checked_seed("rng", rng))


def seed_of(sequence: np.random.SeedSequence) -> int:
    """A 128-bit seed: the four words that `sequence` generates, least significant first."""
    return seed_of_words(sequence.generate_state(SEED_WORDS, np.uint32))


def seed_of_words(words: ArrayLike) -> int:
    """A seed of its words of 32 bits, least significant first."""
    return int.from_bytes(np.asarray(words).astype("<u4").tobytes(), "little")


def checked_seed(name: str, value: Any) -> int:
    try:
        seed = integer(name, value)
    except TypeError:
        accepted = "an int" if name == "seed" else (
            "None, an int, a numpy.random.SeedSequence, a numpy.random.Generator, a Stream or a Tile"
        )
        raise TypeError(f"{name} must be {accepted}, got {value!r}") from None
    if not 0 <= seed < 2**SEED_BITS:
        raise ValueError(f"{name} must be in [0, 2**128), got {value!r}")
    return seed


def lengths(name: str, value: Any) -> tuple[int, ...]:
    """`value` as a tuple of numbers that are not negative; an int stands for one axis."""
    try:
        numbers = tuple(value)
    except TypeError:
        numbers = (value,)
    numbers = tuple(integer(name, number) for number in numbers)
    if any(number < 0 for number in numbers):
        raise ValueError(f"{name} must have no negative length, got {value!r}")
    return numbers


def integer(name: str, value: Any) -> int:
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an int, got {value!r}")
    try:
        return index(value)
    except TypeError:
        raise TypeError(f"{name} must be an int, got {value!r}") from None
