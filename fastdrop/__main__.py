"""The command line: ``python -m fastdrop COMMAND``, or ``fastdrop COMMAND``.

A command's module is imported only when it is asked for, so what one of them needs cannot
keep another from running.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from fastdrop import __version__
from fastdrop.commands import MISUSED

COMMANDS = {
    "info": "what is in use here: version, compiler, instruction set, threads",
    "check": "compare every kernel that this machine can run with the NumPy reference, bit for bit",
    "bench": "measure the speed here, beside a copy and what else is installed",
    "demo": "train a network with dropout on handwritten digits, several ways",
    "mask": "draw a keep mask, or save it as an array or a picture",
}
EXTRAS = {"bench": "bench", "demo": "demo", "mask": "demo"}  # what a command's own imports come with
INTERRUPTED = 130  # 128 + SIGINT, as shells have it

EXAMPLES = {
    "info": ("fastdrop info", "FASTDROP_ISA=generic fastdrop info --json"),
    "check": ("fastdrop check", "fastdrop check --cases 10000 --isa generic"),
    "bench": ("fastdrop bench", "fastdrop bench --seconds 60 --dtype float64 --plot bench.svg"),
    "demo": ("fastdrop demo", "fastdrop demo --seeds 20 --plot ensembles.svg"),
    "mask": ("fastdrop mask 24x64 --keep-prob 0.9 --seed 42", "fastdrop mask 1000x1000 -o mask.npy"),
}
EXIT_CODES = """\
exit codes: 0 done, and what was to be shown holds; 1 it does not hold; 2 wrong arguments, or
something has to be installed first."""
MORE = "`fastdrop COMMAND --help` says more about a command."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    command = arguments[0] if arguments and arguments[0] in COMMANDS else None
    try:
        parsed = parser_for(command).parse_args(arguments)
        return parsed.run(parsed)
    except ModuleNotFoundError as missing:
        if command is None or missing.name is None or missing.name.partition(".")[0] == "fastdrop":
            raise
        print(f"fastdrop {command}: {needs(command, missing.name)}", file=sys.stderr)
        return MISUSED
    except KeyboardInterrupt:
        return INTERRUPTED


def parser_for(command: str | None) -> argparse.ArgumentParser:
    """The parser of the whole command line, which knows the arguments of one command."""
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
    """What one of them looks like, for each."""
    return "\n  ".join(["examples:", *(EXAMPLES[command][0] for command in commands)])


def needs(command: str, module: str) -> str:
    """What to do where `command` lacks `module`."""
    if command not in EXTRAS:
        return f"needs {module}, which is not installed"
    return f"needs {module}, which is not installed: run pip install '.[{EXTRAS[command]}]' in the checkout"


if __name__ == "__main__":
    sys.exit(main())
