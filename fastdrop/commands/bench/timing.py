"""Time calls side by side. They alternate within one run, so that a ratio sees one state of the machine.

If a machine changes its clock or has other work, absolute times change more than with most
optimisations. Here every round times each competitor once, in a new random order. A ratio is taken
within a round, and is reported as the median over rounds with the quartiles.
"""

from __future__ import annotations

import gc
import os
import platform
import random
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import repeat
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdrop import __version__, cpu

SAMPLE = 2e-3  # seconds of calls in one timed sample: a thousand ticks of a coarse clock
SECONDS: Callable[[], float] = perf_counter  # or process_time, on a machine with other work
LEAST_ROUNDS = 5  # fewer rounds do not give useful quartiles
QUICK_SAMPLES = 3


def nothing() -> None:
    """Do nothing, which is what most competitors need before their calls."""


class Trial(NamedTuple):
    """A call to be timed, and what has to be done before it without being timed."""

    call: Callable[[], Any]
    enter: Callable[[], None] = nothing


@dataclass(frozen=True)
class Spread:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: NDArray[np.float64]) -> Spread:
        low, median, high = np.quantile(samples, [0.25, 0.5, 0.75])
        return cls(float(median), float(low), float(high))

    @property
    def width(self) -> float:
        """Half the distance between the quartiles, as a share of the median."""
        return (self.high - self.low) / 2 / self.median

    def __mul__(self, factor: float) -> Spread:
        return Spread(*(value * factor for value in asdict(self).values()))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} - {self.high:.3g})"


class Comparison:
    """Seconds per call, with a row per round and a column per competitor."""

    def __init__(self, names: list[str], seconds: NDArray[np.float64]) -> None:
        self.names = names
        self.seconds = seconds

    def _column(self, name: str) -> NDArray[np.float64]:
        return self.seconds[:, self.names.index(name)]

    def time(self, name: str) -> Spread:
        """Return the seconds per call."""
        return Spread.of(self._column(name))

    def ratio(self, name: str, to: str) -> Spread:
        """Return how many times as long `name` takes as `to`, within a round."""
        return Spread.of(self._column(name) / self._column(to))


def alternate(
    trials: Mapping[str, Trial],
    *,
    rounds: int = 25,
    seconds: float = float("inf"),
    tick: Callable[[], None] = nothing,
) -> Comparison:
    """Time the competitors in `rounds` rounds, or in fewer if that would take longer than `seconds`.

    `tick` is called after every round.
    """
    end = perf_counter() + seconds
    counts = {name: calls_per_sample(trial) for name, trial in trials.items()}
    order = random.Random(0)  # the order is random, but the same in every run
    rows: list[dict[str, float]] = []
    with no_collection():
        while len(rows) < rounds and (len(rows) < LEAST_ROUNDS or perf_counter() < end):
            names = order.sample(list(trials), len(trials))
            rows.append({name: sample(trials[name], counts[name]) for name in names})
            tick()
    names = list(trials)
    return Comparison(names, np.array([[row[name] for name in names] for row in rows]))


def calls_per_sample(trial: Trial) -> int:
    """Return how many calls fill a sample. The competitor is warm afterwards."""
    trial.enter()
    trial.call()  # this compiles, touches its pages and fills the caches
    count = 1
    while (elapsed := clock(trial.call, count)) < SAMPLE / 2:
        count *= 2
    return max(1, round(count * SAMPLE / elapsed))


def sample(trial: Trial, count: int) -> float:
    """Return the seconds per call, over `count` calls."""
    trial.enter()
    if count > 1:  # the caches hold what the competitor before it touched
        trial.call()
    return clock(trial.call, count) / count


def quickest(call: Callable[[], Any]) -> float:
    """Return the seconds per call of the quickest of a few samples."""
    trial = Trial(call)
    count = calls_per_sample(trial)
    return min(sample(trial, count) for _ in range(QUICK_SAMPLES))


def clock(call: Callable[[], Any], count: int) -> float:
    start = SECONDS()
    for _ in repeat(None, count):
        call()
    return SECONDS() - start


@contextmanager
def no_collection() -> Any:
    """Turn off the garbage collector, which would slow down whatever is being timed."""
    enabled = gc.isenabled()
    gc.collect(1)  # what was made lately; all of a process with large libraries takes a second
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def machine(*packages: str) -> dict[str, str]:
    """Return what a reader of a table of times has to know about the machine."""
    return {
        "cpu": cpu_name(),
        "cores": f"{usable_cores()} usable",
        "last-level cache": f"{cpu.last_level_cache() / 2**20:g} MiB",
        "load": f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "instruction sets": ", ".join(cpu.available()),
        "fastdrop": __version__,
    } | versions("numpy", *packages)


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of those of `packages` that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def cpu_name() -> str:
    """Return the name of the processor. Some names are those of several generations, so its numbers follow."""
    known: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            known.setdefault(name.strip(), value.strip())
    if "model name" not in known:
        return platform.processor() or platform.machine()
    return f"{known['model name']} (family {known.get('cpu family', '?')} model {known.get('model', '?')})"


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
