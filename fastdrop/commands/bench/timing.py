"""Time calls side by side: alternating within one run, so that a ratio sees one state of the machine.

A machine that changes its clock, or has other work, changes a table of absolute times more than
most optimisations do. Here every round times each contender once, in an order drawn anew; a ratio
is taken within a round, and reported as the median over rounds with the quartiles.
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

STRETCH = 2e-3  # seconds of calls behind one timed sample: a thousand ticks of a coarse clock
SECONDS: Callable[[], float] = perf_counter  # or process_time, on a machine with other work to do
LEAST_ROUNDS = 5  # fewer have no quartiles worth the name


def nothing() -> None:
    """What most contenders need before their calls."""


class Contender(NamedTuple):
    """A call to be timed, and what has to be done before it, untimed."""

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

    def __mul__(self, factor: float) -> Spread:
        return Spread(*(value * factor for value in asdict(self).values()))

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} - {self.high:.3g})"


class Comparison:
    """Seconds a call, a row for each round and a column for each contender."""

    def __init__(self, names: list[str], seconds: NDArray[np.float64]) -> None:
        self.names = names
        self.seconds = seconds

    def _column(self, name: str) -> NDArray[np.float64]:
        return self.seconds[:, self.names.index(name)]

    def time(self, name: str) -> Spread:
        """Seconds a call."""
        return Spread.of(self._column(name))

    def ratio(self, name: str, to: str) -> Spread:
        """How many times as long `name` takes as `to`, within a round."""
        return Spread.of(self._column(name) / self._column(to))


def alternate(
    contenders: Mapping[str, Contender],
    *,
    rounds: int = 25,
    seconds: float = float("inf"),
    tick: Callable[[], None] = nothing,
) -> Comparison:
    """Time the contenders in `rounds` rounds, fewer where that would take longer than `seconds`.

    `tick` is called after every round.
    """
    end = perf_counter() + seconds
    counts = {name: calls_a_stretch(contender) for name, contender in contenders.items()}
    order = random.Random(0)  # the order is drawn, but the same in every run
    rows: list[dict[str, float]] = []
    with no_collection():
        while len(rows) < rounds and (len(rows) < LEAST_ROUNDS or perf_counter() < end):
            names = order.sample(list(contenders), len(contenders))
            rows.append({name: stretch(contenders[name], counts[name]) for name in names})
            tick()
    names = list(contenders)
    return Comparison(names, np.array([[row[name] for name in names] for row in rows]))


def calls_a_stretch(contender: Contender) -> int:
    """How many calls fill a stretch; the contender is warm afterwards."""
    contender.enter()
    contender.call()  # compiles, touches its pages, fills its caches
    count = 1
    while (elapsed := clock(contender.call, count)) < STRETCH / 2:
        count *= 2
    return max(1, round(count * STRETCH / elapsed))


def stretch(contender: Contender, count: int) -> float:
    """Seconds a call, over `count` calls."""
    contender.enter()
    if count > 1:  # its caches hold what the contender before it touched
        contender.call()
    return clock(contender.call, count) / count


def clock(call: Callable[[], Any], count: int) -> float:
    start = SECONDS()
    for _ in repeat(None, count):
        call()
    return SECONDS() - start


@contextmanager
def no_collection() -> Any:
    """The garbage collector waits: it would fall on whoever is being timed."""
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def machine(*packages: str) -> dict[str, str]:
    """What a table of times has to be read with."""
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
    """The versions of those of `packages` that are installed."""
    found = {}
    for package in packages:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
