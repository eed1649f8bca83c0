"""Stream, Tile and StreamRows: where the random elements of a call come from."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from fastdrop import checks, values
from fastdrop.checks import MOST_CHILDREN, integer, lengths, shape_of
from fastdrop.formulas import POSITIONS, SEED_BITS, SEED_WORDS, c_strides, decided_shape

try:
    import cython
except ImportError:  # where this is not compiled: as a part of the reference, in plain Python
    cython = SimpleNamespace(critical_section=nullcontext)

RELIED_ON = ("__getattribute__", "offset", "reserve", "seed")  # what a subclass may not change

RNG: TypeAlias = (
    "Stream | StreamRows | Tile | int | np.integer[Any] | np.random.SeedSequence | np.random.Generator | None"
)


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

    __slots__ = ("_children", "_offset", "_prefix", "_seed")

    def __init__(self, seed: int | None = None, offset: int = 0) -> None:
        self._begin(secrets.randbits(SEED_BITS) if seed is None else seed, offset, 0, ())

    def _begin(self, seed: Any, offset: Any, children: Any, prefix: Any) -> None:
        if self._made():
            raise values.made_already("Stream")
        seed, offset = checks.seed("seed", seed), checks.position(offset)
        children, prefix = checks.children(children), checks.prefix(prefix)
        self._seed, self._offset, self._children, self._prefix = seed, offset, children, prefix

    def _restore(self, seed: Any, offset: Any, children: Any, prefix: Any) -> None:
        self._begin(seed, offset, children, prefix)

    def _made(self) -> bool:
        try:
            return self._seed is not None
        except AttributeError:  # so it is in plain Python, where the compiled field is None
            return False

    def _known(self) -> None:
        if not self._made():
            raise values.unmade("Stream")

    def _fields(self) -> tuple[Any, ...]:
        self._known()
        with cython.critical_section(self):
            return self._seed, self._offset, self._children, self._prefix

    @property
    def seed(self) -> int:
        """The key of the generator."""
        self._known()
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the next element; it may be set."""
        self._known()
        with cython.critical_section(self):
            return self._offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._known()
        offset = checks.position(value)
        with cython.critical_section(self):
            self._offset = offset

    def reserve(self, count: int) -> int:
        """Move on by `count` positions, and return the first of them.

        Raises
        ------
        ValueError
            If fewer than `count` positions are left; the stream is then where it was.
        """
        return self._take(count)

    def _take(self, count: int) -> int:
        """`reserve` itself, which nothing in a subclass replaces where it is compiled."""
        if type(count) is not int:
            count = integer("count", count)
        self._known()
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

    def _take_at(self, offset: int, count: int) -> bool:
        """Move on by `count` positions, for which there is room, if the next one is still `offset`."""
        with cython.critical_section(self):
            if self._offset != offset:
                return False
            self._offset = offset + count
        return True

    def tile(self, shape: int | Sequence[int], origin: int | Sequence[int]) -> Tile:
        """The randomness of a block of an array whose first element has the next position.

        The stream does not move: `reserve` the whole array's positions when its tiles are made.
        """
        seed, offset, _, _ = Stream._fields(self)
        return Tile(shape, origin, seed, offset)

    def spawn(self, n_children: int) -> list[Stream]:
        """`n_children` new streams with seeds of their own, different at every call.

        The seeds come from `numpy.random.SeedSequence`, so a stream made with the same seed
        spawns the same children.
        """
        self._known()
        count = integer("n_children", n_children)
        if count < 0:
            raise ValueError(f"n_children must not be negative, got {n_children!r}")
        with cython.critical_section(self):
            first = self._children
            if count > MOST_CHILDREN - first:
                raise ValueError(f"n_children must be at most {MOST_CHILDREN - first}, got {n_children!r}")
            self._children = first + count
        # What a sample of `mc_predict` spawns has the key's prefix from the sample's position.
        children: list[Stream] = []
        for child in range(first, first + count):
            key = (*self._prefix, child)
            children.append(Stream(seed_of(np.random.SeedSequence(self._seed, spawn_key=key))))
        return children

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, Stream, Stream._fields(self))

    def __repr__(self) -> str:
        seed, offset, _, _ = Stream._fields(self)
        return f"Stream(seed={seed}, offset={offset})"


values.register(Stream)


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
        self._begin(shape, origin, seed, offset)

    def _begin(self, shape: Any, origin: Any, seed: Any, offset: Any) -> None:
        if self._made():
            raise values.made_already("Tile")
        whole, first = shape_of("shape", shape, POSITIONS), lengths("origin", origin)
        if len(first) != len(whole):
            raise ValueError(f"origin must have an index for each axis of shape {whole}, got {origin!r}")
        seed, position, size = checks.seed("seed", seed), integer("offset", offset), math.prod(whole)
        if not 0 <= position <= POSITIONS - size:
            raise ValueError(
                f"offset must be in [0, 2**64 - {size}] for shape {whole}, got {offset!r}"
            )
        self._shape, self._origin, self._seed, self._offset = whole, first, seed, position

    def _restore(self, shape: Any, origin: Any, seed: Any, offset: Any) -> None:
        self._begin(shape, origin, seed, offset)

    def _made(self) -> bool:
        try:
            return self._shape is not None
        except AttributeError:
            return False

    def _known(self) -> None:
        if not self._made():
            raise values.unmade("Tile")

    def _fields(self) -> tuple[Any, ...]:
        self._known()
        return self._shape, self._origin, self._seed, self._offset

    def _plain(self) -> Tile:
        """The same, of no subclass."""
        fields = Tile._fields(self)
        return self if type(self) is Tile else Tile(*fields)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        self._known()
        return self._shape

    @property
    def origin(self) -> tuple[int, ...]:
        """Where in it the block's first element lies."""
        self._known()
        return self._origin

    @property
    def seed(self) -> int:
        """The key of the generator."""
        self._known()
        return self._seed

    @property
    def offset(self) -> int:
        """The position of the whole array's first element."""
        self._known()
        return self._offset

    def reserve(self, count: int) -> int:
        """0: a block draws at the positions of its own place, and moves nothing on."""
        return 0

    def place(
        self, shape: tuple[int, ...], shared: tuple[int, ...] = ()
    ) -> tuple[int, int, tuple[int, ...]]:
        """How many positions a call on a block reserves, where its decisions begin, and their strides.

        It reserves none, and begins at a position of the stream. Along the axes `shared` there is
        but one decision. The stride is 0 where an axis has no second decision.
        """
        whole, origin, _, offset = Tile._fields(self)
        fits = len(shape) == len(whole) and all(
            first + length <= most for first, length, most in zip(origin, shape, whole)
        )
        if not fits:
            raise ValueError(f"rng must be a tile that the input fits in, got {self!r} for shape {shape}")
        start, strides = place_in(whole, origin, shape, shared)
        return 0, offset + start, strides

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tile):
            return NotImplemented
        return Tile._fields(self) == Tile._fields(other)

    def __hash__(self) -> int:
        return hash(Tile._fields(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, Tile, Tile._fields(self))

    def __repr__(self) -> str:
        shape, origin, seed, offset = Tile._fields(self)
        return f"Tile(shape={shape}, origin={origin}, seed={seed}, offset={offset})"


values.register(Tile)


class StreamRows:
    """A stream for some rows of a batch, which draw what they would draw in the whole batch.

    `mc_predict` hands it to `predict` under ``chunk=``. Every call takes the positions of the whole
    batch, and uses those where these rows lie; so the first axis of what it computes on has to be
    the rows.

    Parameters
    ----------
    stream : Stream
        The stream of the whole batch, which belongs to the rows from then on.
    first, rows, total : int
        The first row, how many there are, and how many the whole batch has.
    """

    __slots__ = ("_first", "_rows", "_stream", "_total")

    def __init__(self, stream: Stream, first: int, rows: int, total: int) -> None:
        self._begin(stream, first, rows, total)

    def _begin(self, stream: Any, first: Any, rows: Any, total: Any) -> None:
        if self._made():
            raise values.made_already("StreamRows")
        if type(stream) is not Stream:
            raise TypeError(f"stream must be a Stream, got {type(stream).__name__}")
        first, rows, total = integer("first", first), integer("rows", rows), integer("total", total)
        if min(first, rows) < 0 or not first + rows <= total < 2**63:
            raise ValueError(f"rows must lie in a batch, got {rows} from {first} on, of {total}")
        Stream._fields(stream)
        self._first, self._rows, self._total, self._stream = first, rows, total, stream

    def _restore(
        self, seed: Any, offset: Any, children: Any, prefix: Any, first: Any, rows: Any, total: Any
    ) -> None:
        self._begin(values._restored("Stream", seed, offset, children, prefix), first, rows, total)

    def _made(self) -> bool:
        try:
            return self._stream is not None
        except AttributeError:
            return False

    def _known(self) -> None:
        if not self._made():
            raise values.unmade("StreamRows")

    def _fields(self) -> tuple[Any, ...]:
        self._known()
        return (*Stream._fields(self._stream), self._first, self._rows, self._total)

    def _plain(self) -> StreamRows:
        """The same on the same stream, of no subclass."""
        self._known()
        if type(self) is StreamRows:
            return self
        return StreamRows(self._stream, self._first, self._rows, self._total)

    @property
    def seed(self) -> int:
        """Refused: what is made of a seed draws what no rows of the whole batch draw."""
        raise TypeError(f"chunk must be left out where predict asks for the seed of its stream, {self!r}")

    @property
    def offset(self) -> int:
        """The position of the whole batch's next element; it may be set."""
        self._known()
        return self._stream.offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._known()
        self._stream.offset = value

    def reserve(self, count: int) -> int:
        """Refused: the whole batch would reserve more."""
        raise TypeError(f"chunk must be left out where predict reserves positions of its own, {self!r}")

    def _whole(self) -> Stream:
        """The stream of the whole batch."""
        self._known()
        return self._stream

    def place(
        self, shape: tuple[int, ...], shared: tuple[int, ...] = ()
    ) -> tuple[int, int, tuple[int, ...]]:
        """How many positions a call on the rows reserves, where in them its decisions begin, and their
        strides.

        Along the axes `shared` there is but one decision. The stride is 0 where an axis has no
        second decision.
        """
        self._known()
        if not shape or shape[0] != self._rows:
            raise ValueError(
                f"chunk must be left out where dropout is not applied to {self._rows} examples along the "
                f"first axis, got a call on shape {shape}"
            )
        whole = shape_of("shape of the whole batch", (self._total, *shape[1:]))
        count = math.prod(decided_shape(whole, shared))
        start, strides = place_in(whole, (self._first, *(0,) * (len(shape) - 1)), shape, shared)
        return count, start, strides

    def spawn(self, n_children: int) -> list[StreamRows]:
        """The same rows of the `n_children` streams that the whole batch's stream spawns."""
        self._known()
        children: list[StreamRows] = []
        for child in self._stream.spawn(n_children):
            children.append(StreamRows(child, self._first, self._rows, self._total))
        return children

    def tile(self, shape: int | Sequence[int], origin: int | Sequence[int]) -> Tile:
        """Refused: a block of the rows is none of the whole batch."""
        raise TypeError(
            "chunk must be left out where predict makes tiles: a tile of some rows would draw what no tile "
            "of the whole batch draws"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, StreamRows, StreamRows._fields(self))

    def __repr__(self) -> str:
        seed, offset, _, _, first, rows, total = StreamRows._fields(self)
        return f"StreamRows(seed={seed}, offset={offset}, rows {first} to {first + rows} of {total})"


values.register(StreamRows)


def place_in(
    whole: tuple[int, ...], origin: tuple[int, ...], shape: tuple[int, ...], shared: tuple[int, ...]
) -> tuple[int, tuple[int, ...]]:
    """Where the decisions on a block of a whole array begin, and how far apart they are on each axis."""
    start, stride, strides = 0, 1, []
    for axis in reversed(range(len(shape))):
        strides.append(stride if shape[axis] > 1 and axis not in shared else 0)
        if axis not in shared:
            start += origin[axis] * stride
            stride *= whole[axis]
    return (start if math.prod(shape) else 0), tuple(strides[::-1])


# --- rng= -------------------------------------------------------------------------------------


def as_source(rng: Any) -> Stream | StreamRows | Tile:
    """What an argument ``rng=`` draws from: a stream, or the place of a block or of rows in one."""
    if type(rng) is int:  # as often, without the cost of asking what else it is
        return Stream(checks.seed("rng", rng))
    if isinstance(rng, Tile):
        return Tile._plain(rng)
    return as_lasting_source(rng)


def as_lasting_source(rng: Any) -> Stream | StreamRows:
    """What an argument ``rng=`` draws from, if it goes on from call to call."""
    if isinstance(rng, StreamRows):
        return StreamRows._plain(rng)
    return as_stream(rng)


def as_stream(rng: Any) -> Stream:
    """The stream that an argument ``rng=`` stands for (Scientific Python SPEC 7)."""
    if isinstance(rng, Stream):
        Stream._fields(rng)
        if type(rng) is not Stream:
            refuse_replaced(rng)
        return rng
    if isinstance(rng, Tile):
        raise TypeError(f"rng must be able to go on from call to call here, got {rng!r}")
    if isinstance(rng, StreamRows):
        raise TypeError(f"rng must be a stream of its own here, not some rows of a batch, got {rng!r}")
    if rng is None:
        return Stream()
    if isinstance(rng, np.random.SeedSequence):
        return Stream(seed_of(rng))
    if isinstance(rng, np.random.Generator):
        return Stream(int.from_bytes(rng.bytes(SEED_BITS // 8), "little"))
    return Stream(checks.seed("rng", rng))


def refuse_replaced(stream: Stream) -> None:
    """Refuse a kind of stream that does otherwise where a call relies on it."""
    cls: Any = type(stream)
    added = [*cls.__mro__[: cls.__mro__.index(Stream)], *[stream] * hasattr(stream, "__dict__")]
    for name in RELIED_ON:
        if any(name in vars(holder) for holder in added):
            raise TypeError(
                f"rng must be a Stream that keeps the {name} of its kind, as a call relies on it, "
                f"got a {cls.__name__} with its own"
            )


def reserved(
    rng: Any, shape: tuple[int, ...], shared: tuple[int, ...] = ()
) -> tuple[int, int, tuple[int, ...]]:
    """The seed, the first position and the strides of the decisions on an array, reserved."""
    source = as_source(rng)
    if isinstance(source, Stream):
        decided = decided_shape(shape, shared)
        return source.seed, source.reserve(math.prod(decided)), c_strides(decided)
    count, start, strides = source.place(shape, shared)
    if isinstance(source, StreamRows):
        source = source._whole()
    return source.seed, source.reserve(count) + start, strides


def seed_of(sequence: np.random.SeedSequence) -> int:
    """A 128-bit seed: the four words that `sequence` generates, least significant first."""
    return seed_of_words(sequence.generate_state(SEED_WORDS, np.uint32))


def seed_of_words(words: ArrayLike) -> int:
    """A seed of its words of 32 bits, least significant first."""
    return int.from_bytes(np.asarray(words).astype("<u4").tobytes(), "little")


def sample_stream(seed: int, position: int, prefix: tuple[int, ...]) -> Stream:
    """The stream of a sample that begins at a position, whose children are no other stream's."""
    return values._restored("Stream", seed, position, 0, (*prefix, position % 2**32, position >> 32))
