"""``check``: compare every kernel that this machine can run with the NumPy reference.

A case is a call with random arguments. It depends only on the seed and the number of the case (and on
whether bfloat16 is installed). So these two reproduce a difference, whatever came before it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastdrop
from fastdrop import cpu, reference, threads
from fastdrop.checks import DTYPES, LEAST_NOISE_PROBABILITY
from fastdrop.commands import DONE, FAILED, add_json_argument, at_least, show_json, show_table
from fastdrop.formulas import MODES, POSITIONS, MaskMode, Mode, decided_shape
from fastdrop.mask import Mask
from fastdrop.noise import drawn_noise
from fastdrop.progress import progress
from fastdrop.stream import Stream, Tile

KEEP_PROBS = (0.0, 2.0**-60, 2.0**-11, 0.1, 0.25, 0.5, 0.75, 0.9, 1 - 2.0**-53, 1.0)
OFFSETS = (0, 1, 31, 127, 128, 2**32 - 5, 2**63 + 3)
SPECIALS = (np.nan, np.inf, -np.inf, 0.0, -0.0, 5e-324, -5e-324, 1e-45, -1e-45)
SIZES = (300, 300, 5_000, 70_000)  # the largest size of a case; small ones test the ends of arrays
LAYOUTS = ("contiguous", "misaligned", "strided", "reversed", "transposed", "swapped", "in place")
SHARED: tuple[tuple[int, ...], ...] = ((), (), (0,), (1,), (0, 1))  # axes that share one decision
TILE_ORIGIN = (2, 5)  # of the array of a case, if it is a part of a larger one
SHOWN = 10  # the number of differences that are printed


@dataclass(frozen=True)
class Case:
    """The arguments of one call, without its data."""

    number: int
    call: str
    dtype: np.dtype[Any]
    shape: tuple[int, int]
    layout: str
    keep_prob: float
    mode: Mode
    bias: bool  # whether there is a bias or, in a backward call, whether its gradient is requested
    shared: tuple[int, ...]
    tiled: bool
    seed: int
    offset: int
    threads: int

    def rng(self) -> Stream | Tile:
        """Return a stream, or a tile of it, for which the array is the last part of a larger one."""
        if not self.tiled:
            return Stream(self.seed, self.offset)
        rows, columns = (length + start for length, start in zip(self.shape, TILE_ORIGIN))
        stream = Stream(self.seed, min(self.offset, POSITIONS - rows * columns))
        return stream.tile((rows, columns), TILE_ORIGIN)

    def other(self, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return another input. It is finite, because the CPU decides which of two NaNs a sum keeps."""
        return np.random.default_rng(self.seed).standard_normal(shape).astype(self.dtype)

    def adds(self) -> dict[str, Any]:
        """Return the bias as a keyword, if there is one."""
        return {"bias": self.other(self.shape[-1:])} if self.bias else {}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=at_least(1), default=3000, metavar="N",
                        help="number of random cases to compare (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=at_least(0), metavar="SEED",
                        help="seed of the cases (default: a random one, which is printed)")  # fmt: skip
    parser.add_argument("--first", type=at_least(0), default=0, metavar="NUMBER",
                        help="number of the first case (default: %(default)s)")  # fmt: skip
    parser.add_argument("--isa", choices=cpu.available(), action="append",
                        help="compare this kernel; may be repeated (default: all of them)")  # fmt: skip
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    seed = secrets.randbits(32) if arguments.seed is None else arguments.seed
    kernels = tuple(dict.fromkeys(arguments.isa or cpu.available()))
    if not arguments.json:
        print(f"seed {seed}, {arguments.cases:,} cases, kernels {', '.join(kernels)}", flush=True)
    comparison = compare(seed, range(arguments.first, arguments.first + arguments.cases), kernels)
    (print_json if arguments.json else print_tables)(comparison, seed, kernels)
    return FAILED if comparison.differences else DONE


class Comparison:
    """What has been compared so far: cases and elements of each call, and the cases that differ."""

    def __init__(self) -> None:
        self.cases: Counter[tuple[str, str]] = Counter()  # by call and dtype
        self.elements: Counter[tuple[str, str]] = Counter()
        self.differences: list[tuple[Case, str]] = []  # the case and the kernel

    def differing(self, call: str, dtype: str, kernel: str) -> int:
        return sum(
            (case.call, case.dtype.name, ran) == (call, dtype, kernel) for case, ran in self.differences
        )


def compare(seed: int, numbers: range, kernels: tuple[str, ...]) -> Comparison:
    """Run each case with the reference and with each kernel, then restore the kernel that was in use."""
    comparison, active, thread_count = Comparison(), cpu.active(), threads.get_num_threads()
    try:
        with progress("comparing", len(numbers)) as advance:
            for number in numbers:
                case, data = random_case(seed, number, thread_count)
                compare_case(case, data, kernels, comparison)
                advance()
    finally:
        cpu.activate(active)
        threads.set_num_threads(thread_count)
    return comparison


def compare_case(
    case: Case, data: NDArray[Any], kernels: tuple[str, ...], comparison: Comparison
) -> None:
    expected = outcome(CALLS[case.call](reference, case, laid_out(data, case.layout)))
    key = case.call, case.dtype.name
    comparison.cases[key] += 1
    comparison.elements[key] += data.size
    threads.set_num_threads(case.threads)
    for kernel in kernels:
        cpu.activate(kernel)
        if outcome(CALLS[case.call](fastdrop, case, laid_out(data, case.layout))) != expected:
            comparison.differences.append((case, kernel))


# --- cases ------------------------------------------------------------------------------------


def random_case(seed: int, number: int, thread_count: int) -> tuple[Case, NDArray[Any]]:
    """Return case `number` of `seed`, and its data."""
    rng = np.random.default_rng((seed, number))
    size = int(rng.integers(0, rng.choice(SIZES), endpoint=True))
    columns = int(rng.integers(1, 40))
    narrow = bool(rng.integers(2))
    dtypes = known_dtypes()
    case = Case(
        number=number,
        call=str(rng.choice(list(CALLS))),
        dtype=dtypes[rng.integers(len(dtypes))],
        shape=(size // columns, columns) if narrow else (columns, size // columns),
        layout=str(rng.choice(LAYOUTS)),
        keep_prob=random_keep_prob(rng),
        mode=MODES[rng.integers(len(MODES))],
        bias=bool(rng.integers(2)),
        shared=SHARED[rng.integers(len(SHARED))],
        tiled=not narrow and bool(rng.integers(2)),  # the reference is slow for many rows
        seed=int.from_bytes(rng.bytes(16), "little"),
        offset=random_offset(rng, size),
        threads=int(rng.integers(1, thread_count, endpoint=True)),
    )
    data = rng.standard_normal(case.shape).astype(case.dtype)
    with np.errstate(over="ignore", under="ignore"):
        specials = np.array(SPECIALS).astype(case.dtype)
    np.copyto(data, rng.choice(specials, case.shape), where=rng.random(case.shape) < 0.1)
    return case, data


@cache
def known_dtypes() -> tuple[np.dtype[Any], ...]:
    """Return the dtypes that the calls accept here. bfloat16 needs ml_dtypes."""
    try:
        import ml_dtypes
    except ModuleNotFoundError:
        return DTYPES
    return (*DTYPES, np.dtype(ml_dtypes.bfloat16))


def random_keep_prob(rng: np.random.Generator) -> float:
    """Return an extreme one, one with few bits, or any."""
    return float(rng.choice([rng.choice(KEEP_PROBS), rng.integers(257) / 256, rng.random()]))


def random_offset(rng: np.random.Generator, size: int) -> int:
    """Return an extreme one, the last possible, or any."""
    anywhere = int(rng.integers(2**63))
    return (*OFFSETS, POSITIONS - size, anywhere)[rng.integers(len(OFFSETS) + 2)]


def laid_out(data: NDArray[Any], layout: str) -> NDArray[Any]:
    """Return a new array with the values of `data` that lies in memory as `layout` says."""
    rows, columns = data.shape
    if layout == "misaligned":
        buffer = np.empty(data.nbytes + 1, np.uint8)
        array = buffer[1:].view(data.dtype).reshape(data.shape)
    elif layout == "strided":
        array = np.empty((2 * rows, 3 * columns), data.dtype)[::2, ::3]
    elif layout == "reversed":
        array = np.empty_like(data)[::-1, ::-1]
    elif layout == "transposed":
        array = np.empty((columns, rows), data.dtype).T
    elif layout == "swapped":
        array = np.empty(data.shape, data.dtype.newbyteorder())
    else:
        array = np.empty_like(data)
    array[...] = data
    return array


# --- calls: `calls` is the reference or the compiled package ------------------------------------


Call = Callable[[Any, Case, NDArray[Any]], tuple[Any, ...]]


def forward(name: str) -> Call:
    def call(calls: Any, case: Case, x: NDArray[Any]) -> tuple[Any, ...]:
        options: dict[str, Any] = {} if name == "alpha_dropout" else {"mode": case.mode, **case.adds()}
        residual = [case.other(x.shape)] if name == "dropout_add" else []
        rng = case.rng()
        y, mask = getattr(calls, name)(
            x, *residual, keep_prob=case.keep_prob, broadcast_dims=case.shared, rng=rng, out=result(case, x),
            **options,
        )  # fmt: skip
        return y, mask, rng.offset

    return call


def backward(name: str) -> Call:
    def call(calls: Any, case: Case, dy: NDArray[Any]) -> tuple[Any, ...]:
        alpha, relu = name.startswith("alpha"), name.startswith("relu")
        mode: MaskMode = "alpha" if alpha else case.mode
        mask = any_mask(dy.shape if relu else decided_shape(dy.shape, case.shared), case, mode)
        options = {} if alpha else {"bias_grad": case.bias}
        gradients = getattr(calls, name)(dy, mask, out=result(case, dy), **options)
        return one_nan(*gradients) if options.get("bias_grad") else (gradients,)

    return call


def any_mask(shape: tuple[int, ...], case: Case, mode: MaskMode) -> Mask:
    """Return a mask whose bits are not those that the call itself would draw."""
    flags = np.random.default_rng(case.seed).random(shape) < 0.5
    return Mask.from_array(flags, keep_prob=case.keep_prob, mode=mode)


def backward_from_output(calls: Any, case: Case, dy: NDArray[Any]) -> tuple[Any, ...]:
    saved = np.roll(dy, 7)  # an output: a third of it is zeros, and the special values are in other places
    saved.reshape(-1)[::3] = 0
    gradients = calls.relu_dropout_backward(
        dy, saved, keep_prob=case.keep_prob, mode=case.mode, bias_grad=case.bias, out=result(case, dy)
    )
    return one_nan(*gradients) if case.bias else (gradients,)


def one_nan(dx: NDArray[Any], dbias: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Make all NaNs of the sums the same, because the CPU decides which of two NaNs a sum keeps."""
    dbias[np.isnan(dbias)] = np.nan
    return dx, dbias


def predict(name: str) -> Call:
    def call(calls: Any, case: Case, x: NDArray[Any]) -> tuple[Any, ...]:
        residual = [case.other(x.shape)] if name == "dropout_add_predict" else []
        y = getattr(calls, name)(
            x, *residual, keep_prob=case.keep_prob, mode=case.mode, out=result(case, x), **case.adds()
        )
        return (y,)

    return call


def gaussian(calls: Any, case: Case, x: NDArray[Any]) -> tuple[Any, ...]:
    rng = case.rng()
    y, noise = calls.gaussian_dropout(x, keep_prob=noisy(case), rng=rng, out=result(case, x))
    return y, noise, rng.offset


def gaussian_backward(calls: Any, case: Case, dy: NDArray[Any]) -> tuple[Any, ...]:
    noise = drawn_noise(case.rng(), dy.shape, noisy(case))
    return (calls.gaussian_dropout_backward(dy, noise, out=result(case, dy)),)


def noisy(case: Case) -> float:
    """Return the keep probability of the case, or the nearest that Gaussian noise allows."""
    return max(case.keep_prob, LEAST_NOISE_PROBABILITY)


def mask_alone(calls: Any, case: Case, x: NDArray[Any]) -> tuple[Any, ...]:
    rng = case.rng()
    return calls.keep_mask(x.shape, keep_prob=case.keep_prob, broadcast_dims=case.shared, rng=rng), rng.offset


CALLS: dict[str, Call] = {
    **{name: forward(name) for name in ("relu_dropout", "dropout", "dropout_add", "alpha_dropout")},
    **{f"{name}_backward": backward(f"{name}_backward")
       for name in ("relu_dropout", "dropout", "dropout_add", "alpha_dropout")},
    "relu_dropout_backward from y": backward_from_output,
    **{f"{name}_predict": predict(f"{name}_predict") for name in ("relu_dropout", "dropout", "dropout_add")},
    "gaussian_dropout": gaussian,
    "gaussian_dropout_backward": gaussian_backward,
    "keep_mask": mask_alone,
}  # fmt: skip


def result(case: Case, x: NDArray[Any]) -> NDArray[Any] | None:
    return x if case.layout == "in place" else None


def outcome(returned: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the results of a call as values that are equal only if every bit is equal."""
    return tuple(
        (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for value in returned
    )


# --- what is printed --------------------------------------------------------------------------


def print_tables(comparison: Comparison, seed: int, kernels: tuple[str, ...]) -> None:
    rows = []
    for (call, dtype), cases in sorted(comparison.cases.items()):
        found = [comparison.differing(call, dtype, kernel) for kernel in kernels]
        verdicts = [f"{count} differ" if count else "equal" for count in found]
        rows.append((call, dtype, cases, f"{comparison.elements[call, dtype]:,}", *verdicts))
    columns = ("call", "dtype", "cases", "elements", *kernels)
    show_table("Kernels compared with the reference, bit for bit", columns, rows)
    for case, kernel in comparison.differences[:SHOWN]:
        print(f"\n{kernel} differs from the reference: {case}\nreproduce: {reproduction(seed, case, kernel)}",
              file=sys.stderr)  # fmt: skip
    if comparison.differences:
        print(f"\n{len(comparison.differences):,} differences (seed {seed})", file=sys.stderr)
    else:
        print(f"all {sum(comparison.cases.values()):,} cases are equal (seed {seed})")


def reproduction(seed: int, case: Case, kernel: str) -> str:
    """Return the command that runs one case again. A case draws its number of threads from those in use."""
    return (
        f"FASTDROP_NUM_THREADS={threads.get_num_threads()} python -m fastdrop check "
        f"--seed {seed} --first {case.number} --cases 1 --isa {kernel}"
    )


def print_json(comparison: Comparison, seed: int, kernels: tuple[str, ...]) -> None:
    show_json(
        {
            "seed": seed,
            "kernels": kernels,
            "compared": [
                {"call": call, "dtype": dtype, "cases": cases, "elements": comparison.elements[call, dtype]}
                for (call, dtype), cases in sorted(comparison.cases.items())
            ],
            "differences": [
                {"case": case.number, "kernel": kernel, "reproduce": reproduction(seed, case, kernel)}
                for case, kernel in comparison.differences
            ],
        }
    )
