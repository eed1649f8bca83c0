"""``bench``: measure the speed of this machine, compared with a copy, NumPy and PyTorch."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from statistics import median
from typing import Any

from fastdrop import cpu
from fastdrop.commands import (
    DONE,
    add_json_argument,
    add_plot_argument,
    plain_table,
    show_json,
    show_table,
)
from fastdrop.commands.bench import competitors, timing
from fastdrop.commands.bench.competitors import Case, Competitor, Fastdrop, Task
from fastdrop.progress import progress

SIZES = {"1 Ki": 2**10, "16 Ki": 2**14, "256 Ki": 2**18, "16 Mi": 2**24}
OPERATIONS = ("forward", "backward", "predict")
ROUNDS = 21
MEASURED = 0.8  # share of the time that is measured; arrays, imports and first calls take the rest

Results = dict[tuple[str, str], timing.Comparison]  # by operation and size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=seconds, default=20.0, metavar="S",
                        help="about how many seconds to take (default: 20)")  # fmt: skip
    parser.add_argument("--keep-prob", type=probability, default=0.9, metavar="P",
                        help="probability that an element is kept, in (0, 1) (default: 0.9)")  # fmt: skip
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32",
                        help="dtype of the arrays (default: %(default)s)")  # fmt: skip
    add_plot_argument(parser, "the time per element against the size")
    add_json_argument(parser)


def seconds(text: str) -> float:
    return between(text, 0, 3600)


def probability(text: str) -> float:
    return between(text, 0, 1)


def between(text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = low
    if not low < value < high:
        raise argparse.ArgumentTypeError(f"must be a number in ({low}, {high}), got {text!r}")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Measure with the instruction set in use, and print the result."""
    if arguments.plot:
        import matplotlib  # noqa: F401  (if it is missing, say so before the measurement)
    chosen: list[Competitor] = [
        Fastdrop(cpu.active()),
        competitors.Copy(),
        competitors.Maximum(),
        competitors.TextbookNumpy(),
        competitors.BestNumpy(),
        competitors.TorchEager(),
    ]
    chosen, absent = competitors.present(chosen)
    environment = timing.machine("torch") | {"instruction set": cpu.active()}  # and the load of others
    with progress("measuring", len(OPERATIONS) * len(SIZES) * ROUNDS) as advance:
        results = measure(chosen, arguments, advance)
    if arguments.json:
        show_json(as_json(results, environment, absent, arguments))
    else:
        show(results, environment, absent, arguments)
    if arguments.plot:
        plot(results, arguments)
    return DONE


def measure(chosen: list[Competitor], arguments: argparse.Namespace, advance: Callable[[], None]) -> Results:
    share = arguments.seconds * MEASURED / (len(OPERATIONS) * len(SIZES))
    results: Results = {}
    for operation in OPERATIONS:
        for label, size in SIZES.items():
            task = Task(Case(operation, size, arguments.dtype, arguments.keep_prob))
            trials = competitors.entered(chosen, task)
            comparison = timing.alternate(trials, rounds=ROUNDS, seconds=share, tick=advance)
            for _ in range(ROUNDS - len(comparison.seconds)):  # the rounds that there was no time for
                advance()
            results[operation, label] = comparison
    return results


def as_json(
    results: Results, environment: dict[str, str], absent: list[str], arguments: argparse.Namespace
) -> dict[str, Any]:
    return {
        "machine": environment,
        "left_out": absent,
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
    print(plain_table("This machine", *columns_of(environment)))
    print(f"\n{arguments.dtype}, keep_prob {arguments.keep_prob}, one thread, with `out=` and a mask.")
    print("Median nanoseconds per element, and the ratio to a copy in the same round.\n")
    for operation in OPERATIONS:
        show_table(operation, ["", *SIZES], rows_of(results, operation))
        print()
    print(spread_of(results))
    print(f"The load of this machine was {environment['load']} before the run; other work makes times longer.")
    for reason in absent:
        print(reason)


def plot(results: Results, arguments: argparse.Namespace) -> None:
    """Plot the time per element against the size, one panel per operation, with a band for quartiles."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    panels = figure.subplots(1, len(OPERATIONS), sharey=True)
    sizes = list(SIZES.values())
    names = dict.fromkeys(name for comparison in results.values() for name in comparison.names)
    colors = {name: f"C{number}" for number, name in enumerate(names)}
    for axes, operation in zip(panels, OPERATIONS):
        comparisons = [results[operation, label] for label in SIZES]
        for name in comparisons[0].names:
            times = [each.time(name) * (1e9 / size) for each, size in zip(comparisons, sizes)]
            axes.plot(sizes, [time.median for time in times], color=colors[name], marker="o", label=name)
            axes.fill_between(sizes, [time.low for time in times], [time.high for time in times],
                              color=colors[name], alpha=0.2, linewidth=0)  # fmt: skip
        axes.set(title=operation, xscale="log", yscale="log", xlabel="elements")
        axes.set_xticks(sizes, list(SIZES), rotation=30)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("ns per element")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    figure.suptitle(f"{arguments.dtype}, keep_prob {arguments.keep_prob}, one thread")
    figure.savefig(arguments.plot)


def columns_of(environment: dict[str, str]) -> tuple[list[str], list[list[str]]]:
    """Return arguments for `plain_table` that put one name and its value on each line."""
    width = max(map(len, environment.values()))
    return ["", ""], [[name, value.ljust(width)] for name, value in environment.items()]


def rows_of(results: Results, operation: str) -> list[list[str]]:
    comparisons = [results[operation, label] for label in SIZES]
    return [
        [name, *(cell(each, name, size) for each, size in zip(comparisons, SIZES.values()))]
        for name in comparisons[0].names
    ]


def cell(comparison: timing.Comparison, name: str, size: int) -> str:
    time = comparison.time(name) * (1e9 / size)
    return f"{time.median:#.3g} {comparison.ratio(name, 'copy').median:5.2f}x"


def spread_of(results: Results) -> str:
    """Say how far the rounds differ."""
    widths = {
        (comparison.ratio(name, "copy").width, f"{name}, {operation}, {label}")
        for (operation, label), comparison in results.items()
        for name in comparison.names
        if name != "copy"
    }
    typical, (most, where) = median(width for width, _ in widths), max(widths)
    return (
        f"Half of the rounds are within {typical:.0%} of these ratios, in the median;\n"
        f"within {most:.0%} in the worst case ({where})."
    )
