"""The bench command, with the harness and the competitors that `benchmarks/` uses too."""

from fastdrop.commands.bench.command import add_arguments, run

__all__ = ["add_arguments", "run"]
