"""Draw the plots of a run of the suite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import planes, sizes

Row = dict[str, Any]

STYLE = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "grid.color": "#dddddd",
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "svg.hashsalt": "fastdrop",  # the same plot gives the same file
}
# These are the colours of Okabe and Ito, which everybody can tell apart. The copy, a limit, is black.
COLOURS = {
    "copy": "#000000",
    "copy past the cache": "#555555",
    "np.maximum": "#999999",
    "NumPy, textbook": "#e69f00",
    "NumPy, best": "#f0c66b",
    "NumPy, 16-bit uniforms": "#f0e442",
    "NumPy, MKL Bernoulli": "#a6761d",
    "PyTorch eager": "#d55e00",
    "PyTorch compiled": "#e8925a",
    "JAX jit, threefry": "#cc79a7",
    "JAX jit, rbg": "#e3b5cf",
    "Numba fused": "#009e73",
    "Numba, SplitMix64 by hand": "#73c9b0",
    "Thinc": "#7f6a52",
    "fastdrop avx512": "#0072b2",
    "fastdrop avx2_vaes": "#2f93cf",
    "fastdrop avx2": "#56b4e9",
    "fastdrop neon": "#0072b2",
    "fastdrop generic": "#a9d8f2",
}
EXAMPLES = (0.5, 0.75, 0.8, 0.9, 0.99, 0.999, 1 - 2**-20)


def draw(rows: list[Row], machine: dict[str, str], folder: Path) -> None:
    """Draw every plot that the rows have data for, as SVG."""
    folder.mkdir(parents=True, exist_ok=True)
    drawings: dict[str, tuple[str, Callable[[list[Row]], Figure]]] = {
        "overview": ("peers", overview),
        "time_an_element": ("peers", time_an_element),
        "share_of_copy": ("peers", share_of_copy),
        "threads": ("threads", threads),
        "planes": ("keep_prob", planes_an_element),
        "undecided_bits": ("undecided bits", undecided_bits),
    }
    with plt.rc_context(STYLE):
        for name, (series, drawing) in drawings.items():
            if not of_series(rows, series):
                continue
            figure = drawing(rows)
            figure.supxlabel(f"{machine['cpu']}, NumPy {machine['numpy']}", fontsize=8, color="#666666")
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
            plt.close(figure)


def of_series(rows: list[Row], series: str, operation: str | None = None) -> list[Row]:
    return [row for row in rows if row["series"] == series and operation in (None, row["operation"])]


def competitors(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["contender"] for row in rows))


def line(
    axes: Axes, rows: list[Row], name: str, over: str, value: Callable[[Row], dict[str, float]], **style: Any
) -> None:
    """Draw the medians of one competitor, and a band between the quartiles."""
    points = sorted((row for row in rows if row["contender"] == name), key=lambda row: row[over])
    x = [row[over] for row in points]
    spreads = [value(row) for row in points]
    style = {"color": COLOURS.get(name), "label": name, "marker": "o"} | style
    (drawn,) = axes.plot(x, [spread["median"] for spread in spreads], **style)
    low, high = ([spread[end] for spread in spreads] for end in ("low", "high"))
    axes.fill_between(x, low, high, color=drawn.get_color(), alpha=0.2, linewidth=0)


def nanoseconds(row: Row) -> dict[str, float]:
    return row["ns_an_element"]


def over_sizes(axes: Axes, rows: list[Row]) -> None:
    ticks = sorted({row["size"] for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [sizes.label(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("elements")


def overview(rows: list[Row]) -> Figure:
    """Plot four lines that a reader compares in five seconds, each named at its end."""
    rows = of_series(rows, "peers", "forward")
    ours = next(name for name in competitors(rows) if name.startswith("fastdrop"))
    labels = {"PyTorch eager": "PyTorch", "NumPy, textbook": "NumPy", ours: "fastdrop", "copy": "a copy"}
    named = {name: label for name, label in labels.items() if name in competitors(rows)}
    figure, axes = plt.subplots(figsize=(7.5, 4))
    ends = {}
    for name in named:
        style: dict[str, Any] = {"linewidth": 3 if name == ours else 1.6, "linestyle": "--" if name == "copy" else "-"}
        line(axes, rows, name, "size", nanoseconds, **style)
        last = max((row for row in rows if row["contender"] == name), key=lambda row: row["size"])
        ends[name] = last["size"], nanoseconds(last)["median"]
    for place, name in enumerate(sorted(named, key=lambda name: -ends[name][1])):
        axes.annotate(named[name], ends[name], xytext=(8, 0), textcoords="offset points", color=COLOURS[name],
                      va="top" if place % 2 else "bottom", weight="bold" if name == ours else "normal")  # fmt: skip
    over_sizes(axes, rows)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylabel("nanoseconds per element")
    axes.set_title("Time for ReLU + dropout: lower is better", loc="left")
    return figure


def time_an_element(rows: list[Row]) -> Figure:
    rows = of_series(rows, "peers", "forward")
    figure, axes = plt.subplots(figsize=(9, 5.5))
    for name in competitors(rows):
        ours = name.startswith("fastdrop")
        line(axes, rows, name, "size", nanoseconds, linewidth=2.4 if ours else 1.4,
             linestyle="--" if name == "copy" else "-", zorder=3 if ours else 2)  # fmt: skip
    over_sizes(axes, rows)
    axes.set_yscale("log")
    axes.set_ylabel("ns per element")
    axes.set_title("ReLU + dropout, forward: float32, keep_prob 0.9, one thread", loc="left")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize=9)
    return figure


def share_of_copy(rows: list[Row]) -> Figure:
    operations = ("forward", "backward", "predict")
    figure, panels = plt.subplots(1, 3, figsize=(11, 4), sharey=True)
    for axes, operation in zip(panels, operations):
        chosen = of_series(rows, "peers", operation)
        for name in competitors(chosen):
            if name.startswith("fastdrop"):
                line(axes, chosen, name, "size", share)
        axes.axhline(1, color=COLOURS["copy"], linestyle="--", linewidth=1.2)
        over_sizes(axes, chosen)
        axes.set_title(operation, loc="left")
    panels[0].set_ylim(0, 2)
    panels[0].set_ylabel("speed / speed of a copy")
    panels[0].legend(fontsize=9)
    return figure


def share(row: Row) -> dict[str, float]:
    ratio = row["ratios"]["copy"]
    return {"median": 1 / ratio["median"], "low": 1 / ratio["high"], "high": 1 / ratio["low"]}


def threads(rows: list[Row]) -> Figure:
    rows = of_series(rows, "threads")
    figure, axes = plt.subplots(figsize=(6.5, 4))
    most = max((row["threads"] for row in rows), default=1)
    for count, name in enumerate(sorted({row["size"] for row in rows})):
        for kind, style in (("fastdrop", "-"), ("copy", ":")):
            chosen = [
                row | {"contender": kind} for row in rows
                if row["size"] == name and row["contender"].startswith(kind)
            ]  # fmt: skip
            line(axes, chosen, kind, "threads", gain, color=f"C{count}", linestyle=style,
                 label=f"{kind}, {sizes.label(name)}")  # fmt: skip
    axes.plot([1, most], [1, most], color="#999999", linewidth=1, label="ideal")
    axes.set_xticks(range(1, most + 1))
    axes.set_xlabel("threads")
    axes.set_ylabel("times as fast as one thread")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def gain(row: Row) -> dict[str, float]:
    kind = row["contender"]
    alone = row["ratios"][f"{kind}, 1 threads"]
    return {"median": 1 / alone["median"], "low": 1 / alone["high"], "high": 1 / alone["low"]}


def planes_an_element(rows: list[Row]) -> Figure:
    """Plot planes per element, in theory and counted, and below them the time of the mask alone."""
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.5, 6.5), sharex=True)
    decimal, binary = 10 ** -np.linspace(0.31, 6, 50), 0.5 ** np.arange(1, 21)
    for together, colour in ((1, "#0072b2"), (128, "#d55e00")):
        what = "one element alone" if together == 1 else f"{together} elements together"
        for rates, style, where in ((decimal, "-", ""), (binary, ":", ", 1 - 2**-k")):
            above.plot(rates, [planes.expected(1 - rate, together) for rate in rates],
                       style, color=colour, label=f"theory, {what}{where}")  # fmt: skip
        counts = [planes.counted(keep_prob, together) for keep_prob in EXAMPLES]
        above.plot([1 - keep_prob for keep_prob in EXAMPLES], counts, "o", color=colour,
                   label=f"counted, {what}")  # fmt: skip
    above.set_ylim(0, 9)
    above.set_ylabel("planes")
    above.legend(fontsize=8, ncols=2, loc="lower center", bbox_to_anchor=(0.5, 1))
    chosen = [row | {"rate": 1 - row["keep_prob"]} for row in of_series(rows, "keep_prob", "mask")]
    for name in competitors(chosen):
        if name != "copy":
            line(below, chosen, name, "rate", nanoseconds)
    below.set_xscale("log")
    below.invert_xaxis()
    below.set_yscale("log")
    below.set_ylabel("ns per element, mask alone")
    below.set_xlabel("1 - keep_prob")
    below.legend(fontsize=8)
    return figure


def undecided_bits(rows: list[Row]) -> Figure:
    rows = of_series(rows, "undecided bits")
    figure, axes = plt.subplots(figsize=(7, 4))
    for name in competitors(rows):
        line(axes, rows, name, "bits", nanoseconds)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    ticks = [1, 2, 4, 8, 16, 32, 53]
    axes.set_xticks(ticks, list(map(str, ticks)))
    axes.set_xlabel("bits of the threshold that can stay undecided")
    axes.set_ylabel("ns per element, mask alone")
    axes.legend(fontsize=9)
    return figure
