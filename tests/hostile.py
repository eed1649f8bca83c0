"""Call the package with arguments that run code in the middle of a call, and with arrays that lie.

A door is an argument whose conversion runs Python code. A deed is what that code does to another argument of
the same call. Whatever happens, a call returns the right result for the arrays as they are when it computes,
or it raises a clear error and leaves `out` and the stream as the deed left them. `python tests/hostile.py
FAMILY` tries all of a family. test_reentrancy.py runs it in a process of its own, because a fault may be a
crash.
"""

from __future__ import annotations

import copy
import gc
import sys
import warnings
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any

import numpy as np

import fastdrop as fd
from fastdrop import cpu

SHAPE = (20, 500)  # large enough that the memory goes back to the system when it is freed
BEYOND = 4096  # bytes around an array that lies
CLEAR = (TypeError, ValueError, RuntimeError, BufferError)


class Deliberate(Exception):
    """A deed raises this."""


# --- calls ------------------------------------------------------------------------------------


def arrays_for(call: str) -> dict[str, Any]:
    """Return new arrays by the names of their arguments; `x` also stands for `dy`."""
    generator = np.random.default_rng(5)
    arrays = {"x": generator.standard_normal(SHAPE, np.float32), "out": np.full(SHAPE, 7, np.float32)}
    if call.startswith("dropout_add") and not call.endswith("backward"):
        arrays["residual"] = generator.standard_normal(SHAPE, np.float32)
    if call in ("dropout", "relu_dropout", "dropout_add", "relu_dropout_predict"):
        arrays["bias"] = generator.standard_normal(SHAPE[1], np.float32)
    if call == "relu_dropout_backward":
        arrays["y"] = np.maximum(generator.standard_normal(SHAPE, np.float32), 0)
    return arrays


def options_for(call: str, stream: fd.Stream) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if call != "dropout_backward":
        options["keep_prob"] = 0.75  # two planes: the reference, asked each time, is then quick
    if call not in ("alpha_dropout", "gaussian_dropout", "dropout_backward"):
        options["mode"] = "inverted"
    if "backward" in call:
        options["bias_grad"] = True
    elif "predict" not in call:
        options["rng"] = stream
        if call != "gaussian_dropout":
            options |= {"broadcast_dims": (), "return_mask": True}
    return options


def made(module: Any, call: str, given: dict[str, Any], options: dict[str, Any]) -> Any:
    positional = [given[name] for name in ("x", "residual", "y") if name in given]
    if call == "dropout_backward":
        positional.append(given.get("mask", MASK))
    named = {name: given[name] for name in ("bias", "out") if name in given}
    return getattr(module, call)(*positional, **options, **named)


MASK = fd.keep_mask(SHAPE, keep_prob=0.7, rng=3)

# --- doors ------------------------------------------------------------------------------------

Deed = Callable[[], None]


class Hostile:
    """This argument does not have the type that a call wants. It converts to it, and does the deed then."""

    def __init__(self, value: Any, deed: Deed) -> None:
        self.value, self.deed = value, deed


class ByArray(Hostile):
    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        self.deed()
        return self.value


class ByInterface(Hostile):
    @property
    def __array_interface__(self) -> Any:
        interface = self.value.__array_interface__
        self.deed()
        return interface


class ByDLPack(Hostile):
    def __dlpack_device__(self) -> Any:
        return self.value.__dlpack_device__()

    def __dlpack__(self, **options: Any) -> Any:
        capsule = self.value.__dlpack__(**options)
        self.deed()
        return capsule


class HostileReal(Hostile):
    """This is a real number only by registration."""

    def __float__(self) -> float:
        self.deed()
        return self.value


Real.register(HostileReal)


class HostileAxes(Hostile):
    def __iter__(self) -> Iterator[int]:
        self.deed()
        return iter(self.value)


class HostileIndex(Hostile):
    def __index__(self) -> int:
        self.deed()
        return self.value


class HostileFlag(Hostile):
    def __bool__(self) -> bool:
        self.deed()
        return self.value


# These are subclasses of the types that a call wants. They are made without a deed, which `doing` then sets.


def nothing() -> None:
    """Do nothing: this is the deed of a value that is still being made."""


class ByFinalize(np.ndarray):
    """Every view of this array does the deed."""

    deed: Deed = staticmethod(nothing)

    def __array_finalize__(self, source: Any) -> None:
        getattr(source, "deed", nothing)()


class HostileFloat(float):
    deed: Deed = staticmethod(nothing)

    def __float__(self) -> float:
        self.deed()
        return float.__float__(self)

    def __le__(self, other: Any) -> bool:
        self.deed()
        return True

    __ge__ = __le__


class HostileString(str):
    deed: Deed = staticmethod(nothing)

    def __eq__(self, other: Any) -> bool:
        self.deed()
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        self.deed()
        return str.__hash__(self)


class HostileGenerator(np.random.Generator):
    deed: Deed = staticmethod(nothing)

    def bytes(self, length: int) -> bytes:
        self.deed()
        return (11).to_bytes(length, "little")


class HostileStream(fd.Stream):
    deed: Deed = staticmethod(nothing)

    def reserve(self, count: int) -> int:
        self.deed()
        return super().reserve(count)


class HostileTile(fd.Tile):
    deed: Deed = staticmethod(nothing)

    def place(self, *arguments: Any) -> Any:
        self.deed()
        return super().place(*arguments)


def doing(make: Callable[[Any], Any]) -> Callable[[Any, Deed], Any]:
    """Return a function that makes a hostile argument from the right one and a deed."""

    def door(right: Any, deed: Deed) -> Any:
        hostile = make(right)
        hostile.deed = deed
        return hostile

    return door


ARRAY_DOORS = {"__array__": ByArray, "__array_interface__": ByInterface, "__dlpack__": ByDLPack,
               "__array_finalize__": doing(lambda array: array.view(ByFinalize))}  # fmt: skip
OPTION_DOORS = {
    "keep_prob": {"float": doing(HostileFloat), "Real": HostileReal},
    "mode": {"str": doing(HostileString)},
    "broadcast_dims": {"__iter__": HostileAxes, "__index__": lambda _, deed: (HostileIndex(-1, deed),)},
    "rng": {
        "Generator.bytes": doing(lambda _: HostileGenerator(np.random.PCG64(1))),
        "__index__": lambda _, deed: HostileIndex(11, deed),
        "Stream.reserve": doing(lambda stream: HostileStream(stream.seed, stream.offset)),
        "Tile.place": doing(lambda _: HostileTile((30, 1200), (5, 100), 11)),
    },
    "return_mask": {"__bool__": HostileFlag},
    "bias_grad": {"__bool__": HostileFlag},
}

# --- deeds ------------------------------------------------------------------------------------


def set_shape(array: np.ndarray) -> None:
    array.shape = array.shape[::-1]


def set_dtype(array: np.ndarray) -> None:
    array.dtype = np.dtype("i4") if array.dtype == np.float32 else np.dtype("f4")


def halve(array: np.ndarray) -> None:
    array.dtype = np.dtype("f2")


def set_strides(array: np.ndarray) -> None:
    array.strides = (0,) * array.ndim


def lock(array: np.ndarray) -> None:
    array.flags.writeable = False


def refill(array: np.ndarray) -> None:
    array[...] = 3


DEEDS_TO_ARRAYS: dict[str, Callable[[np.ndarray], None]] = {
    "resized to nothing": lambda array: array.resize((0,) * array.ndim, refcheck=False),
    "resized to less": lambda array: array.resize(tuple(n // 4 for n in array.shape), refcheck=False),
    "resized to more": lambda array: array.resize(tuple(4 * n for n in array.shape), refcheck=False),
    "moved": lambda array: (
        array.resize(tuple(16 * n for n in array.shape), refcheck=False),
        array.resize(tuple(n // 16 for n in array.shape), refcheck=False),
    ),
    "given another shape": set_shape,
    "given another dtype": set_dtype,
    "given a shorter dtype": halve,
    "given other strides": set_strides,
    "made read-only": lock,
    "given other values": refill,
}


def other_isa() -> str:
    return next((name for name in cpu.available() if name != cpu.active()), cpu.active())


# --- one attempt ------------------------------------------------------------------------------


def natives(given: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(array, order="C") for name, array in given.items() if name != "out"}


class Attempt:
    """An attempt is one call with one door and one deed."""

    def __init__(self, call: str) -> None:
        self.call = call
        self.arrays = arrays_for(call)
        self.stream = fd.Stream(11, 1000)
        self.options = options_for(call, self.stream)
        self.axes: tuple[int, ...] = ()
        self.bias = self.arrays["bias"].copy() if "bias" in self.arrays else None
        self.done = 0
        self.after: tuple[bytes, int] | None = None  # out and the stream's position, as the deed leaves them

    def deed(self, action: Callable[[Attempt], Any]) -> Deed:
        def once() -> None:
            if not self.done:
                self.done = 1
                try:
                    action(self)
                finally:
                    self.after = self.state()

        return once

    def state(self) -> tuple[bytes, int]:
        return self.arrays["out"].tobytes(), self.stream.offset

    def verdict(self, door: str, hostile: Any) -> str | None:
        """Return what is wrong with what the call did, or None."""
        given, options = dict(self.arrays), dict(self.options)
        (given if door in given else options)[door] = hostile
        if door == "rng" and isinstance(hostile, fd.Stream):
            self.stream = hostile
        if door == "broadcast_dims":
            self.axes = (-1,) if isinstance(hostile, tuple) else ()
        self.after = self.state()
        try:
            result = made(fd, self.call, given, options)
        except (*CLEAR, Deliberate) as error:
            if self.state() == self.after:
                return None
            return f"out or the stream has changed although {type(error).__name__} was raised: {error}"
        except Exception as error:
            return f"{type(error).__name__} is no clear error: {error}"
        return self.wrong(result, given)

    def wrong(self, result: Any, given: dict[str, Any]) -> str | None:
        """Return what is wrong with a result for the arrays as they are now, and the bias then or now."""
        first = result[0] if isinstance(result, tuple) else result
        if first is not given["out"]:
            return "what is returned is not out"
        rng = self.options.get("rng")
        options = dict(self.options)
        if "broadcast_dims" in options:
            options["broadcast_dims"] = self.axes
        sources: list[Any] = [None]
        if rng is not None:
            moved = self.stream.offset - self.after[1]
            sources = [fd.Stream(11, self.after[1])] if moved else [11, fd.Tile((30, 1200), (5, 100), 11)]
        found = np.array(np.asarray(first), order="C")
        flaw = "the result is not that of the arrays as they are"
        biases = [{}] if self.bias is None else [{}, {"bias": self.bias}]
        for source, bias in ((source, bias) for source in sources for bias in biases):
            if source is not None:
                options["rng"] = copy.copy(source)
            try:
                expected = made(fd.reference, self.call, natives(self.arrays) | bias, options)
            except Exception as error:
                flaw = f"a result where the reference says {type(error).__name__}: {error}"
                continue
            y = expected[0] if isinstance(expected, tuple) else expected
            same = y.dtype == found.dtype and y.shape == found.shape and y.tobytes() == found.tobytes()
            if same and (self.call == "gaussian_dropout" or same_rest(result, expected)):
                return None
        return flaw


def same_rest(found: Any, expected: Any) -> bool:
    if not isinstance(expected, tuple):
        return True
    if isinstance(expected[1], np.ndarray):
        return found[1].tobytes() == expected[1].tobytes()
    return found[1] == expected[1]


# --- families of attempts ---------------------------------------------------------------------

Trial = tuple[str, Callable[[], "str | None"]]


def doors(call: str) -> Iterator[tuple[str, str, Callable[[Any, Deed], Any]]]:
    """Yield an argument, the kind of door, and what makes the hostile argument from the right one."""
    for name in arrays_for(call):
        for kind, door in ARRAY_DOORS.items():
            if name != "out" or kind == "__array_finalize__":
                yield name, kind, door
    for name in options_for(call, fd.Stream(1)):
        for kind, door in OPTION_DOORS[name].items():
            yield name, kind, door


def trial(call: str, name: str, door: Any, action: Callable[[Attempt], Any]) -> str | None:
    attempt = Attempt(call)
    right = attempt.arrays.get(name, attempt.options.get(name))
    return attempt.verdict(name, door(right, attempt.deed(action)))


def changed_arrays(call: str) -> Iterator[Trial]:
    """Combine every door with everything that can be done to every array of the call."""
    for name, kind, door in doors(call):
        for target in arrays_for(call):
            for what, change in DEEDS_TO_ARRAYS.items():
                if kind in ("__array_finalize__", "__array_interface__", "__dlpack__") and target == name:
                    continue  # NumPy itself then reads memory that is gone

                def action(attempt: Attempt, target: str = target, change: Any = change) -> None:
                    change(attempt.arrays[target])

                yield (
                    f"{call}, {name} by {kind}: {target} {what}",
                    lambda name=name, door=door, action=action: trial(call, name, door, action),
                )


def raised(attempt: Attempt) -> None:
    raise Deliberate


def nested(attempt: Attempt) -> None:
    made(fd, attempt.call, attempt.arrays, attempt.options)


def collected(attempt: Attempt) -> None:
    attempt.arrays["x"][0, 0] = 5
    gc.collect()


DEEDS: dict[str, Callable[[Attempt], Any]] = {
    "an exception": raised,
    "the same call": nested,
    "a stream that is set back": lambda attempt: setattr(attempt.stream, "offset", 5),
    "a stream near its end": lambda attempt: setattr(attempt.stream, "offset", 2**64 - 3),
    "another number of threads": lambda attempt: fd.set_num_threads(3),
    "another kernel": lambda attempt: cpu.activate(other_isa()),
    "a collection": collected,
}


def other_deeds(call: str) -> Iterator[Trial]:
    for name, kind, door in doors(call):
        for what, action in DEEDS.items():
            if kind == "Stream.reserve" and what != "an exception":
                continue  # a stream whose reserve is another does as it likes
            yield (
                f"{call}, {name} by {kind}: {what}",
                lambda name=name, door=door, action=action: trial(call, name, door, action),
            )


class Cycle:
    def __init__(self, deed: Deed) -> None:
        self.deed, self.self = deed, self

    def __del__(self) -> None:
        self.deed()


def finalized(call: str) -> Iterator[Trial]:
    """Make garbage whose finalizer changes an array when the collector runs during the call."""
    for target in arrays_for(call):
        for what in ("resized to nothing", "resized to more", "given a shorter dtype"):
            change = DEEDS_TO_ARRAYS[what]
            for delay in (1, 2, 3, 5, 8, 13):

                def attempt(target: str = target, change: Any = change, delay: int = delay) -> str | None:
                    attempt = Attempt(call)
                    gc.disable()
                    Cycle(attempt.deed(lambda attempt: change(attempt.arrays[target])))
                    thresholds = gc.get_threshold()
                    try:
                        gc.set_threshold(delay)
                        gc.enable()
                        return attempt.verdict("x", attempt.arrays["x"])
                    finally:
                        gc.set_threshold(*thresholds)
                        gc.collect()

                yield f"{call}, a finalizer after {delay} allocations: {target} {what}", attempt


# --- arrays that lie --------------------------------------------------------------------------

LIES: dict[str, Any] = {
    "dtype": (np.dtype("f4"), np.dtype("f8"), np.dtype("f2"), np.dtype("i4"), "f4", None),
    "shape": (SHAPE, (20, 5000), (1,), (), None),
    "strides": ((2000, 4), (0, 0), (-2000, -4), (1 << 40, 4), ()),
    "size": (10_000, 1_000_000, 0, -1),
    "ndim": (2, 0, 70),
    "nbytes": (40_000, 0, -8),
    "itemsize": (4, 8, 0),
    "flags": (np.zeros(1).flags, np.zeros((2, 2)).T.flags, None),
    "data": (memoryview(b""), None),
    "base": (np.zeros(1), 3),
    "ctypes": (np.zeros(1).ctypes, None),
    "__array_interface__": ({"data": (8, False), "shape": SHAPE, "typestr": "<f4", "version": 3}, None),
    "__array_struct__": (None,),
    "flat": (None,),
    "T": (None,),
    "__class__": (int, fd.Mask),
}
LYING_METHODS = (
    "astype", "copy", "reshape", "view", "ravel", "any", "sum", "fill", "tobytes", "__array__", "__len__",
    "__getitem__", "__setitem__", "__array_wrap__",
)  # fmt: skip
TRUTHS = ((SHAPE, "f4"), (SHAPE, "f2"), (SHAPE, "f8"), ((20, 250), "f4"))


def liar(attribute: str, lie: Any) -> type[np.ndarray]:
    return type("Liar", (np.ndarray,), {attribute: property(lambda self: lie)})


def guarded(shape: tuple[int, ...], dtype: str, kind: type[np.ndarray]) -> tuple[Any, np.ndarray]:
    """Return an array of a lying class, and the memory around it."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.full(size + 2 * BEYOND, 0xA5, np.uint8)
    plain = memory[BEYOND : BEYOND + size].view(dtype).reshape(shape)
    plain[...] = np.arange(plain.size).reshape(shape) % 7 - 3
    return np.ndarray.view(plain, kind), memory


def lies(call: str) -> Iterator[Trial]:
    for name in arrays_for(call):
        for attribute, answers in LIES.items():
            for answer in answers:
                kind = liar(attribute, answer)
                for shape, dtype in TRUTHS:
                    yield (
                        f"{call}, {name} is {dtype} {shape} and says {attribute} {str(answer)[:40]}",
                        lambda name=name, kind=kind, shape=shape, dtype=dtype: lied(
                            call, name, kind, shape, dtype
                        ),
                    )
        for method in LYING_METHODS:
            kind = type("Liar", (np.ndarray,), {method: lambda self, *_, **__: np.zeros(3, np.float32)})
            yield (
                f"{call}, {name} has another {method}",
                lambda name=name, kind=kind: lied(call, name, kind, SHAPE, "f4"),
            )


def lied(call: str, name: str, kind: type[np.ndarray], shape: tuple[int, ...], dtype: str) -> str | None:
    attempt = Attempt(call)
    shape = shape[-1:] if name == "bias" else shape
    hostile, memory = guarded(shape, dtype, kind)
    attempt.arrays[name] = np.ndarray.view(hostile, np.ndarray)
    found = attempt.verdict(name, hostile)
    if not ((memory[:BEYOND] == 0xA5).all() and (memory[-BEYOND:] == 0xA5).all()):
        return "memory around the array has changed"
    return found


# --- all of them ------------------------------------------------------------------------------

CALLS = (
    "dropout_add",
    "gaussian_dropout",
    "relu_dropout_backward",
    "dropout_backward",
    "relu_dropout_predict",
)
FAMILIES = {"changed": changed_arrays, "deeds": other_deeds, "finalizers": finalized, "lies": lies}


def trials(family: str) -> Iterator[Trial]:
    return (trial for call in CALLS for trial in FAMILIES[family](call))


def main() -> None:
    """Try a family from a certain trial on. Each trial is announced first, so that a crash has a name."""
    warnings.simplefilter("ignore")  # of NumPy, about setting shapes and strides
    family, first = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0
    isa, threads = cpu.active(), fd.get_num_threads()
    count = faults = 0
    for number, (name, trial) in enumerate(trials(family)):
        if number < first:
            continue
        print(f"\r{number} {name}", end="", file=sys.stderr, flush=True)
        found = trial()
        cpu.activate(isa)
        fd.set_num_threads(threads)
        count += 1
        if found:
            faults += 1
            print(f"{name}: {found}", flush=True)
    print(f"{count} tried, {faults} wrong")


if __name__ == "__main__":
    main()
