"""`python -m fastdrop bench`: speed on this very machine, beside a copy, NumPy and PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fastdrop import cpu
from fastdrop.commands import contenders, timing
from fastdrop.commands.contenders import Case, Fastdrop, Peer, Task

SIZES = {"1 Ki": 2**10, "16 Ki": 2**14, "256 Ki": 2**18, "16 Mi": 2**24}
OPERATIONS = ("forward", "backward", "predict")
ROUNDS = 21
WARMING = 0.3  # share of the time that goes to arrays, imports and first calls

Results = dict[tuple[str, str], timing.Comparison]  # operation, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=seconds, default=20.0, help="about how long to measure (default: 20)")
    parser.add_argument("--keep-prob", type=probability, default=0.9, help="probability to keep (default: 0.9)")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 3600:
        raise argparse.ArgumentTypeError(f"seconds must be in (0, 3600), got {text}")
    return value


def probability(text: str) -> float:
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"keep_prob must be in (0, 1), got {text}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, and return 0."""
    peers, absent = present(all_peers())
    with progress(not arguments.json, len(OPERATIONS) * len(SIZES) * ROUNDS) as advance:
        results = measure(peers, arguments, advance)
    environment = timing.machine(("torch",))
    if arguments.json:
        print(json.dumps(as_json(results, environment, arguments), indent=2))
    else:
        show(results, environment, absent, arguments)
    return 0


def all_peers() -> list[Peer]:
    isa = cpu.active()  # what a user gets
    others = [contenders.Copy(), contenders.Maximum(), contenders.TextbookNumpy()]
    return [Fastdrop(isa), *others, contenders.BestNumpy(), contenders.TorchEager()]


def present(peers: list[Peer]) -> tuple[list[Peer], list[str]]:
    """Those that can take part, and why the others cannot."""
    reasons = {peer.name: peer.missing() for peer in peers}
    absent = [f"{name} is left out ({reason})" for name, reason in reasons.items() if reason]
    return [peer for peer in peers if not reasons[peer.name]], absent


def measure(peers: list[Peer], arguments: argparse.Namespace, advance: Callable[[int], None]) -> Results:
    share = arguments.seconds * (1 - WARMING) / (len(OPERATIONS) * len(SIZES))
    results: Results = {}
    for operation in OPERATIONS:
        for label, size in SIZES.items():
            task = Task(Case(operation, size, arguments.dtype, arguments.keep_prob))
            rivals = contenders.entered(peers, task)
            comparison = timing.alternate(
                rivals, rounds=ROUNDS, seconds=share, tick=lambda: advance(1)
            )
            advance(ROUNDS - len(comparison.seconds))  # those that there was no time for
            results[operation, label] = comparison
    return results


@contextmanager
def progress(wanted: bool, total: int) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, where there is a terminal and `rich`."""
    if not wanted or not sys.stderr.isatty() or not has_rich():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        job = bar.add_task("measuring", total=total)
        yield lambda count: bar.advance(job, count)


def has_rich() -> bool:
    try:
        import rich  # noqa: F401
    except ImportError:
        return False
    return True


def as_json(
    results: Results, environment: dict[str, str], arguments: argparse.Namespace
) -> dict[str, Any]:
    return {
        "machine": environment,
        "dtype": arguments.dtype,
        "keep_prob": arguments.keep_prob,
        "results": [
            {
                "operation": operation,
                "size": SIZES[label],
                "contender": name,
                "rounds": len(comparison.seconds),
                "ns_an_element": asdict(comparison.time(name) * (1e9 / SIZES[label])),
                "times_copy": asdict(comparison.ratio(name, "copy")),
            }
            for (operation, label), comparison in results.items()
            for name in comparison.names
        ],
    }


def show(
    results: Results, environment: dict[str, str], absent: list[str], arguments: argparse.Namespace
) -> None:
    for key, value in environment.items():
        print(f"{key:>18}  {value}")
    print(f"\n{arguments.dtype}, keep_prob {arguments.keep_prob}, one thread, `out=` given, a mask written.")
    print("Nanoseconds an element, median; in brackets how many times as long as the copy beside it.\n")
    for operation in OPERATIONS:
        print_table(operation, rows_of(results, operation))
    print(*absent, sep="\n", end="\n" if absent else "")


def rows_of(results: Results, operation: str) -> list[list[str]]:
    comparisons = [results[operation, label] for label in SIZES]
    return [
        [name, *(cell(c, name, size) for c, size in zip(comparisons, SIZES.values()))]
        for name in comparisons[0].names
    ]


def cell(comparison: timing.Comparison, name: str, size: int) -> str:
    spread = comparison.time(name) * (1e9 / size)
    return f"{spread.median:.3g} ({comparison.ratio(name, 'copy').median:.2f})"


def print_table(title: str, rows: list[list[str]]) -> None:
    header = [title, *SIZES]
    if sys.stdout.isatty() and has_rich():
        from rich.console import Console
        from rich.table import Column, Table

        table = Table(header[0], *(Column(h, justify="right") for h in header[1:]))
        for row in rows:
            table.add_row(*row, style="bold" if row[0].startswith("fastdrop") else None)
        Console().print(table)
        return
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]:
        print("  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:]))]))
    print()
