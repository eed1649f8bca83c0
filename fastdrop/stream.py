"""Stream, Tile and StreamRows: the positions at which a call draws its decisions."""

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
except ImportError:  # not compiled, and Cython is not installed: the reference runs in plain Python
    cython = SimpleNamespace(critical_section=nullcontext)

RELIED_ON = ("__getattribute__", "offset", "reserve", "seed")  # a subclass must not replace these


class Stream:
    """Stream(seed=None, offset=None)\n--\n
    A source of randomness with ``2**64`` positions, which advances from call to call.

    Pass it to the calls as ``rng=``. Every call reserves one position per decision, so successive
    calls never share a position, even calls of several threads. The randomness of a position is a
    pure function of the seed and the position; see ``docs/stream.md``.

    Parameters
    ----------
    seed : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The key of the generator, ``0 <= seed < 2**128``, or a source of one, as in ``rng=``. None takes
        fresh entropy. A seed is drawn from a Generator. A Stream is copied, with its offset and the
        number of children that it has spawned.
    offset : int, optional
        The position that the next call starts at, ``0 <= offset <= 2**64``. By default 0, or that of
        the Stream that is copied.

    Attributes
    ----------
    seed : int
        The key of the generator. It cannot be set.
    offset : int
        The position that the next call starts at. Set it back to replay a step.
    state : dict
        Everything that later calls and `spawn` depend on. Save it, and set it to replay both.

    Raises
    ------
    TypeError
        If `seed` or `offset` has a type that is not accepted.
    ValueError
        If `seed` or `offset` is out of range.

    See Also
    --------
    Tile : The randomness of a block of a larger array.
    keep_mask : Draw decisions without an array.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
    1, 2, 3", SC11, 2011.

    Examples
    --------
    >>> import fastdrop as fd
    >>> stream = fd.Stream(42)
    >>> fd.keep_mask(4, keep_prob=0.5, rng=stream).to_array()
    array([ True, False,  True,  True])
    >>> stream
    Stream(seed=42, offset=4)

    Set it back to replay a step, as activation checkpointing does:

    >>> stream.offset = 0
    >>> fd.keep_mask(4, keep_prob=0.5, rng=stream).to_array()
    array([ True, False,  True,  True])

    Save the whole state, here as JSON, to go on in another process:

    >>> import json
    >>> saved = json.dumps(stream.state)
    >>> again = fd.Stream(stream.seed)
    >>> again.state = json.loads(saved)
    >>> again
    Stream(seed=42, offset=4)
    """

    __slots__ = ("_children", "_offset", "_prefix", "_seed")

    def __init__(self, seed: RNG = None, offset: int | None = None) -> None:
        at: int = 0
        children: int = 0
        prefix: tuple[int, ...] = ()
        if type(seed) is not int:
            if isinstance(seed, Stream):
                seed, at, children, prefix = Stream._fields(seed)
            else:
                seed = drawn_seed("seed", seed, f"{checks.SEEDS} or a Stream")
        self._begin(seed, at if offset is None else offset, children, prefix)

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
        except AttributeError:  # plain Python has no such slot yet; the compiled field is None
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
        """The position that the next call starts at; it may be set."""
        self._known()
        with cython.critical_section(self):
            return self._offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._known()
        offset = checks.position(value)
        with cython.critical_section(self):
            self._offset = offset

    @property
    def state(self) -> dict[str, Any]:
        """Everything that later calls and `spawn` depend on, as a dict that JSON can hold.

        Setting it replays them: calls draw what they drew, and `spawn` returns the same children. The
        state of a stream with another seed is refused.
        """
        seed, offset, children, prefix = Stream._fields(self)
        return {"seed": seed, "offset": offset, "children": children, "prefix": list(prefix)}

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        self._known()
        seed, offset, children, prefix = checks.stream_state(value)
        if seed != self._seed:
            raise ValueError(
                f"state must be that of a stream with the seed {self._seed}, got {seed}: make the stream with that "
                'seed, stream = Stream(state["seed"]), and set its state'
            )
        with cython.critical_section(self):
            self._offset, self._children, self._prefix = offset, children, prefix

    def reserve(self, count: int) -> int:
        """Reserve `count` positions, and return the first of them.

        Parameters
        ----------
        count : int
            The number of positions, at least 0.

        Returns
        -------
        int
            The offset of the stream before the call.

        Raises
        ------
        TypeError
            If `count` is not an int.
        ValueError
            If `count` is negative or fewer positions are left. The stream has then not advanced.

        Examples
        --------
        >>> import fastdrop as fd
        >>> stream = fd.Stream(42)
        >>> stream.reserve(100)
        0
        >>> stream
        Stream(seed=42, offset=100)
        """
        self._known()
        number = integer("count", count)
        if number < 0:
            raise ValueError(f"count must not be negative, got {count!r}")
        return self._take(number)

    def _take(self, count: int) -> int:
        """Reserve positions for a call. Where this is compiled, no subclass can replace it."""
        self._known()
        # Where this is compiled, no other thread runs between the two accesses: the GIL is held, or the
        # critical section stands for it. A lock would not do, because it could be held during a fork
        # and would then stay locked in the child.
        with cython.critical_section(self):
            start = self._offset
            if count > POSITIONS - start:
                raise ValueError(
                    f"rng must have {count} positions left for a call, got {self!r}, which has "
                    f"{POSITIONS - start} left before 2**64"
                )
            self._offset = start + count
        return start

    def _take_at(self, offset: int, count: int) -> bool:
        """Reserve `count` positions, which must be left, if the next one is still `offset`."""
        with cython.critical_section(self):
            if self._offset != offset:
                return False
            self._offset = offset + count
        return True

    def tile(self, shape: int | Sequence[int], origin: int | Sequence[int]) -> Tile:
        """Return the randomness of a block of an array that starts at this stream's offset.

        The stream does not advance. Reserve the positions of the whole array with `reserve` when all
        of its tiles are made.

        Parameters
        ----------
        shape : int or sequence of int
            The shape of the whole array.
        origin : int or sequence of int
            The index of the block's first element in the whole array.

        Returns
        -------
        Tile

        Raises
        ------
        TypeError
            If `shape` or `origin` is not made of ints.
        ValueError
            If they do not fit each other, or the stream has too few positions left for the array.

        Examples
        --------
        >>> import fastdrop as fd
        >>> fd.Stream(42, 7).tile((4, 6), (1, 2))
        Tile(shape=(4, 6), origin=(1, 2), seed=42, offset=7)
        """
        seed, offset, _, _ = Stream._fields(self)
        return Tile(shape, origin, seed, offset)

    def spawn(self, n_children: int) -> list[Stream]:
        """Return `n_children` new streams with seeds of their own.

        No two children of a stream have the same seed, also across calls. The seeds come from
        `numpy.random.SeedSequence`, so a stream with the same seed spawns the same children.

        Parameters
        ----------
        n_children : int
            The number of streams, at least 0.

        Returns
        -------
        list of Stream

        Raises
        ------
        TypeError
            If `n_children` is not an int.
        ValueError
            If `n_children` is negative, or the stream would have more than ``2**32`` children.

        Examples
        --------
        >>> import fastdrop as fd
        >>> first, second = fd.Stream(42).spawn(2)
        >>> first == second
        False
        """
        self._known()
        count = integer("n_children", n_children)
        if count < 0:
            raise ValueError(f"n_children must not be negative, got {n_children!r}")
        with cython.critical_section(self):
            first, prefix = self._children, self._prefix
            if count > MOST_CHILDREN - first:
                raise ValueError(f"n_children must be at most {MOST_CHILDREN - first}, got {n_children!r}")
            self._children = first + count
        # In a sample of `mc_predict`, the key begins with the position of the sample.
        children: list[Stream] = []
        for child in range(first, first + count):
            key = (*prefix, child)
            children.append(Stream(seed_of(np.random.SeedSequence(self._seed, spawn_key=key))))
        return children

    def __reduce__(self) -> tuple[Any, ...]:
        return values.reduced(self, Stream, Stream._fields(self))

    def __repr__(self) -> str:
        seed, offset, _, _ = Stream._fields(self)
        return f"Stream(seed={seed}, offset={offset})"


values.register(Stream)


class Tile:
    """Tile(shape, origin, seed, offset=0)\n--\n
    The randomness of a block of a larger array, which is computed apart from the rest.

    Pass it to the calls as ``rng=``. A call draws for its input what a call on the whole array draws
    for this block, the same at every call. With `broadcast_dims`, an axis along which elements share
    one decision counts as an axis of length 1, in the whole array too.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of the whole array, with at most 64 axes and at most ``2**64`` elements.
    origin : int or sequence of int
        The index of the block's first element in the whole array.
    seed : int
        The seed of the whole array's stream, ``0 <= seed < 2**128``.
    offset : int, default 0
        The position of the whole array's first element in the stream.

    Attributes
    ----------
    shape, origin : tuple of int
    seed, offset : int

    Raises
    ------
    TypeError
        If an argument is not made of ints.
    ValueError
        If an argument is out of range, or `origin` does not have one index per axis.

    See Also
    --------
    Stream.tile : The tile of an array that starts at the offset of a stream.

    References
    ----------
    J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
    1, 2, 3", SC11, 2011.

    Examples
    --------
    >>> import fastdrop as fd
    >>> whole = fd.keep_mask((4, 6), keep_prob=0.5, rng=7).to_array()
    >>> block = fd.keep_mask((2, 3), keep_prob=0.5, rng=fd.Tile((4, 6), (1, 2), seed=7)).to_array()
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
        """Return the same tile as a plain Tile, without what a subclass overrides."""
        fields = Tile._fields(self)
        return self if type(self) is Tile else Tile(*fields)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole array."""
        self._known()
        return self._shape

    @property
    def origin(self) -> tuple[int, ...]:
        """The index of the block's first element in the whole array."""
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
        """Return 0. A block draws at the positions of its own place and reserves none.

        Parameters
        ----------
        count : int
            Ignored.

        Returns
        -------
        int
        """
        return 0

    def place(
        self, shape: tuple[int, ...], shared: tuple[int, ...] = ()
    ) -> tuple[int, int, tuple[int, ...]]:
        """Return the positions to reserve, the position of the first decision, and the strides.

        Parameters
        ----------
        shape : tuple of int
            The shape of the block.
        shared : tuple of int, default ()
            The axes along which elements share one decision, counted from the first axis.

        Returns
        -------
        count : int
            The number of positions that a call on the block reserves: 0.
        start : int
            The position of the first decision in the stream.
        strides : tuple of int
            The positions from one index to the next on each axis, 0 where an axis has one decision.

        Raises
        ------
        ValueError
            If the block does not lie in the whole array.
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
    """StreamRows(stream, first, rows, total)\n--\n
    A stream for some rows of a batch, which get the decisions that they have in the whole batch.

    `mc_predict` passes it to `predict` when ``chunk=`` is given. Every call reserves the positions of
    the whole batch and uses those of the rows. The first axis of its input must therefore be the rows.

    Parameters
    ----------
    stream : Stream
        The stream of the whole batch, which belongs to the rows from then on.
    first, rows, total : int
        The first row, the number of rows, and the number of rows of the whole batch.
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
        """Return plain StreamRows on the same stream, without what a subclass overrides."""
        self._known()
        if type(self) is StreamRows:
            return self
        return StreamRows(self._stream, self._first, self._rows, self._total)

    @property
    def seed(self) -> int:
        """Refuse: a stream with this seed would draw other decisions than those of the rows."""
        raise TypeError(f"chunk must be left out where predict asks for the seed of its stream, {self!r}")

    @property
    def offset(self) -> int:
        """The position that the next call on the whole batch starts at; it may be set."""
        self._known()
        return self._stream.offset

    @offset.setter
    def offset(self, value: int) -> None:
        self._known()
        self._stream.offset = value

    @property
    def state(self) -> dict[str, Any]:
        """The state of the whole batch's stream; it may be set."""
        self._known()
        return self._stream.state

    @state.setter
    def state(self, value: dict[str, Any]) -> None:
        self._known()
        self._stream.state = value

    def reserve(self, count: int) -> int:
        """Refuse: the whole batch would reserve more positions."""
        raise TypeError(f"chunk must be left out where predict reserves positions of its own, {self!r}")

    def _whole(self) -> Stream:
        """The stream of the whole batch."""
        self._known()
        return self._stream

    def place(
        self, shape: tuple[int, ...], shared: tuple[int, ...] = ()
    ) -> tuple[int, int, tuple[int, ...]]:
        """Return the positions to reserve, the first decision's place in them, and the strides.

        Along the axes `shared`, elements share one decision. The stride of an axis is the number of
        positions from one index to the next, 0 where the axis has one decision.
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
        """Return the same rows of the `n_children` streams that the stream of the whole batch spawns."""
        self._known()
        children: list[StreamRows] = []
        for child in self._stream.spawn(n_children):
            children.append(StreamRows(child, self._first, self._rows, self._total))
        return children

    def tile(self, shape: int | Sequence[int], origin: int | Sequence[int]) -> Tile:
        """Refuse: a block of the rows has another place in the whole batch."""
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
    """Return the first decision's position in the whole array, and the strides of the block's decisions."""
    start, stride, strides = 0, 1, []
    for axis in reversed(range(len(shape))):
        strides.append(stride if shape[axis] > 1 and axis not in shared else 0)
        if axis not in shared:
            start += origin[axis] * stride
            stride *= whole[axis]
    return (start if math.prod(shape) else 0), tuple(strides[::-1])


# --- rng= -------------------------------------------------------------------------------------

RNG: TypeAlias = (
    Stream | StreamRows | Tile | int | np.integer[Any] | np.random.SeedSequence | np.random.Generator | None
)


def as_source(rng: Any) -> Stream | StreamRows | Tile:
    """Return what an argument ``rng=`` draws from: a stream, or a block or rows in a stream."""
    if type(rng) is int:  # the usual case, without the cost of the other questions
        return Stream(checks.seed("rng", rng), 0)
    if isinstance(rng, Tile):
        return Tile._plain(rng)
    return as_lasting_source(rng)


def as_lasting_source(rng: Any) -> Stream | StreamRows:
    """Return what an argument ``rng=`` draws from, where that has to advance from call to call."""
    if isinstance(rng, StreamRows):
        return StreamRows._plain(rng)
    return as_stream(rng)


def as_stream(rng: Any) -> Stream:
    """Return the stream that an argument ``rng=`` stands for (Scientific Python SPEC 7)."""
    if isinstance(rng, Stream):
        Stream._fields(rng)
        if type(rng) is not Stream:
            refuse_replaced(rng)
        return rng
    if isinstance(rng, Tile):
        raise TypeError(f"rng must advance from call to call here, which a Tile does not, got {rng!r}")
    if isinstance(rng, StreamRows):
        raise TypeError(f"rng must be a stream of its own here, not the stream of some rows, got {rng!r}")
    return Stream(drawn_seed("rng", rng, f"{checks.SEEDS}, a Stream or a Tile"))


def drawn_seed(name: str, value: Any, accepted: str) -> int:
    """Return the seed that `value` is or gives; a Generator and the system's entropy give a new one."""
    if value is None:
        return secrets.randbits(SEED_BITS)
    if isinstance(value, np.random.SeedSequence):
        return seed_of(value)
    if isinstance(value, np.random.Generator):
        return int.from_bytes(value.bytes(SEED_BITS // 8), "little")
    return checks.seed(name, value, accepted)


def refuse_replaced(stream: Stream) -> None:
    """Refuse a stream whose class replaces a method that the calls rely on."""
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
    """Reserve the positions of an array's decisions; return their seed, first position and strides."""
    source = as_source(rng)
    if isinstance(source, Stream):
        decided = decided_shape(shape, shared)
        stream, start, count, strides = source, 0, math.prod(decided), c_strides(decided)
    else:
        count, start, strides = source.place(shape, shared)
        if isinstance(source, Tile):
            return source.seed, start, strides
        stream = source._whole()
    return stream.seed, stream._take(count) + start, strides


def seed_of(sequence: np.random.SeedSequence) -> int:
    """Return a 128-bit seed: the four words that `sequence` generates, least significant first."""
    return seed_of_words(sequence.generate_state(SEED_WORDS, np.uint32))


def seed_of_words(words: ArrayLike) -> int:
    """Return the seed with these words of 32 bits, least significant first."""
    return int.from_bytes(np.asarray(words).astype("<u4").tobytes(), "little")


def sample_stream(seed: int, position: int, prefix: tuple[int, ...]) -> Stream:
    """Return the stream of the sample that begins at a position. No other stream has its children."""
    return values._restored("Stream", seed, position, 0, (*prefix, position % 2**32, position >> 32))
