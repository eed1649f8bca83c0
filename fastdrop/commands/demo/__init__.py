"""The demo command: what dropout is for, what it costs, and whether the kernels change a training."""

from fastdrop.commands.demo.command import add_arguments, run

__all__ = ["add_arguments", "run"]
