"""``info``: show what is in use on this machine."""

from __future__ import annotations

import argparse
import platform
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np

import fastdrop
from fastdrop import cpu, threads
from fastdrop.commands import DONE, add_json_argument, show_json, show_table
from fastdrop.core import dispatch
from fastdrop.optional import install

WITHOUT = {"openmp": "no, so every call runs on one thread"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    if arguments.json:
        show_json(facts())
        return DONE
    known = facts()
    why = [(f"why not {name}", reason) for name, reason in known.pop("missing").items()]
    rows = [(name.replace("_", " "), in_words(name, value)) for name, value in known.items()]
    show_table("fastdrop on this machine", ("what", "value"), [*rows, *why])
    return DONE


def facts() -> dict[str, Any]:
    """Return what a bug report should contain."""
    return {
        "version": fastdrop.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "compiler": dispatch.compiler,
        "instruction_set": cpu.active(),
        "available": list(cpu.available()),
        "missing": cpu.missing(),
        "threads": threads.get_num_threads(),
        "openmp": threads.openmp(),
    } | {adapter: framework(adapter) for adapter in fastdrop._ADAPTERS}


def framework(adapter: str) -> str:
    """Return the version of an adapter's framework. For JAX also return how calls reach the kernels."""
    if find_spec(adapter) is None:
        return f"not installed: {install(adapter)}"
    version = metadata.version(adapter)
    if adapter != "jax":
        return version
    from fastdrop.jax import paths

    return f"{version}, through {paths.in_words()}"


def in_words(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else WITHOUT[name]
    return ", ".join(value) if isinstance(value, list) else str(value)
