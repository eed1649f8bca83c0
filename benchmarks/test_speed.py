"""The suite: the time of every benchmark, and its ratios to the others in `extra_info`.

pytest-benchmark runs one competitor after the other, so its times are good for comparing runs on one
machine over the weeks. To compare competitors, use `extra_info`: all competitors of a group alternate
in one run there (see `fastdrop.commands.bench.timing`), and ratios are medians with quartiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pytest

from benchmarks import competitors, sizes
from fastdrop import cpu
from fastdrop.commands.bench import timing
from fastdrop.commands.bench.competitors import OPERATIONS, Case, Competitor, Fastdrop, Task, entered

OURS = tuple(competitors.ours())
BEST = OURS[0]
COPY = competitors.Copy()
EVERYBODY = (*OURS, *(COPY if competitor.name == COPY.name else competitor for competitor in competitors.others()))
ROUNDS = 25
OWN_ROUNDS = 5  # rounds of pytest-benchmark, after the comparison
CORES = range(1, timing.usable_cores() + 1)

own_sizes = pytest.mark.own_sizes


class Measure:
    """Benchmark one competitor of a group, and store its part of the comparison of the group."""

    def __init__(self, benchmark: Any, seconds: float, wanted: tuple[str, ...]) -> None:
        self.benchmark = benchmark
        self.seconds = seconds
        self.wanted = wanted

    def __call__(self, series: str, case: Case, competitor: Competitor, competitors: tuple[Competitor, ...]) -> None:
        if reason := reason_missing(competitor):
            pytest.skip(reason)
        if not competitor.offers(case):
            pytest.skip(f"{competitor.name} is for larger arrays")
        competitors = tuple(competitor for competitor in competitors if competitor.name.startswith(self.wanted))
        comparison = compared(case, competitors, self.seconds)
        what = f"{case.operation} {sizes.label(case.size)} {case.dtype} keep_prob={case.keep_prob:.6g}"
        self.benchmark.group = f"{series}: {what}"
        self.benchmark.extra_info |= asdict(case) | {
            "series": series,
            "contender": competitor.name,
            "isa": getattr(competitor, "isa", None),
            "threads": getattr(competitor, "threads", 1),
            "rounds": len(comparison.seconds),
            "ns_an_element": asdict(comparison.time(competitor.name) * (1e9 / case.size)),
            "ratios": {other: asdict(comparison.ratio(competitor.name, other)) for other in comparison.names},
        }
        trial = entered([competitor], task_of(case))[competitor.name]
        count = timing.calls_per_sample(trial)
        self.benchmark.pedantic(trial.call, rounds=OWN_ROUNDS, iterations=count)


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Measure:
    options = request.config.getoption
    return Measure(benchmark, options("comparison_seconds"), options("competitors"))


@cache
def reason_missing(competitor: Competitor) -> str:
    return competitor.missing()


@lru_cache(maxsize=1)
def task_of(case: Case) -> Task:
    return Task(case)


@cache
def compared(case: Case, competitors: tuple[Competitor, ...], seconds: float) -> timing.Comparison:
    there = [competitor for competitor in competitors if not reason_missing(competitor)]
    return timing.alternate(entered(there, task_of(case)), rounds=ROUNDS, seconds=seconds)


def by_name(competitors: tuple[Competitor, ...]) -> Callable[..., Any]:
    return pytest.mark.parametrize("competitor", competitors, ids=lambda competitor: competitor.name)


# --- all competitors at all sizes -------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "competitor"),
    [
        pytest.param(operation, competitor, id=f"{operation}-{competitor.name}")
        for operation in OPERATIONS
        for competitor in EVERYBODY
        if competitor.offers(Case(operation, max(sizes.ALL)))
    ],
)
def test_beside_everybody(measure: Measure, operation: str, size: int, competitor: Competitor) -> None:
    measure("peers", Case(operation, size), competitor, EVERYBODY)


# --- what the time depends on -----------------------------------------------------------------


@own_sizes
@by_name((*OURS, COPY))
@pytest.mark.parametrize("size", [2**14, 2**18, 2**24], ids=sizes.label)
@pytest.mark.parametrize("operation", ["forward", "backward", "predict"])
def test_float64(measure: Measure, operation: str, size: int, competitor: Competitor) -> None:
    measure("float64", Case(operation, size, "float64"), competitor, (*OURS, COPY))


@own_sizes
@by_name((*OURS, COPY))
@pytest.mark.parametrize("keep_prob", [0.5, 0.75, 0.8, 0.9, 0.99, 0.999, 1 - 2**-20])
@pytest.mark.parametrize("operation", ["forward", "mask"])
def test_keep_prob(measure: Measure, operation: str, keep_prob: float, competitor: Competitor) -> None:
    measure("keep_prob", Case(operation, 2**18, keep_prob=keep_prob), competitor, (*OURS, COPY))


@own_sizes
@by_name(OURS)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 53])
def test_undecided_bits(measure: Measure, bits: int, competitor: Competitor) -> None:
    """Time thresholds near 0.9 whose last 1 is bit number `bits`, because a tie can last that long."""
    keep_prob = (int(0.9 * 2**bits) | 1) / 2**bits
    measure.benchmark.extra_info["bits"] = bits
    measure("undecided bits", Case("mask", 2**18, keep_prob=keep_prob), competitor, OURS)


VARIANTS = {
    "out, mask": Fastdrop(BEST.isa),
    "out, no mask": Fastdrop(BEST.isa, mask=False),
    "fresh, mask": Fastdrop(BEST.isa, out=False),
    "fresh, no mask": Fastdrop(BEST.isa, out=False, mask=False),
}
for name, variant in VARIANTS.items():
    variant.name = f"fastdrop, {name}"


@by_name((*VARIANTS.values(), COPY))
def test_results(measure: Measure, size: int, competitor: Competitor) -> None:
    measure("results", Case(size=size), competitor, (*VARIANTS.values(), COPY))


TEAMS: tuple[Competitor, ...] = tuple(
    team for threads in CORES for team in (Fastdrop(BEST.isa, threads), competitors.CopyInThreads(threads))
)
for team in TEAMS:
    if isinstance(team, Fastdrop):
        team.name = f"fastdrop, {team.threads} threads"


@own_sizes
@by_name(TEAMS)
@pytest.mark.parametrize("size", [2**16, 2**18, 2**20, 2**24], ids=sizes.label)
def test_threads(measure: Measure, size: int, competitor: Competitor) -> None:
    measure("threads", Case(size=size), competitor, TEAMS)


# --- a check that the named kernel runs -------------------------------------------------------


@own_sizes
@by_name(OURS)
def test_the_named_kernel_runs(benchmark: Any, competitor: Fastdrop) -> None:
    trial = entered([competitor], Task(Case(size=2**10)))[competitor.name]
    trial.enter()
    y, mask = benchmark(trial.call)
    assert cpu.active() == competitor.isa
    assert np.array_equal(mask.to_array(), y != 0)
