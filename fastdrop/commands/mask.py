"""``mask``: draw a keep mask, and print or save it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop import checks
from fastdrop.commands import (
    DONE,
    MISUSED,
    PICTURES,
    add_json_argument,
    show_json,
    writable,
)
from fastdrop.functional import keep_mask
from fastdrop.mask import Mask
from fastdrop.progress import on_terminal
from fastdrop.stream import Stream

KEPT, DROPPED = "#", "."
HALF_BLOCKS = " ▄▀█"  # one line shows two rows of the mask; an element is kept in none, lower, upper, both


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shape", type=shape, help="lengths of the axes, such as 1000 or 24x64")
    parser.add_argument("--keep-prob", type=keep_prob, default=0.5, metavar="P",
                        help="probability that an element is kept (default: %(default)s)")  # fmt: skip
    parser.add_argument("--seed", type=integer, default=None,
                        help="seed of the stream, in [0, 2**128) (default: fresh entropy)")  # fmt: skip
    parser.add_argument("--offset", type=integer, default=0,
                        help="first position in the stream (default: %(default)s)")  # fmt: skip
    parser.add_argument("--output", "-o", type=output, metavar="FILE",
                        help=f"save it as .npy (bool) or as a picture ({', '.join(PICTURES)})")  # fmt: skip
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    try:
        stream = Stream(arguments.seed, arguments.offset)
        mask = keep_mask(arguments.shape, keep_prob=arguments.keep_prob, rng=stream)
        if arguments.output:
            save(mask.to_array(), arguments.output)
    except (MemoryError, OSError, ValueError) as error:
        print(f"fastdrop mask: {str(error) or 'there is not enough memory'}", file=sys.stderr)
        return MISUSED
    if arguments.json:
        show_json(facts(mask, stream.seed, arguments.offset))
        return DONE
    if not arguments.output:
        print(drawn(mask.to_array(), in_blocks=on_terminal(sys.stdout)))
    kept = int(mask.to_array().sum())
    print(f"{kept:,} of {mask.size:,} kept; seed {stream.seed}, offset {arguments.offset}, "
          f"keep_prob {mask.keep_prob}")  # fmt: skip
    return DONE


def facts(mask: Mask, seed: int, offset: int) -> dict[str, Any]:
    """Return what draws the mask again, and its bits in hexadecimal (element n: bit n % 8 of byte n // 8)."""
    return {
        "shape": mask.shape,
        "keep_prob": mask.keep_prob,
        "seed": seed,
        "offset": offset,
        "kept": int(mask.to_array().sum()),
        "bits": mask.bits.tobytes().hex(),
    }


def drawn(kept: NDArray[np.bool_], in_blocks: bool) -> str:
    """Return the mask as text, one line per row of the last axis (or per two rows, in half blocks)."""
    rows = as_image(kept)
    if not in_blocks:
        return "\n".join("".join(line) for line in np.where(rows, KEPT, DROPPED))
    upper, lower = rows[::2], np.zeros_like(rows[::2])
    lower[: len(rows) // 2] = rows[1::2]
    blocks = np.array(list(HALF_BLOCKS))
    return "\n".join("".join(line) for line in blocks[2 * upper + lower])


def save(kept: NDArray[np.bool_], path: Path) -> None:
    if path.suffix == ".npy":
        np.save(path, kept)
        return
    from matplotlib.image import imsave

    imsave(path, as_image(kept), cmap="gray_r", vmin=0, vmax=1)


def as_image(kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask with two axes: the last one stays, and those before it become one."""
    return kept.reshape(-1, kept.shape[-1]) if kept.size else np.zeros((0, 0), np.bool_)


def shape(text: str) -> tuple[int, ...]:
    try:
        lengths = tuple(int(length) for length in text.lower().replace(",", "x").split("x"))
    except ValueError:
        lengths = (-1,)
    if min(lengths) < 1:
        raise argparse.ArgumentTypeError(f"must be lengths such as 1000 or 24x64, got {text!r}")
    return lengths


def keep_prob(text: str) -> float:
    try:
        return checks.keep_probability(float(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def integer(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be an integer, got {text!r}") from None


def output(text: str) -> Path:
    return writable(text, (".npy", *PICTURES))
