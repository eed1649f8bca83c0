"""The targets: how fast each call should be compared with a copy and with others, and how fast it is.

    python -m benchmarks.targets [--json FILE] [--markdown FILE] [--quick]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

import fastdrop as fd
from benchmarks import competitors, report, sizes
from fastdrop import cpu
from fastdrop.commands import show_table
from fastdrop.commands.bench import timing
from fastdrop.commands.bench.competitors import Case, Competitor, Fastdrop, Task, present
from fastdrop.progress import progress

INFINITE = float("inf")  # where a target is for large arrays alone
SMALL, LARGE = (2**14, 2**18), 2**24  # these fit in the caches; this is larger than most last-level caches
COPY, MAXIMUM = competitors.Copy(), competitors.Maximum()
VECTOR = tuple(isa for isa in cpu.KERNELS if isa != "generic")
AVX2 = ("avx2_vaes", "avx2")


@dataclass(frozen=True)
class Target:
    """An upper limit for the time relative to that of `beside`, or a lower limit for the inverse."""

    what: str
    operation: str
    keep_prob: float
    beside: Competitor
    small: float
    large: float
    faster: bool = False  # whether the limit is how many times faster the call is
    isas: tuple[str, ...] = VECTOR


PROMISES = (
    Target("forward", "forward", 0.9, COPY, 1.5, 0.9, isas=("avx512",)),
    Target("forward", "forward", 0.9, COPY, 1.9, 1.0, isas=("avx2_vaes",)),
    Target("forward", "forward", 0.9, COPY, 2.5, 1.0, isas=("avx2",)),
    Target("forward, keep_prob 0.5", "forward", 0.5, COPY, 1.05, 0.8, isas=("avx512",)),
    Target("forward, keep_prob 0.5", "forward", 0.5, COPY, 1.3, 0.8, isas=AVX2),
    Target("backward", "backward", 0.9, COPY, 1.1, 0.9),
    Target("predict", "predict", 0.9, COPY, 1.0, 0.9),
    Target("forward", "forward", 0.9, MAXIMUM, 2.5, 1.0, faster=True),
)
PAST_CACHE = (Target("forward past the cache", "forward", 0.9, competitors.CopyPastCache(), INFINITE, 1.1),)
BEST = cpu.available()[:1]
RIVALS = (
    Target("forward", "forward", 0.9, competitors.TextbookNumpy(), 40, 30, faster=True, isas=BEST),
    Target("forward", "forward", 0.9, competitors.BestNumpy(), 18, 10, faster=True, isas=BEST),
    Target("forward", "forward", 0.9, competitors.TorchEager(), 45, 35, faster=True, isas=BEST),
    Target("forward", "forward", 0.9, competitors.TextbookNumpy(), 2, 2, faster=True, isas=("generic",)),
    *(
        Target("without AES", operation, 0.9, competitors.BestNumpy(), 1.25, 1.25, faster=True, isas=("generic",))
        for operation in ("forward", "backward", "mask")
    ),
)
ROW = 256  # elements: 1 KiB, the shortest rows that targets are for


class Relation(NamedTuple):
    """An upper limit for the time of one call relative to another, on arrays of any size."""

    what: str
    lengths: tuple[int, ...]
    limit: float
    call: Callable[[Arrays], Callable[[], Any]]
    beside: Callable[[Arrays], Callable[[], Any]]


class Arrays:
    """The arrays of a relation: rows of ROW elements, contiguous and with gaps, and what goes with them."""

    def __init__(self, size: int) -> None:
        random = np.random.default_rng(0)
        wide = random.standard_normal((max(size // ROW, 1), ROW + ROW // 4), np.float32)
        self.gaps = wide[:, : min(ROW, size)]
        self.x, self.dy = self.gaps.copy(), random.standard_normal(self.gaps.shape, np.float32)
        self.y, self.gaps_y = np.zeros_like(self.x), np.zeros_like(wide)[:, : self.x.shape[1]]
        self.bias, self.stream = self.dy[0].copy(), fd.Stream(1)
        self.mask = fd.keep_mask(self.x.shape, keep_prob=0.9, rng=1)
        side = int(size**0.5)
        self.transposed = self.x.ravel()[: side * side].reshape(side, side).T
        self.square = np.zeros((side, side), np.float32)

    def dropout(self, x: NDArray[Any], out: NDArray[Any]) -> Callable[[], Any]:
        stream = self.stream
        return lambda: fd.relu_dropout(x, keep_prob=0.9, rng=stream, out=out, return_mask=False)

    def backward(self, dy: NDArray[Any], out: NDArray[Any]) -> Callable[[], Any]:
        mask = self.mask
        return lambda: fd.relu_dropout_backward(dy, mask, out=out)

    def maximum(self) -> Callable[[], Any]:
        x, y = self.x, self.y
        return lambda: np.maximum(x, 0, out=y)


IN_CACHE = (2**14, 2**18)
RELATIONS = (
    Relation("64 elements / np.maximum", (64,), 1.0,
             lambda a: a.dropout(a.x, a.y), lambda a: a.maximum()),
    Relation("backward, 64 elements / np.maximum", (64,), 0.7,
             lambda a: a.backward(a.dy, a.y), lambda a: a.maximum()),
    Relation("with / without a bias", IN_CACHE, 1.25,
             lambda a: lambda: fd.relu_dropout(
                 a.x, keep_prob=0.9, rng=a.stream, bias=a.bias, out=a.y, return_mask=False),
             lambda a: a.dropout(a.x, a.y)),
    Relation("with / without a residual", IN_CACHE, 1.3,
             lambda a: lambda: fd.dropout_add(a.x, a.dy, keep_prob=0.9, rng=a.stream, out=a.y, return_mask=False),
             lambda a: lambda: fd.dropout(a.x, keep_prob=0.9, rng=a.stream, out=a.y, return_mask=False)),
    Relation("with / without bias_grad", IN_CACHE, 1.6,
             lambda a: lambda: fd.relu_dropout_backward(a.dy, a.mask, bias_grad=True, out=a.y),
             lambda a: a.backward(a.dy, a.y)),
    Relation("rows with / without gaps", IN_CACHE, 1.15,
             lambda a: a.dropout(a.gaps, a.gaps_y), lambda a: a.dropout(a.x, a.y)),
    Relation("transposed / np.copyto of it", (2**18, 2**24), 1.3,
             lambda a: a.dropout(a.transposed, a.square), lambda a: lambda: np.copyto(a.square, a.transposed)),
)  # fmt: skip
OVERHEAD = {"forward": 1.5e-6, "backward": 1.0e-6}  # seconds per call on 64 elements
WHY = {  # what keeps a call from its target; docs/benchmarks.md has what was tried
    "forward": "in a cache AES takes longer than a copy",
    "forward, keep_prob 0.5": "in a cache a computed store takes longer than that of a copy",
    "backward": "in a cache a computed store takes longer than that of a copy",
    "predict": "in a cache a computed store takes longer than that of a copy",
    "forward past the cache": "AES and arithmetic take as long as the memory does",
    "without AES": "the circuit for AES, and little work where nothing is drawn",
    "64 elements / np.maximum": "arguments are checked, and a mask or a stream is looked after",
    "backward, 64 elements / np.maximum": "arguments are checked, and a mask or a stream is looked after",
    "with / without a bias": "one more load and sum per step",
    "with / without a residual": "one more array is read",
    "with / without bias_grad": "converting to float64 takes longer than a backward pass; room for the sums",
    "rows with / without gaps": "each row begins and ends with a part of a step",
    "transposed / np.copyto of it": "squares of elements are turned in registers, on both sides",
    "two threads": "the threads share the memory, have to start, and wait for a processor where others are busy",
}
FEW, SHORT = "; the fixed cost of a call", 2**14  # in a call on at most so many elements
MANY = "the memory bounds the call, and its speed differs between runs"


def why(verdict: Verdict) -> str:
    """Return what keeps a call on so many elements from its target."""
    size = sizes.parse(verdict.elements)
    if size >= LARGE and verdict.what not in ("forward past the cache", "two threads"):
        return MANY
    return WHY[verdict.what] + (FEW if size <= SHORT else "")


TWO_THREADS = 1.85  # times as fast as one thread, at 1 Mi elements


@dataclass(frozen=True)
class Verdict:
    """One row of the table."""

    what: str
    isa: str
    dtype: str
    elements: str
    target: str
    measured: timing.Spread
    met: bool

    def cells(self) -> list[str]:
        verdict = "met" if self.met else f"**missed**: {why(self)}"
        return [self.what, self.isa, self.dtype, self.elements, self.target, str(self.measured), verdict]


COLUMNS = ["what", "kernel", "dtype", "elements", "target", "measured (quartiles)", ""]


def main(arguments: list[str] | None = None) -> int:
    """Measure every target, and print those that are missed. Return 0 all the same: this is a report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the verdicts to this file")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table to this file")
    parser.add_argument("--quick", action="store_true",
                        help="try it out: few rounds, and no array above 16 Ki but for two threads")  # fmt: skip
    chosen = parser.parse_args(arguments)
    environment = timing.machine("torch")
    with progress("targets", 2 * len(cpu.available()) + 4) as tick:
        verdicts = []
        for verdict in measured(quick=chosen.quick):
            if verdict:
                verdicts.append(verdict)
            else:
                tick()
    text = markdown(verdicts, environment)
    short = [[*verdict.cells()[:-1], why(verdict)] for verdict in verdicts if not verdict.met]
    show_table(f"Missed: {len(short)} of {len(verdicts)} targets", [*COLUMNS[:-1], "why"], short)
    print("\n" + as_line(environment))
    if chosen.markdown:
        chosen.markdown.write_text(text)
    if chosen.json:
        record = {"machine": environment, "verdicts": [asdict(verdict) for verdict in verdicts]}
        chosen.json.write_text(json.dumps(record, indent=1))
    return 0


def measured(quick: bool) -> Iterator[Verdict | None]:
    """Yield the verdicts, and None after each part of the work."""
    rounds = 5 if quick else 41
    lengths = SMALL[:1] if quick else (*SMALL, LARGE)
    for dtype in ("float32", "float64"):
        promises = PROMISES if dtype == "float32" else tuple(p for p in PROMISES if p.beside is COPY)
        for isa in cpu.available():
            yield from verdicts_of(promises, (isa,), dtype, lengths, rounds)
            yield None
    yield from verdicts_of(RIVALS, cpu.available(), "float32", lengths, 5 if quick else 15)
    yield None
    if LARGE in lengths:
        yield from verdicts_of(PAST_CACHE, cpu.available(), "float32", (LARGE,), rounds)
    for isa in cpu.available():
        yield from relations(isa, lengths, rounds)
    yield None
    yield from overheads(rounds)
    yield None
    if timing.usable_cores() > 1:
        yield from two_threads(quick, rounds)
    yield None


def verdicts_of(
    targets: tuple[Target, ...], isas: tuple[str, ...], dtype: str, lengths: tuple[int, ...], rounds: int
) -> Iterator[Verdict]:
    """Measure every target on `isas` at each length. Everything they name alternates in one run."""
    pairs = [(target, isa) for target in targets for isa in isas if isa in target.isas]
    there, _ = present([target.beside for target, _ in pairs])
    pairs = [(target, isa) for target, isa in pairs if target.beside in there]
    if not pairs:
        return
    for size in lengths:
        task = Task(Case("forward", size, dtype, 0.9))
        trials = {target.beside.name: ready(target.beside, task) for target, _ in pairs}
        for target, isa in pairs:
            case = Case(target.operation, size, dtype, target.keep_prob)
            trials[key(isa, case)] = ready(Fastdrop(isa), Task(case, like=task))
        comparison = timing.alternate(trials, rounds=rounds)
        for target, isa in pairs:
            name = key(isa, Case(target.operation, size, dtype, target.keep_prob))
            yield verdict(target, isa, dtype, size, comparison, name)


def key(isa: str, case: Case) -> str:
    return f"{isa} {case.operation} {case.keep_prob}"


def ready(competitor: Competitor, task: Task) -> timing.Trial:
    competitor.enter()
    return competitor.trial(task)


def verdict(
    target: Target, isa: str, dtype: str, size: int, comparison: timing.Comparison, name: str
) -> Verdict:
    limit = target.large if size == LARGE else target.small
    if target.faster:
        ratio = comparison.ratio(target.beside.name, name)
        met, text = ratio.median >= limit, f">= {limit:g} x faster than {target.beside.name}"
    else:
        ratio = comparison.ratio(name, target.beside.name)
        met, text = ratio.median <= limit, f"<= {limit:g} x {target.beside.name}"
    return Verdict(target.what, isa, dtype, sizes.label(size), text, ratio, met)


def relations(isa: str, lengths: tuple[int, ...], rounds: int) -> Iterator[Verdict]:
    """Measure one of our calls beside another, or beside NumPy's, on the same arrays and one thread."""
    enter = Fastdrop(isa).enter
    for relation in RELATIONS:
        for size in relation.lengths:
            if size <= max(lengths):
                arrays = Arrays(size)
                calls = {"": relation.call(arrays), "beside": relation.beside(arrays)}
                trials = {name: timing.Trial(call, enter) for name, call in calls.items()}
                ratio = timing.alternate(trials, rounds=rounds).ratio("", "beside")
                met, text = ratio.median <= relation.limit, f"<= {relation.limit:g} x"
                yield Verdict(relation.what, isa, "float32", sizes.label(size), text, ratio, met)


def overheads(rounds: int) -> Iterator[Verdict]:
    """Measure whole calls on 64 elements, with `out=` and a Stream."""
    for operation, limit in OVERHEAD.items():
        case = Case(operation, 64)
        for isa in cpu.available():
            time = timing.alternate({"": ready(Fastdrop(isa), Task(case))}, rounds=rounds).time("")
            text = f"<= {limit * 1e6:g} us per call"
            yield Verdict(operation, isa, "float32", "64", text, time * 1e6, time.median <= limit)


def two_threads(quick: bool, rounds: int) -> Iterator[Verdict]:
    """Measure the gain from a second core, and the gain of a copy."""
    isa = cpu.available()[0]
    ours, copies = [Fastdrop(isa, 1), Fastdrop(isa, 2)], [competitors.CopyInThreads(1), competitors.CopyInThreads(2)]
    teams: list[Competitor] = [*ours, *copies]
    for size in (2**20,) if quick else (2**20, LARGE):
        names = ["one", "two", "copy one", "copy two"]
        task = Task(Case(size=size))
        trials = {name: ready(competitor, task) for name, competitor in zip(names, teams)}
        comparison = timing.alternate(trials, rounds=rounds)
        gain = comparison.ratio("one", "two")
        copy = comparison.ratio("copy one", "copy two").median
        limit = TWO_THREADS if size < LARGE else copy
        text = f">= {limit:.3g} x one thread" + ("" if size < LARGE else " (as a copy gains)")
        yield Verdict("two threads", isa, "float32", sizes.label(size), text, gain, gain.median >= limit)


def markdown(verdicts: list[Verdict], environment: dict[str, str]) -> str:
    table = report.markdown([COLUMNS, *(verdict.cells() for verdict in verdicts)], "---")
    met = sum(verdict.met for verdict in verdicts)
    return (
        f"{as_line(environment)}\n\n`python -m benchmarks.targets` made this table: "
        f"{met} of {len(verdicts)} targets are met.\n\n{table}\n"
    )


def as_line(environment: dict[str, Any]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in environment.items())


if __name__ == "__main__":
    sys.exit(main())
