"""Every allocation of a call fails once: the call raises MemoryError, and leaves out and stream alone.

`python tests/without_memory.py LIBRARY` runs with LIBRARY preloaded, which is compiled from
tests/data/failing_malloc.c; test_memory.py does that. Calls are announced on stderr, so that a crash has a
name. `--first N` begins with call N.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from whole_calls import (
    BACKWARD,
    CALLS,
    Case,
    Layout,
    Source,
    call_of,
    differing,
    filled,
    parts_of,
    placed,
    source_of,
)

import fastdrop as fd
from fastdrop.core import dispatch

SHAPE = (5, 3, 40)
ARRANGEMENTS = ("plain", "fresh", "strided", "overlapping")
DECISIONS = ("Stream", "Tile", "shared", "int")
MOST = 5000  # allocations of a call, at most


def layout_for(arrangement: str, name: str, ndim: int) -> Layout:
    order = tuple(reversed(range(ndim)))
    plain = Layout(order, (1,) * ndim, 0, False, False, None, 0, True, False)
    if arrangement == "strided" and name != "bits":
        return plain._replace(order=order[::-1], steps=(-1,) * ndim, swapped=name != "out")
    if arrangement == "overlapping" and name == "out":
        return plain._replace(near=("x", 12))
    return plain


def case_of(call: str, arrangement: str, decision: str, threads: int) -> Case:
    names = [] if call == "keep_mask" else ["x"]
    if call in ("dropout_add", "dropout_add_predict"):
        names.append("residual")
    if call in BACKWARD and call != "gaussian_dropout_backward":
        names.append("y" if call == "relu_dropout_backward" and decision == "int" else "bits")
    if call in ("dropout", "relu_dropout", "dropout_add", "relu_dropout_predict"):
        names.append("bias")
    if names and arrangement != "fresh":
        names.append("out")
    ndims = {"bits": 1, "bias": 1}
    kind = decision if decision != "shared" else "Stream"
    return Case(
        call=call,
        dtype="float32",
        shape=SHAPE,
        layouts={name: layout_for(arrangement, name, ndims.get(name, len(SHAPE))) for name in names},
        keep_prob=0.7,
        mode="inverted",
        shared=(1,) if decision == "shared" else (),
        source=Source(kind, 2**100 + 7, "middle", 0, (1, 2, 3), (4, 0, 1)),
        return_mask=True,
        bias_grad=arrangement != "fresh",
        told=False,
        wrong=None,
        threads=threads,
        work=1,
        streaming=False,
        values=3,
    )


def cases() -> Iterator[tuple[str, Case]]:
    for number, call in enumerate(CALLS):
        for turn, arrangement in enumerate(ARRANGEMENTS):
            for decision in DECISIONS:
                if decision == "Tile" and "predict" in call:
                    continue
                threads = 1 + (number + turn) % 2
                name = f"{call}, {arrangement}, {decision}, {threads} threads"
                yield name, case_of(call, arrangement, decision, threads)


class Prepared:
    """The arguments of a prepared call exist already, so only the call itself allocates."""

    def __init__(self, case: Case) -> None:
        spots, size = placed(case)
        self.memory = filled(case, spots, size)
        self.before = self.memory.tobytes()
        self.arrays = {name: spot.of(self.memory) for name, spot in spots.items()}
        self.source = source_of(case)
        self.function = getattr(fd, case.call)
        self.arguments, self.options = call_of(case, self.arrays, self.source)

    def position(self) -> Any:
        return self.source.offset if isinstance(self.source, fd.Stream) else None

    def untouched(self, position: Any) -> bool:
        return self.memory.tobytes() == self.before and self.position() == position


def outcome(result: Any, prepared: Prepared) -> tuple[Any, ...]:
    y, saved = result if isinstance(result, tuple) else (result, None)
    saved = parts_of(saved)
    return (
        parts_of(y) if isinstance(y, fd.Mask) else np.array(y, order="C"),
        saved,
        prepared.memory.tobytes(),
        prepared.position(),
    )


def same(found: tuple[Any, ...], expected: tuple[Any, ...]) -> bool:
    return all(
        differing(a, b, True) is None if isinstance(b, np.ndarray) else a == b
        for a, b in zip(found, expected, strict=True)
    )


def fault(case: Case, allocator: ctypes.CDLL) -> tuple[int, list[str]]:
    """Return how many allocations have failed, and what went wrong."""
    arm, disarm = allocator.arm, allocator.disarm
    for _ in range(3):  # what is made once is there
        prepared = Prepared(case)
        result = prepared.function(*prepared.arguments, **prepared.options)
    expected = outcome(result, prepared)
    found = []
    for n in range(1, MOST):
        prepared, error, result = Prepared(case), None, None
        function, arguments, options = prepared.function, prepared.arguments, prepared.options
        position = prepared.position()
        try:
            arm(n)
            result = function(*arguments, **options)
            failed = disarm()
        except BaseException as raised:
            failed, error = disarm(), raised
        if error is None:
            if not same(outcome(result, prepared), expected):
                found.append(f"allocation {n} has failed, and another result is there")
        elif not isinstance(error, MemoryError):
            found.append(f"allocation {n} has failed, and {type(error).__name__} was raised: {error}")
        elif not prepared.untouched(position):
            found.append(f"allocation {n} has failed, and out, an input or the stream has changed")
        del error
        if not failed:
            return n - 1, found
    return MOST, [*found, "no end of allocations"]


def main() -> None:
    allocator = ctypes.CDLL(sys.argv[1])
    allocator.arm.argtypes, allocator.arm.restype = [ctypes.c_long], None
    allocator.disarm.argtypes, allocator.disarm.restype = [], ctypes.c_long
    first = int(sys.argv[sys.argv.index("--first") + 1]) if "--first" in sys.argv else 0
    gc.disable()
    dispatch.set_thread_work(0)
    count = faults = 0
    for number, (name, case) in enumerate(cases()):
        if number < first:
            continue
        print(f"\r{number} {name}", end="", file=sys.stderr, flush=True)
        fd.set_num_threads(case.threads)
        failures, found = fault(case, allocator)
        count += failures
        faults += len(found)
        for what in found[:5]:
            print(f"{name}: {what}", flush=True)
    print(f"{count} failures, {faults} wrong")


if __name__ == "__main__":
    main()
