"""What the commands share: tables, exit codes and arguments.

On a terminal the output has colour, if rich is installed. A file or a pipe gets plain text. A command
is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``. It imports no optional package
before it runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from fastdrop.progress import on_terminal
from fastdrop.settings import MISUSED as MISUSED  # for wrong arguments, and where a package is missing

DONE = 0
FAILED = 1  # a comparison failed
PICTURES = (".png", ".svg", ".pdf")


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table. Every column except the first is aligned to the right."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not on_terminal(sys.stdout):
        print(plain_table(title, columns, cells))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in cells:
        table.add_row(*row)
    Console().print(table)


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the table as plain text, for files, pipes and machines without rich."""
    lines = [columns, *rows]
    widths = [max(map(len, column)) for column in zip(*lines)]
    text = [
        "  ".join(cell.rjust(width) if number else cell.ljust(width)
                  for number, (cell, width) in enumerate(zip(line, widths))).rstrip()
        for line in lines
    ]  # fmt: skip
    return "\n".join([title, *text])


def show_json(value: object) -> None:
    """Print `value` as JSON."""
    print(json.dumps(value, indent=2))


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")


def add_plot_argument(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--plot", type=picture, metavar="FILE",
                        help=f"draw {what} ({', '.join(PICTURES)}); needs matplotlib")  # fmt: skip


def picture(text: str) -> Path:
    """Return a path that matplotlib can write. A wrong one is refused before the work, not after."""
    return writable(text, PICTURES)


def writable(text: str, suffixes: Sequence[str]) -> Path:
    path = Path(text)
    if path.suffix not in suffixes:
        raise argparse.ArgumentTypeError(f"must end in one of {', '.join(suffixes)}, got {text!r}")
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"must be in a folder that exists, got {text!r}")
    return path


def at_least(least: int) -> Callable[[str], int]:
    """Return a parser for argparse that takes integers of at least `least`."""

    def integer(text: str) -> int:
        try:
            value = int(text, 0)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None
        if value < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return integer
