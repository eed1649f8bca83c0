"""Fuzz whole calls and the C entry points with random arguments, for as long as you like.

    python tests/fuzz.py [--seconds N] [--seed N] [--case N] [--isa NAME]

Each case has two parts. The first compares a whole call of the package with the reference
(`whole_calls.py`). The second calls a function through its pointer in `fastdrop.capi.__pyx_capi__` on every
kernel. It compares the results with those of the generic kernel and of the reference, and checks that the
bytes around them are unchanged. Some arguments are wrong. The first fault or crash ends the run, which
prints the numbers that repeat it; the exit code is then 1.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import whole_calls

import fastdrop as fd
from fastdrop import capi, cpu
from support import Place, sample

DTYPES = ("float32", "float64", "float16", "bfloat16")  # in the order of fastdrop.h
FUNCTIONS = ("fill_bits", "forward", "backward", "backward_from_output")
OK, BAD_DTYPE, BAD_SIZE, BAD_KEEP_PROB, BAD_OFFSET, BAD_POINTER = range(6)
REFERENCE_SIZE = 5000  # elements up to which the reference, which is slow, is asked as well


class CStream(ctypes.Structure):
    _fields_ = [("seed", ctypes.c_uint64 * 2), ("offset", ctypes.c_uint64)]


def function(name: str, *arguments: Any, result: Any = ctypes.c_int) -> Any:
    """Return a function of `fastdrop.capi` that is called through its pointer, as C code calls it."""
    capsule, api = capi.__pyx_capi__[name], ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    pointer = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(result, *arguments)(pointer)


POINTER, SIZE, DOUBLE, INT = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_double, ctypes.c_int
STREAM = ctypes.POINTER(CStream)
CALLS = {
    "fill_bits": function("fill_bits", POINTER, SIZE, DOUBLE, STREAM),
    "forward": function("forward", INT, INT, POINTER, POINTER, POINTER, SIZE, DOUBLE, DOUBLE, STREAM),
    "backward": function("backward", INT, POINTER, POINTER, POINTER, SIZE, DOUBLE),
    "backward_from_output": function("backward_from_output", INT, POINTER, POINTER, POINTER, SIZE, DOUBLE),
}


class Case(NamedTuple):
    function: str
    dtype: int
    size: int
    keep_prob: float
    mode: str
    seed: int
    offset: int
    relu: bool
    bits: bool  # whether `forward` is asked for them
    in_place: bool
    remainders: tuple[int, int]  # elements after a multiple of 64 bytes where input and result begin
    wrong: int  # the status to provoke
    values: int


def drawn(rng: random.Random) -> Case:
    sizes = (rng.randrange(300), rng.randrange(5000), 4096 * rng.randrange(1, 4) + rng.randrange(-2, 3),
             65536 + rng.randrange(-130, 9000))  # fmt: skip
    size = rng.choices(sizes, (6, 4, 2, 1))[0]
    edges = (0.0, 1.0, 0.5, 0.25, 2**-32, 1 - 2**-32, 2**-64, 2**-65, 1 - 2**-53, 5e-324)
    last = 2**64 - size  # the last offset that has room
    offsets = (0, rng.randrange(300), rng.randrange(2**64 - size), 2**32 - rng.randrange(size + 2), last)
    name = rng.choice(FUNCTIONS)
    wrong = {"fill_bits": (BAD_SIZE, BAD_KEEP_PROB, BAD_OFFSET, BAD_POINTER),
             "forward": (BAD_DTYPE, BAD_SIZE, BAD_KEEP_PROB, BAD_OFFSET, BAD_POINTER)}  # fmt: skip
    seeds = (rng.getrandbits(128), rng.getrandbits(3), 2**128 - 1)
    provoked = wrong.get(name, (BAD_DTYPE, BAD_SIZE, BAD_POINTER))
    return Case(
        function=name,
        dtype=rng.randrange(4),
        size=size,
        keep_prob=rng.choice((rng.random(), rng.choice(edges))),
        mode=rng.choice(("inverted", "vanilla")),
        seed=rng.choice(seeds),
        offset=min(max(rng.choice(offsets), 0), 2**64 - 1),
        relu=rng.random() < 0.5,
        bits=rng.random() < 0.7,
        in_place=rng.random() < 0.3,
        remainders=(rng.randrange(64), rng.randrange(64)),
        wrong=rng.choice(provoked) if rng.random() < 0.1 else OK,
        values=rng.getrandbits(32),
    )


class Outcome(NamedTuple):
    status: int
    y: bytes
    bits: bytes


def scale_of(case: Case) -> float:
    if case.mode == "vanilla" or case.keep_prob in (0, 1):
        return 1.0
    with np.errstate(over="ignore"):
        return float(np.float64(1) / case.keep_prob)


def inputs(case: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return elements, output elements of a forward call, and packed bits."""
    rng = np.random.default_rng(case.values)
    dtype = np.dtype(DTYPES[case.dtype]) if DTYPES[case.dtype] != "bfloat16" else np.dtype(ml_dtypes.bfloat16)
    x = sample(case.size, dtype, seed=case.values)
    y = np.where(rng.random(case.size) < 0.4, dtype.type(0), x)
    return x, y, rng.integers(0, 256, (case.size + 7) // 8, dtype=np.uint8)


def run(case: Case) -> Outcome:
    """Make the call on the active kernel, and raise an error if it has written where it may not."""
    x, y, saved = inputs(case)
    source, first, second = Place(x, case.remainders[0]), Place(y, 0), Place(saved, case.remainders[1])
    result = source if case.in_place else Place(np.full_like(x, 7), case.remainders[1])
    bits = Place(np.full(saved.size, 0x5A, np.uint8), case.remainders[0])
    places = (source, first, second, result, bits)
    before = [place.array.tobytes() for place in places]
    dtype = 4 + case.values % 9 if case.wrong == BAD_DTYPE else case.dtype
    size = -1 - case.values if case.wrong == BAD_SIZE else case.size
    keep_prob = (-0.1, 1.5, float("nan"))[case.values % 3] if case.wrong == BAD_KEEP_PROB else case.keep_prob
    offset = min(2**64 - size + 1, 2**64 - 1) if case.wrong == BAD_OFFSET else case.offset
    null = case.wrong == BAD_POINTER
    at = ctypes.byref(CStream((ctypes.c_uint64 * 2)(case.seed % 2**64, case.seed >> 64), offset))
    call, scale = CALLS[case.function], scale_of(case)
    wants_bits = case.bits or case.function == "fill_bits"
    if case.function == "fill_bits":
        status = call(None if null else bits.address, size, keep_prob, at)
    elif case.function == "forward":
        status = call(dtype, case.relu, None if null else source.address, result.address,
                      bits.address if case.bits else None, size, keep_prob, scale, at)  # fmt: skip
    else:
        kept = second if case.function == "backward" else first
        status = call(dtype, source.address, None if null else kept.address, result.address, size, scale)
    if not all(place.intact() for place in places):
        raise AssertionError("bytes beside the arrays have changed")
    may_change = {result} if case.function != "fill_bits" else set()
    may_change |= {bits} if wants_bits and case.function in ("fill_bits", "forward") else set()
    for place, content in zip(places, before, strict=True):
        if (status != OK or place not in may_change) and place.array.tobytes() != content:
            raise AssertionError("what is not a result has changed")
    return Outcome(status, result.array.tobytes(), bits.array.tobytes())


def has_reference(case: Case) -> bool:
    """Return whether the reference has this call. It takes the scale of a backward call from keep_prob."""
    backward_at_the_ends = case.function.startswith("backward") and case.keep_prob in (0, 1)
    return case.wrong == OK and case.size <= REFERENCE_SIZE and not backward_at_the_ends


def expected(case: Case) -> Outcome | None:
    """Return the outcome of the reference, or None if it does not have the call."""
    if not has_reference(case):
        return None
    x, y, saved = inputs(case)
    blank, unasked = np.full_like(x, 7), np.full(saved.size, 0x5A, np.uint8).tobytes()
    stream, reference = fd.Stream(case.seed, case.offset), fd.reference
    if case.function == "fill_bits":
        mask = reference.keep_mask(case.size, keep_prob=case.keep_prob, rng=stream)
        return Outcome(OK, (x if case.in_place else blank).tobytes(), mask.bits.tobytes())
    if case.function == "forward":
        call = reference.relu_dropout if case.relu else reference.dropout
        result, mask = call(x, keep_prob=case.keep_prob, mode=case.mode, rng=stream)
        return Outcome(OK, result.tobytes(), mask.bits.tobytes() if case.bits else unasked)
    if case.function == "backward":
        saved[-1:] &= 0xFF >> (-case.size % 8)  # a mask has no bits past its end; the pointers' may
        mask = fd.Mask(saved, (case.size,), keep_prob=case.keep_prob, mode=case.mode)
        return Outcome(OK, reference.relu_dropout_backward(x, mask).tobytes(), unasked)
    result = reference.relu_dropout_backward(x, y, keep_prob=case.keep_prob, mode=case.mode)
    return Outcome(OK, result.tobytes(), unasked)


def fault(case: Case, isas: Sequence[str]) -> str | None:
    """Return what is wrong with a case on one of the instruction sets, or None."""
    outcomes = {}
    for isa in dict.fromkeys((*isas, "generic")):
        cpu.activate(isa)
        if cpu.active() != isa:
            return f"{cpu.active()} runs where {isa} was activated"
        try:
            outcomes[isa] = run(case)
        except AssertionError as error:
            return f"{isa}: {error}"
    if outcomes["generic"].status != effective(case):
        return f"status {outcomes['generic'].status}, not {effective(case)}"
    if wanted := expected(case):
        outcomes["reference"] = wanted
    differing = [name for name, outcome in outcomes.items() if outcome != outcomes["generic"]]
    return f"{', '.join(differing)}: not what generic gives" if differing else None


def effective(case: Case) -> int:
    """Return the expected status. Empty arrays need no pointer, and one element always fits the stream."""
    harmless = {BAD_POINTER: case.size == 0, BAD_OFFSET: case.size <= 1}
    return OK if harmless.get(case.wrong) else case.wrong


def search(options: argparse.Namespace, current: Any) -> None:
    """Try case after case. This runs in a process of its own, which a fault may end."""
    faulthandler.enable()
    isas = (options.isa,) if options.isa else cpu.available()
    number = cases = elements = asked = 0
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        current.value = number = number if options.case is None else options.case
        case = drawn(random.Random(f"{options.seed} {number}"))
        whole = whole_calls.numbered(options.seed, number)
        for tried, found in ((case, fault(case, isas)), (whole, whole_calls.fault(whole, isas))):
            if found:
                print(f"--seed {options.seed} --case {number}: {found}\n{tried}", flush=True)
                if tried is whole:
                    smaller = whole_calls.shrunk(whole, isas)
                    print(f"smaller: {whole_calls.fault(smaller, isas)}\n{smaller}")
                sys.exit(1)
        number, cases, elements = number + 1, cases + 2, elements + case.size + whole.size
        asked += 1 + has_reference(case)
        if options.case is not None:
            break
    print(f"seed {options.seed}: {cases} cases, {elements} elements, on each of {', '.join(isas)}; "
          f"{asked} compared with the reference; nothing found")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--seed", type=int, default=None, help="another one at each run, unless it is given")
    parser.add_argument("--case", type=int, default=None, help="this case alone")
    parser.add_argument("--isa", choices=cpu.available(), help="this instruction set alone")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().getrandbits(32)
    context = multiprocessing.get_context("spawn")
    current = context.Value("q", 0)
    child = context.Process(target=search, args=(options, current))
    child.start()
    child.join()
    if child.exitcode < 0:
        print(f"--seed {options.seed} --case {current.value}: the process ended by signal {-child.exitcode}")
    return int(child.exitcode != 0)


if __name__ == "__main__":
    sys.exit(main())
