"""Draw whole calls at random: which call, on which arrays, in which layout, with which settings.

`drawn` makes a case from a seeded generator. `run` makes the call on the active kernel. `expected` makes it
on the reference, with contiguous native copies, so the reference's handling of layouts cannot hide a fault.
`fault` compares results, bits, errors, the position of the stream, and every byte around the result. All
arrays of a call are in one block of memory, apart or over each other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import fastdrop as fd
from fastdrop import cpu
from fastdrop.core import dispatch
from support import CANARY, DTYPES, MODES, THREAD_WORK, sample

GUARD = 256  # bytes before the first array and after the last
SPREAD = 8  # times its own size that an array may reach over
SMALL = 600  # elements up to which the reference is also asked about the arrays as they lie
TILE_ROWS = 60  # rows of a tile, each of which is slow in the reference
SUMMED_ROWS = 20_000  # and rows of a gradient whose columns it adds up

FORWARD = ("dropout", "relu_dropout", "dropout_add", "alpha_dropout", "gaussian_dropout")
BACKWARD = tuple(f"{name}_backward" for name in FORWARD)
PREDICT = ("dropout_predict", "relu_dropout_predict", "dropout_add_predict")
CALLS = (*FORWARD, *BACKWARD, *PREDICT, "keep_mask")
WEIGHTS = (*(4, 4, 4, 2, 2), *(2, 4, 1, 1, 1), *(1, 1, 1), 2)

EDGES = (0.0, 1.0, 0.5, 0.25, 2**-32, 1 - 2**-32, 2**-64, 2**-65, 1 - 2**-53, 5e-324, 0.9)
OTHER_REALS = (0, 1, Fraction(1, 3), np.float32(0.3), np.float64(0.7), np.int8(1))

# These are wrong values of arguments. A call has at most one of them.
WRONG = {
    "keep_prob": (-0.1, 1.5, float("nan"), "0.5", None, True, 1j, np.inf),
    "mode": ("other", None, 3, "alpha"),
    "rng": (-1, 2**128, 1.5, "seed", True, (1, 2)),
    "broadcast_dims": (7, -8, (0, 9), "a", 1.5, None, ((0,),)),
    "x": ("int32", "bool", "complex64", "object", "longdouble", "str"),
    "residual": ("shape", "dtype", "none"),
    "bias": ("shape", "dtype"),
    "saved": ("shape", "dtype", "none"),
    "out": ("shape", "dtype", "read-only", "overlapping", "list"),
}


class Layout(NamedTuple):
    """A layout says how an array lies: its axes from the fastest to the slowest, and the step of each."""

    order: tuple[int, ...]
    steps: tuple[int, ...]  # in units of what the faster axes reach over; 0 repeats
    gap: int  # bytes between elements, as in a packed record
    sliding: bool  # steps are in units of an element: rows that overlap, as windows do
    swapped: bool  # the other byte order
    near: tuple[str, int] | None  # begins as another array does, this many bytes later; None is apart
    remainder: int  # bytes after a multiple of 64 where an array that is apart begins
    writeable: bool
    subclass: bool


class Source(NamedTuple):
    """A source says what `rng` is."""

    kind: str  # int, Stream, Tile, Generator, SeedSequence
    seed: int
    anchor: str  # offset: after the start, around 2**32, or before the end
    delta: int
    before: tuple[int, ...]  # of a tile: how much of the larger array lies before it on each axis,
    after: tuple[int, ...]  # and after it


class Case(NamedTuple):
    call: str
    dtype: str
    shape: tuple[int, ...]
    layouts: dict[str, Layout]  # of those of x, residual, bias, bits, y (the saved output) and out there are
    keep_prob: Any
    mode: str
    shared: tuple[int, ...]  # axes, also negative and twice
    source: Source
    return_mask: bool
    bias_grad: bool
    told: bool  # a backward call is told keep_prob and mode although the mask knows them
    wrong: tuple[str, Any] | None
    threads: int
    work: int  # the nanoseconds of work that a thread pays for
    streaming: bool  # stores bypass the cache
    values: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)


# --- drawing ----------------------------------------------------------------------------------


def drawn(rng: random.Random) -> Case:
    call = rng.choices(CALLS, WEIGHTS)[0]
    shape = drawn_shape(rng, call)
    kind = rng.choice(("int", "Stream", "Stream", "Stream", "Tile", "Generator", "SeedSequence"))
    shared = drawn_axes(rng, len(shape))
    deep = len(shape) > 6
    if deep:
        kind = rng.choice(("Stream", "Tile"))
    elif kind == "Tile" and math.prod(shape[:-1]) > TILE_ROWS:
        kind = "Stream"
    keep_prob = rng.choices((rng.random(), rng.choice(EDGES), rng.choice(OTHER_REALS)), (5, 4, 1))[0]
    wrong = None
    if rng.random() < 0.12:
        name = rng.choice(list(WRONG))
        wrong = name, rng.choice(WRONG[name])
    names = [*(["x"] if call != "keep_mask" else [])]
    if "add" in call and "backward" not in call:
        names.append("residual")
    if call in BACKWARD:
        names.append("y" if call == "relu_dropout_backward" and rng.random() < 0.5 else "bits")
    elif call not in ("keep_mask", "alpha_dropout", "gaussian_dropout") and shape and rng.random() < 0.4:
        names.append("bias")
    if call != "keep_mask" and (rng.random() < 0.65 or (wrong and wrong[0] == "out")):
        names.append("out")
    case = Case(
        call=call,
        dtype=rng.choice(DTYPES),
        shape=shape,
        layouts={},
        keep_prob=keep_prob,
        mode=rng.choice(MODES),
        shared=shared,
        source=Source(
            kind=kind,
            seed=rng.choice((rng.getrandbits(128), rng.getrandbits(3), 2**128 - 1)),
            anchor=rng.choice(("start", "start", "middle", "end")),
            delta=rng.choice((0, 0, 1, 127, 128, rng.randrange(1000), -rng.randrange(1, 200))),
            before=tuple(0 if deep else rng.choice((0, 1, rng.randrange(200))) for _ in shape),
            after=tuple(
                n == 0
                if deep and rng.random() < 0.999
                else rng.choices((0, 1, rng.randrange(200), -1, 10**30), (80, 40, 40, 2, 1))[0]
                for n in shape
            ),
        ),
        return_mask=rng.random() < 0.8,
        bias_grad=rng.random() < 0.4 and math.prod(shape[:-1]) <= SUMMED_ROWS,
        told=rng.random() < 0.2,
        wrong=wrong,
        threads=rng.choice((1, 2, 2, 3, 4, 5, 6, 7)),
        work=rng.choice((0, 0, 100, 1000, 1 << 16)),
        streaming=rng.random() < 0.3,
        values=rng.getrandbits(32),
    )
    for name in names:
        case.layouts[name] = drawn_layout(rng, case, name)
    return case


def drawn_shape(rng: random.Random, call: str) -> tuple[int, ...]:
    """Draw a small shape, or sometimes one that is large enough for several threads and NumPy's buffers."""
    odd = (0, 1, 1, 2, 3, 5, 7, 8, 9, 16, 17, 31, 33)
    kind = rng.random()
    if call == "keep_mask" and kind < 0.2:  # more axes than an array can have
        weights = (rng.choice((0, 1, 90)), 5, 0.1)
        return tuple(rng.choices((0, 1, 2), weights, k=rng.choice((rng.randrange(7, 101), 64, 65, 100, 100))))
    if kind < 0.5:
        shape = [rng.choice(odd) for _ in range(rng.randrange(7))]
        while math.prod(shape) > 3000:
            shape[rng.randrange(len(shape))] = rng.choice((1, 2, 3))
        return tuple(shape)
    if kind < 0.91:
        rows = rng.choice(((), (rng.randrange(1, 9),), (rng.randrange(1, 4), rng.randrange(1, 5))))
        border = rng.choice((64, 128, 512, 512, 1024, 4096))
        length = rng.choice((rng.randrange(1, 3000), border + rng.randrange(-2, 3), rng.randrange(1, 40)))
        rows = rows if length < 2000 else rows[:1]
        return (*rows, length) if rng.random() < 0.7 else (length, *rows)
    long = 65536 + rng.randrange(1, 34_000)
    length = rng.choice((long, long, rng.randrange(10_000, 100_000), rng.randrange(3, 700)))
    rows = rng.randrange(70_000, max(200_000, 2 * length + 2)) // length + 1
    return rng.choice(((rows, length), (rows, length), (length, rows), (rows * length,), (rows, 1, length)))


def drawn_axes(rng: random.Random, ndim: int) -> tuple[int, ...]:
    if not ndim or rng.random() < 0.7:
        return ()
    axes = rng.sample(range(ndim), rng.randrange(1, min(ndim, 4) + 1))
    return tuple(axis - ndim if rng.random() < 0.3 else axis for axis in (*axes, *axes[: rng.randrange(2)]))


def drawn_layout(rng: random.Random, case: Case, name: str) -> Layout:
    others = list(case.layouts)
    ndim = len(shape_of(case, name))
    near = None
    if others and rng.random() < 0.45:
        other = rng.choice(others)
        if name != "bits" and rng.random() < 0.5 and shape_of(case, other) == shape_of(case, name):
            return case.layouts[other]._replace(near=(other, 0), writeable=True)  # the very same
        shift = rng.choice((0, 0, rng.randrange(-64, 65), itemsize(case) * rng.randrange(-300, 300)))
        near = other, shift
    plain = Layout(
        order=tuple(reversed(range(ndim))),
        steps=(1,) * ndim,
        gap=0,
        sliding=False,
        swapped=False,
        near=near,
        remainder=rng.choice((0, 0, itemsize(case) * rng.randrange(8), rng.randrange(64))),
        writeable=name == "out" or rng.random() < 0.8,
        subclass=rng.random() < 0.05,
    )
    if name == "bits" or rng.random() < 0.35:
        return plain
    repeated = () if name == "out" else (0,)
    layout = plain._replace(
        order=rng.choice((plain.order, plain.order[::-1], tuple(rng.sample(range(ndim), ndim)))),
        steps=tuple(rng.choice((1, 1, 1, 1, 2, 3, -1, -2, *repeated)) for _ in range(ndim)),
        gap=rng.choice((0, 0, 0, 0, 1, 3, 4)),
        sliding=name != "out" and rng.random() < 0.08,
        swapped=rng.random() < 0.25,
    )
    low, high = reach(case, name, strides_of(case, name, layout))
    if high - low > SPREAD * case.size * 8 + 4096:
        layout = layout._replace(steps=tuple(max(-1, min(step, 1)) for step in layout.steps))
    return layout


# --- placing ----------------------------------------------------------------------------------


def itemsize(case: Case) -> int:
    return dtype_of(case).itemsize


def dtype_of(case: Case) -> np.dtype[Any]:
    return sample(0, case.dtype).dtype


def decided(case: Case) -> tuple[int, ...]:
    """Return the shape of the decisions."""
    axes = {axis % len(case.shape) for axis in case.shared if case.call != "relu_dropout_backward"}
    return tuple(min(n, 1) if axis in axes else n for axis, n in enumerate(case.shape))


def shape_of(case: Case, name: str) -> tuple[int, ...]:
    if name == "bits":
        return ((math.prod(decided(case)) + 7) // 8,)
    shape = case.shape[-1:] if name == "bias" else case.shape
    wrong = "saved" if name == "y" else name
    return (*shape, 1) if case.wrong == (wrong, "shape") else shape


def strides_of(case: Case, name: str, layout: Layout) -> tuple[int, ...]:
    if name == "bits":
        return (1,)
    shape, unit = shape_of(case, name), itemsize(case) + layout.gap
    strides, distance = [0] * len(shape), unit
    for axis in layout.order:
        strides[axis] = layout.steps[axis] * (unit if layout.sliding else distance)
        distance *= max(shape[axis], 1) * abs(layout.steps[axis]) or 1
    if len(shape) > len(layout.order):  # one axis too many
        strides[-1] = itemsize(case)
    if case.wrong == ("out", "overlapping") and name == "out" and strides:
        strides[0] = 0
    return tuple(strides)


def reach(case: Case, name: str, strides: Sequence[int]) -> tuple[int, int]:
    """Return the first and last byte that an array takes, counted from its first element."""
    steps = [(max(n, 1) - 1) * stride for n, stride in zip(shape_of(case, name), strides)]
    return sum(min(step, 0) for step in steps), sum(max(step, 0) for step in steps) + 8


class Spot(NamedTuple):
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]
    writeable: bool
    subclass: bool

    def of(self, memory: np.ndarray) -> np.ndarray:
        array = np.ndarray(self.shape, self.dtype, memory, self.start, self.strides)
        return array.view(Subclass) if self.subclass else array


class Subclass(np.ndarray):
    """This class of arrays changes nothing."""


def placed(case: Case) -> tuple[dict[str, Spot], int]:
    """Return where the arrays lie in a block of memory, and the size of the block."""
    starts: dict[str, int] = {}
    ends = [0]
    for name, layout in case.layouts.items():
        low, high = reach(case, name, strides_of(case, name, layout))
        if layout.near and layout.near[0] in starts:
            starts[name] = starts[layout.near[0]] + layout.near[1]
        else:
            starts[name] = (max(ends) - low + GUARD) // 64 * 64 + 64 + layout.remainder
        ends += [starts[name] + low, starts[name] + high]
    spots = {}
    for name, layout in case.layouts.items():
        dtype = np.dtype(np.uint8) if name == "bits" else dtype_of(case)
        if case.wrong == ("saved" if name == "y" else name, "dtype") and name != "bits":
            dtype = np.dtype("i2" if dtype.itemsize == 2 else "f4" if dtype.itemsize == 8 else "i4")
        spots[name] = Spot(
            start=starts[name] + -min(ends) // 64 * 64 + 64 + GUARD,
            shape=shape_of(case, name),
            strides=strides_of(case, name, layout),
            dtype=dtype.newbyteorder("S") if layout.swapped else dtype,
            writeable=layout.writeable and not (name == "out" and case.wrong == ("out", "read-only")),
            subclass=layout.subclass and name != "bits",
        )
    return spots, max(ends) - min(ends) + 3 * GUARD


def filled(case: Case, spots: dict[str, Spot], size: int) -> np.ndarray:
    """Return a block of memory whose arrays have values, with the same byte everywhere else."""
    memory = np.full(size + 64, CANARY, np.uint8)
    memory = memory[-memory.ctypes.data % 64 :][:size]
    for number, (name, spot) in enumerate(spots.items()):
        if name not in ("bits", "out"):
            with np.errstate(all="ignore"):
                values = sample(math.prod(spot.shape), case.dtype, case.values + number)
                spot.of(memory)[...] = values.reshape(spot.shape)
    if "bits" in spots:  # last, as bits past the end have to be zero
        bits = spots["bits"].of(memory)
        bits[:] = np.random.default_rng(case.values).integers(0, 256, bits.size, np.uint8)
        bits[-1:] &= 0xFF >> (-math.prod(decided(case)) % 8)
    return memory


# --- calling ----------------------------------------------------------------------------------


def source_of(case: Case) -> Any:
    """Return a new object to pass as `rng`."""
    kind, seed, anchor, delta, before, after = case.source
    shape = case.shape
    if kind == "Tile":
        shape = tuple(a + n + b for a, n, b in zip(before, shape, after))
    size = math.prod(shape if kind == "Tile" else decided(case))
    offset = delta + {"start": 0, "middle": 2**32 - min(size, 2**31), "end": 2**64 - size}[anchor]
    offset = min(max(offset, 0), 2**64)
    match kind:
        case "Tile":
            return fd.Tile(tuple(max(n, 0) for n in shape), before, seed, min(offset, max(2**64 - size, 0)))
        case "Stream":
            return fd.Stream(seed, offset)
        case "Generator":
            return np.random.default_rng(seed)
        case "SeedSequence":
            return np.random.SeedSequence(seed)
    return seed


def state_of(source: Any) -> Any:
    """Return how far a source of randomness has advanced."""
    if isinstance(source, fd.Stream):
        return source.offset
    return str(source.bit_generator.state) if isinstance(source, np.random.Generator) else None


def saved_of(case: Case, arrays: dict[str, Any]) -> Any:
    """Return what a backward call gets of the forward call."""
    if case.wrong == ("saved", "none"):
        return None
    shape = decided(case)
    if case.call == "gaussian_dropout_backward":
        shape = (*case.shape, 1) if case.wrong == ("saved", "shape") else case.shape
        return fd.GaussianNoise(
            case.source.seed, 2**32 - 5, shape, keep_prob=max(float(case.keep_prob), 2**-20)
        )
    if "y" in arrays:
        return arrays["y"]
    mode = "alpha" if case.call == "alpha_dropout_backward" else case.mode
    if case.wrong == ("saved", "shape"):
        shape = (*shape, 1)
    return fd.Mask(arrays["bits"], shape, keep_prob=case.keep_prob, mode=mode)


def call_of(case: Case, arrays: dict[str, Any], source: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the call."""
    options: dict[str, Any] = {}
    if case.call == "keep_mask":
        options |= {"shape": case.shape, "keep_prob": case.keep_prob, "rng": source}
        options["broadcast_dims"] = case.shared
    elif case.call in BACKWARD:
        if case.call in BACKWARD[:3] and case.bias_grad:
            options["bias_grad"] = True
        if "y" in arrays or (case.told and case.call == "relu_dropout_backward"):
            options |= {"keep_prob": case.keep_prob, "mode": case.mode}
    else:
        options["keep_prob"] = case.keep_prob
        if case.call not in ("alpha_dropout", "gaussian_dropout"):
            options["mode"] = case.mode
        if case.call in FORWARD:
            options["rng"] = source
        if case.call in FORWARD[:4]:
            options |= {"broadcast_dims": case.shared, "return_mask": case.return_mask}
        if "bias" in arrays:
            options["bias"] = arrays["bias"]
    if arrays.get("out") is not None:
        options["out"] = arrays["out"]
    positional = [arrays[name] for name in ("x", "residual") if name in arrays]
    if case.call in BACKWARD:
        positional.append(saved_of(case, arrays))
    if case.wrong:
        name, value = case.wrong
        if name in options and name not in ("out", "bias"):
            options[name] = value
        if name == "x" and positional:
            positional[0] = np.ones(case.shape, value) if value != "str" else "array"
        if case.wrong == ("residual", "none") and "residual" in arrays:
            positional[1] = None
        if case.wrong == ("out", "list") and "out" in options:
            options["out"] = [0.0]
    return tuple(positional), options


class Outcome(NamedTuple):
    """An outcome has all that a call has changed or returned, in a form that == compares."""

    error: tuple[str, str] | None = None
    y: np.ndarray | None = None
    saved: Any = None  # mask, noise or the gradient of the bias
    position: Any = None
    memory: np.ndarray | None = None
    flaw: str | None = None  # what is wrong with it by itself


def run(case: Case, module: ModuleType = fd) -> Outcome:
    """Make the call on the arrays as they lie."""
    spots, size = placed(case)
    memory = filled(case, spots, size)
    arrays: dict[str, Any] = {}
    for name, spot in spots.items():
        arrays[name] = spot.of(memory)
        arrays[name].flags.writeable = spot.writeable
    outcome = called(case, module, arrays)
    return outcome._replace(memory=memory)


def expected(case: Case) -> Outcome:
    """Return the outcome of the reference for contiguous native copies, written to where `out` lies."""
    spots, size = placed(case)
    memory = filled(case, spots, size)
    copies = {
        name: native(spot.of(memory)) for name, spot in spots.items() if name != "out"
    }
    outcome = called(case, fd.reference, copies)
    out = case.layouts.get("out")
    if case.wrong or outcome.error or (out and (out.sliding or 0 in out.steps)):
        as_they_lie = run(case, fd.reference)  # an error may be the layout's, and tell of it
        if as_they_lie.error:
            outcome = Outcome(error=as_they_lie.error, position=as_they_lie.position)
    if not outcome.error and "out" in spots:
        spots["out"].of(memory)[...] = outcome.y
    return outcome._replace(memory=memory)


def called(case: Case, module: ModuleType, arrays: dict[str, Any]) -> Outcome:
    source = None
    try:
        source = source_of(case)
        arguments, options = call_of(case, arrays, source)
        before = state_of(source)
        with np.errstate(all="ignore"):
            result = getattr(module, case.call)(*arguments, **options)
    except Exception as error:
        kind = "MemoryError" if isinstance(error, MemoryError) else type(error).__name__
        return Outcome(error=(kind, str(error)), position=state_of(source))
    if case.call == "keep_mask":
        return Outcome(saved=parts_of(result), position=state_of(source))
    y, saved = result if isinstance(result, tuple) else (result, None)
    out = arrays.get("out")
    flaw = None
    if out is not None and y is not out:
        flaw = "what is returned is not out"
    elif out is None and (type(y) is not np.ndarray or not y.flags.carray):
        flaw = "the result is no new array in C order"
    elif out is None and any(np.may_share_memory(y, array) for array in arrays.values()):
        flaw = "the result lies on an input"
    elif case.source.kind == "Generator" and case.call in FORWARD and state_of(source) == before:
        flaw = "the generator was not asked for a seed"
    return Outcome(y=native(y), saved=parts_of(saved), position=state_of(source), flaw=flaw)


def parts_of(saved: Any) -> Any:
    if isinstance(saved, fd.Mask):
        return bytes(saved.bits), saved.shape, saved.keep_prob, saved.mode
    return native(saved) if isinstance(saved, np.ndarray) else saved


def native(array: np.ndarray) -> np.ndarray:
    """Return a copy of the elements, contiguous and in native byte order."""
    return np.array(array, array.dtype.newbyteorder("="), order="C", subok=False)


# --- judging ----------------------------------------------------------------------------------


@contextmanager
def settings(case: Case) -> Iterator[None]:
    """Set the threads and stores of a case for as long as it runs."""
    threads, isa = fd.get_num_threads(), cpu.active()
    fd.set_num_threads(case.threads)
    dispatch.set_streaming_bytes(0 if case.streaming else cpu._streaming_bytes())
    dispatch.set_thread_work(case.work)
    try:
        yield
    finally:
        fd.set_num_threads(threads)
        dispatch.set_streaming_bytes(cpu._streaming_bytes())
        dispatch.set_thread_work(THREAD_WORK)
        cpu.activate(isa)


def fault(case: Case, isas: Sequence[str] = ()) -> str | None:
    """Return what is wrong with a case on one of the instruction sets, or None."""
    wanted = expected(case)
    if case.size <= SMALL and (found := difference(case, run(case, fd.reference), wanted)):
        return f"the reference with the arrays as they lie: {found}"
    with settings(case):
        for isa in isas or cpu.available():
            cpu.activate(isa)
            if cpu.active() != isa:
                return f"{cpu.active()} runs where {isa} was activated"
            if found := difference(case, run(case), wanted):
                return f"{isa}: {found}"
    return None


def difference(case: Case, found: Outcome, wanted: Outcome) -> str | None:
    if found.flaw:
        return found.flaw
    if found.error != wanted.error:
        return f"error {found.error}, not {wanted.error}"
    if found.position != wanted.position:
        return f"the stream is at {found.position}, not at {wanted.position}"
    # Neither IEEE 754 nor NumPy says which NaN the sum of two NaNs is.
    sums = "bias" in case.layouts or "residual" in case.layouts
    if wanted.y is not None and (where := differing(found.y, wanted.y, sums)):
        return f"y: {where}"
    if isinstance(wanted.saved, np.ndarray):
        if where := differing(found.saved, wanted.saved, True):
            return f"the bias's gradient: {where}"
    elif found.saved != wanted.saved:
        return f"the mask or noise is {described(found.saved, wanted.saved)}"
    return stray(case, found, wanted, sums)


def differing(found: Any, wanted: np.ndarray, any_nan: bool) -> str | None:
    if not isinstance(found, np.ndarray) or (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        kind = f"{getattr(found, 'dtype', found)} {getattr(found, 'shape', '')}"
        return f"{kind}, not {wanted.dtype} {wanted.shape}"
    unequal = found.view(f"u{found.itemsize}") != wanted.view(f"u{found.itemsize}")
    if any_nan:
        unequal &= ~(np.isnan(found) & np.isnan(wanted))
    if not unequal.any():
        return None
    first = tuple(int(i) for i in np.argwhere(unequal)[0])
    values = f"{found[first]!r}, not {wanted[first]!r}"
    return f"{unequal.sum()} of {found.size} elements differ, first {first}: {values}"


def described(found: Any, wanted: Any) -> str:
    if isinstance(found, tuple) and isinstance(wanted, tuple) and found[1:] == wanted[1:]:
        unequal = np.frombuffer(found[0], np.uint8) ^ np.frombuffer(wanted[0], np.uint8)
        first = np.flatnonzero(unequal)[0]
        return f"another in {np.bitwise_count(unequal).sum()} bits, first in byte {first}"
    return f"{str(found)[:200]}, not {str(wanted)[:200]}"


def stray(case: Case, found: Outcome, wanted: Outcome, sums: bool) -> str | None:
    """Return which bytes outside of the result have changed, or None."""
    memory = wanted.memory
    if sums and not wanted.error and "out" in case.layouts:  # NaNs that may be others
        out = placed(case)[0]["out"]
        memory = memory.copy()
        out.of(memory)[...] = out.of(found.memory)
    unequal = np.flatnonzero(found.memory != memory)
    if not len(unequal):
        return None
    return f"{len(unequal)} bytes around the result have changed, first {unequal[0]} of {len(memory)}"


# --- making small -----------------------------------------------------------------------------


def simpler(case: Case) -> Iterator[Case]:
    """Yield cases that are simpler in one respect."""
    for name in ("bias", "out", "residual"):
        if name in case.layouts and (name != "residual" or "add" not in case.call):
            rest = {key: value for key, value in case.layouts.items() if key != name}
            yield case._replace(layouts=rest)
    for field, value in {
        "wrong": None, "shared": (), "bias_grad": False, "told": False, "threads": 1, "streaming": False,
        "work": 1 << 16, "keep_prob": 0.5, "mode": "inverted", "dtype": "float32",
    }.items():  # fmt: skip
        if getattr(case, field) != value:
            yield case._replace(**{field: value})
    if case.source.kind != "int":
        yield case._replace(source=case.source._replace(kind="int"))
    for name, layout in case.layouts.items():
        plain = layout._replace(
            order=tuple(reversed(range(len(layout.order)))),
            steps=(1,) * len(layout.steps),
            gap=0,
            sliding=False,
            swapped=False,
            remainder=0,
            subclass=False,
        )
        for less in (layout._replace(near=None), plain, layout._replace(swapped=False)):
            if less != layout:
                yield case._replace(layouts=case.layouts | {name: less})
    for axis, length in enumerate(case.shape):
        for less in {length // 2, length - 1}:
            if 0 < less < length:
                yield case._replace(shape=(*case.shape[:axis], less, *case.shape[axis + 1 :]))


def shrunk(case: Case, isas: Sequence[str] = (), tries: int = 200) -> Case:
    """Return a simpler case that is wrong too."""
    for _ in range(tries):
        smaller = next((less for less in simpler(case) if fault(less, isas)), None)
        if smaller is None:
            return case
        case = smaller
    return case


def numbered(seed: int, number: int) -> Case:
    """Return the case that a seed and a number stand for."""
    return drawn(random.Random(f"{seed} {number}"))
