"""Make Markdown tables and plots from the JSON of the suite.

    python -m benchmarks.report RESULTS.json [--plots DIR] [--into FILE.md] [--targets FILE.md] [--history FILE.csv]

The tables go to standard output, or into a Markdown file, each between the lines
`<!-- benchmarks:NAME -->` and `<!-- /benchmarks:NAME -->`. A file that does not exist is made. NAME is
machine, forward, backward, predict, mask, float64, keep_prob, results, threads, steps, readme, or targets.
Tables of what was not measured stay as they are.

The history keeps what each run said of this package: a line per kernel, operation and size, with the commit and
the load of the machine. Compare lines of one machine alone, and ratios rather than times.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import sizes

Row = dict[str, Any]  # the extra_info of a benchmark
STEPS = {  # an operation, and the parts of a pass that it does
    "predict": "read, multiply, write (predict)",
    "backward": "read, select by given bits, multiply, write (backward)",
    "mask": "draw the decisions (keep_mask)",
    "forward": "draw, read, ReLU, select, multiply, write, and the mask (forward)",
}
STEPS_SIZE = 2**18
README = {"fastdrop": "fastdrop", "NumPy, textbook": "NumPy, as courses teach it", "PyTorch eager": "PyTorch"}
README_SIZES = (2**10, 2**16, 2**24)
MARKED = r"(<!-- benchmarks:{0} -->\n).*?(<!-- /benchmarks:{0} -->)"


def main(arguments: list[str] | None = None) -> int:
    """Write the tables and plots that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("results", type=Path, help="the file that pytest --benchmark-json wrote")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw the plots in this folder")
    parser.add_argument("--into", type=Path, action="append", default=[], metavar="FILE",
                        help="write the tables into this file; may be repeated")  # fmt: skip
    parser.add_argument("--targets", type=Path, metavar="FILE", help="the table of benchmarks.targets")
    parser.add_argument("--history", type=Path, metavar="FILE", help="append this run to a CSV file of all runs")
    chosen = parser.parse_args(arguments)
    machine, rows = load(chosen.results)
    tables = all_tables(machine, rows)
    if chosen.targets:
        tables["targets"] = chosen.targets.read_text()
    tables = {name: table for name, table in tables.items() if table}
    for path in chosen.into:
        text = path.read_text() if path.exists() else new_page(tables)
        path.write_text(filled(text, tables))
    if chosen.plots:
        from benchmarks import plots

        plots.draw(rows, machine, chosen.plots)
    if chosen.history:
        append(chosen.history, history(machine, rows))
    if not chosen.into and not chosen.history:
        print("\n\n".join(tables.values()))
    return 0


def load(path: Path) -> tuple[dict[str, str], list[Row]]:
    """Return the machine, and a row for each benchmark that was measured."""
    record = json.loads(path.read_text())
    rows = [entry["extra_info"] for entry in record["benchmarks"] if "series" in entry["extra_info"]]
    run = {"date": record["datetime"][:10], "commit": (record["commit_info"].get("id") or "unknown")[:10]}
    return run | record["machine_info"]["fastdrop"], rows


HISTORY = ("date", "commit", "cpu", "load", "kernel", "operation", "elements", "ns per element", "ratio to a copy")


def history(machine: dict[str, str], rows: list[Row]) -> list[list[str]]:
    """Return a line for each size and operation of each kernel that was measured beside a copy."""
    run = [machine[name] for name in ("date", "commit", "cpu", "load")]
    lines = []
    for row in rows:
        copy = row["ratios"].get("copy")
        if row["series"] == "peers" and row["contender"].startswith("fastdrop") and copy:
            times = [f"{row['ns_an_element']['median']:.4g}", f"{copy['median']:.3g}"]
            lines.append([*run, row["isa"], row["operation"], str(row["size"]), *times])
    return lines


def append(path: Path, lines: list[list[str]]) -> None:
    """Append lines to a history, which begins with the names of the columns."""
    begins = not path.exists()
    with path.open("a", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([HISTORY] * begins + lines)


def new_page(tables: dict[str, str]) -> str:
    """Return a page for a machine that has none yet, with the markers of every table."""
    parts = [f"## {name}\n\n<!-- benchmarks:{name} -->\n<!-- /benchmarks:{name} -->" for name in tables]
    return "\n\n".join(["# A machine", *parts]) + "\n"


def filled(text: str, tables: dict[str, str]) -> str:
    """Return `text` with each table between its markers."""
    for name, table in tables.items():
        pattern = re.compile(MARKED.format(re.escape(name)), re.DOTALL)
        text = pattern.sub(lambda found, table=table: f"{found[1]}\n{table.strip()}\n\n{found[2]}", text)
    return text


def all_tables(machine: dict[str, str], rows: list[Row]) -> dict[str, str]:
    of_competitors = {
        operation: by_size(selected(rows, "peers", operation))
        for operation in ("forward", "backward", "predict", "mask")
    }
    return {"machine": machine_table(machine)} | of_competitors | {
        "float64": by_size(selected(rows, "float64", "forward")),
        "keep_prob": pivot(selected(rows, "keep_prob", "forward"), "keep_prob", lambda p: f"{p:.7g}"),
        "results": by_size(selected(rows, "results", "forward")),
        "threads": by_size(selected(rows, "threads", "forward")),
        "steps": steps(rows),
        "readme": readme(selected(rows, "peers", "forward")),
    }


def steps(rows: list[Row]) -> str:
    """Return the table of what the parts of a pass cost, each with the copy of the same run."""
    some = [row for row in rows if row["series"] == "peers" and row["size"] == STEPS_SIZE]
    if not set(STEPS) <= {row["operation"] for row in some}:
        return ""
    cells = {(row["contender"], row["operation"]): cell(row) for row in some}
    names = [name for name in dict.fromkeys(row["contender"] for row in some) if name.startswith("fastdrop")]
    return markdown([
        ["ns per element (quartiles)", *names, "copy"],
        *([what, *(cells.get((name, operation), "") for name in [*names, "copy"])]
          for operation, what in STEPS.items()),
    ])  # fmt: skip


def readme(rows: list[Row]) -> str:
    """Return the microseconds per call of the best kernel and two others, for a first impression."""
    best = next((row["contender"] for row in rows if row["contender"].startswith("fastdrop")), "")
    times = {(row["contender"], row["size"]): row["ns_an_element"]["median"] * row["size"] / 1000 for row in rows}
    if not set(README_SIZES) <= {row["size"] for row in rows}:
        return ""
    lines = [["microseconds per call", *(f"{sizes.label(size)} elements" for size in README_SIZES)]]
    for name, words in README.items():
        key = best if name == "fastdrop" else name
        lines.append([words, *(short(times[key, size]) if (key, size) in times else "" for size in README_SIZES)])
    return markdown(lines)


def short(number: float) -> str:
    """Return three digits or all digits before the point, with commas."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def selected(rows: list[Row], series: str, operation: str) -> list[Row]:
    return [row for row in rows if (row["series"], row["operation"]) == (series, operation)]


def machine_table(machine: dict[str, str]) -> str:
    return markdown([["", ""], *([name, str(value)] for name, value in machine.items())])


def by_size(rows: list[Row]) -> str:
    return pivot(rows, "size", sizes.label)


def pivot(rows: list[Row], over: str, label: Callable[[Any], str]) -> str:
    """Return a table with a line per competitor and a column per value of `over`, or nothing for no rows."""
    if not rows:
        return ""
    values = sorted({row[over] for row in rows})
    names = list(dict.fromkeys(row["contender"] for row in rows))
    cells = {(row["contender"], row[over]): cell(row) for row in rows}
    return markdown([
        ["ns per element (quartiles)", *map(label, values)],
        *([name, *(cells.get((name, value), "") for value in values)] for name in names),
    ])  # fmt: skip


def cell(row: Row) -> str:
    """Return the time with its quartiles, and the ratio to the copy of the same run if there is one."""
    time = row["ns_an_element"]
    text = f"{time['median']:.3g} ({time['low']:.3g}-{time['high']:.3g})"
    copy = row["ratios"].get("copy")
    return f"{text}, {copy['median']:.3g} x" if copy and row["contender"] != "copy" else text


def publish(text: str, path: Path | None) -> None:
    """Print a text, and append it to a file if there is one."""
    print(text)
    if path:
        with path.open("a") as file:
            file.write(f"\n{text}\n")


def markdown(lines: list[list[str]], rule: str = "---:") -> str:
    """Return a table whose first line is its header. Columns but the first are aligned as the rule says."""
    header, *body = lines
    ruled = [header, ["---", *[rule] * (len(header) - 1)], *body]
    return "\n".join("| " + " | ".join(line) + " |" for line in ruled)


if __name__ == "__main__":
    sys.exit(main())
