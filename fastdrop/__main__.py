"""The command line: ``python -m fastdrop COMMAND``, or ``fastdrop COMMAND``.

The module of a command is imported only when you run the command. So a package that one command
needs cannot keep another from running.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import sys
from collections.abc import Sequence

import fastdrop.core  # noqa: F401  (it refuses to run among the files of another project)
from fastdrop import __version__
from fastdrop.commands import MISUSED
from fastdrop.optional import needs

COMMANDS = {
    "info": "show what is in use: version, compiler, instruction set, threads",
    "check": "compare every kernel that this machine can run with the NumPy reference, bit for bit",
    "bench": "measure the speed of this machine, compared with a copy, NumPy and PyTorch",
    "demo": "train a network with dropout on handwritten digits, in several ways",
    "mask": "draw a keep mask, or save it as an array or a picture",
}
EXTRAS = {"bench": "bench", "demo": "demo", "mask": "demo"}  # the extra that a command's imports need
INTERRUPTED = 130  # 128 + SIGINT, as in a shell
UNREAD = 141  # 128 + SIGPIPE: the reader of a pipe has ended, as `head` does

EXAMPLES = {
    "info": ("fastdrop info", "FASTDROP_ISA=generic fastdrop info --json"),
    "check": ("fastdrop check", "fastdrop check --cases 10000 --isa generic"),
    "bench": ("fastdrop bench", "fastdrop bench --seconds 60 --dtype float64 --plot bench.svg"),
    "demo": ("fastdrop demo", "fastdrop demo --seeds 20 --plot curves.svg"),
    "mask": ("fastdrop mask 24x64 --keep-prob 0.9 --seed 42", "fastdrop mask 1000x1000 -o mask.npy"),
}
EXIT_CODES = """\
exit codes:
  0    success
  1    a comparison failed
  2    wrong arguments, or an optional package is missing
  130  interrupted
  141  the reader of the output has ended, or there is no room for it"""
MORE = "Run `fastdrop COMMAND --help` for the options of a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    for name in ("stdout", "stderr"):  # Python has none of those that were closed before it began
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (it stays open until the process ends)
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        try:
            parsed = parser_for(command).parse_args(arguments)
            return parsed.run(parsed)
        finally:
            sys.stdout.flush()  # here, where a closed pipe or a full disk is expected
    except ModuleNotFoundError as missing:
        if command not in EXTRAS or missing.name is None or missing.name.partition(".")[0] == "fastdrop":
            raise
        print(needs(f"fastdrop {command}", missing.name, EXTRAS[command]), file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        if error.errno == errno.ENOSPC:
            print(f"the output cannot be written: {error.strerror}", file=sys.stderr)
        # Python flushes standard output once more when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD


def parser_for(command: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command line. It knows the arguments of `command` only."""
    parser = argparse.ArgumentParser(
        prog="fastdrop",
        description="Dropout, and ReLU with dropout, fused and exact on the CPU.",
        epilog=f"{examples_of(*EXAMPLES)}\n\n{EXIT_CODES}\n\n{MORE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastdrop {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        subparser = commands.add_parser(
            name,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=f"examples:\n  {EXAMPLES[name][0]}\n  {EXAMPLES[name][1]}\n\n{EXIT_CODES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if name == command:
            module = importlib.import_module(f"fastdrop.commands.{name}")
            module.add_arguments(subparser)
            subparser.set_defaults(run=module.run)
    return parser


def examples_of(*commands: str) -> str:
    """Return one example for each of `commands`."""
    return "\n  ".join(["examples:", *(EXAMPLES[command][0] for command in commands)])


if __name__ == "__main__":
    sys.exit(main())
