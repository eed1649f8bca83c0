"""A progress bar on terminals where rich is installed; elsewhere a line every few seconds."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

EVERY = 5.0  # seconds between two lines


def on_terminal(stream: Any) -> bool:
    """Whether rich can draw on `stream`: it is a terminal, and rich is installed."""
    if not stream.isatty():
        return False
    try:
        import rich  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


@contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[], None]]:
    """Show on standard error how far the block is. The function that it yields says that one more part is done."""
    if not on_terminal(sys.stderr):
        yield lines(description, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda: bar.advance(task)


def lines(description: str, total: int) -> Callable[[], None]:
    """Return a function that counts what is done, and writes a line where the last one is EVERY seconds ago."""
    done, last = 0, monotonic()

    def advance() -> None:
        nonlocal done, last
        done += 1
        now = monotonic()
        if now - last >= EVERY:
            last = now
            print(f"{description}: {done} of {total}", file=sys.stderr, flush=True)

    return advance
