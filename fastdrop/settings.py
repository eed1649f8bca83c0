"""Settings in the environment, whose wrong values end a command with a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MISUSED = 2  # the exit code for wrong arguments, as in argparse


@contextmanager
def from_environment() -> Iterator[None]:
    """Read settings while the package is imported.

    A wrong value is a ValueError. The command line is imported too before it can catch that, so here it says
    what is wrong and ends.
    """
    try:
        yield
    except ValueError as error:
        if not is_command():
            raise
        print(f"fastdrop: {error}", file=sys.stderr)
        raise SystemExit(MISUSED) from None


def is_command() -> bool:
    """Whether this process runs the command line of the package, not a program that imports it."""
    argv = getattr(sys, "argv", None) or [""]  # an embedding program may have none
    if argv[0] == "-m":  # Python is looking for the module that it will run
        after = sys.orig_argv[sys.orig_argv.index("-m") + 1 :] if "-m" in sys.orig_argv else []
        return after[:1] == ["fastdrop"]
    return Path(argv[0]).stem == "fastdrop"
