"""Write golden_normals.txt, normals of some streams, from the NumPy reference.

The file must never change within a stream version, as golden_streams.txt must not.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fastdrop.reference import normals

PATH = Path(__file__).with_name("golden_normals.txt")
LONGEST_SPELLED_OUT = 64  # normals; longer stretches are stored as a digest

HEADER = """\
# Standard normals, stream version 1, a line each:
#   seed (hexadecimal)  offset  normals -> bits
# Each normal is the 8 hexadecimal digits of its float32; long stretches are the SHA-256 of
# the little-endian bytes. Written by make_golden_normals.py.
"""

LARGE_SEED = 0xFEEDFACE_DEADBEEF_01234567_89ABCDEF
STRETCHES = [
    (42, 0, 64),
    *((LARGE_SEED, offset, 40) for offset in (0, 1, 31, 32, 127, 2**32 - 5, 2**63 + 3, 2**64 - 40)),
    *((seed, 0, 32) for seed in (0, 1, 2**32, 2**64 - 1, 2**64, 2**127, 2**128 - 1)),
    (42, 0, 2**20),
    (LARGE_SEED, 2**40 + 77, 100_003),
]


def as_text(normals: np.ndarray) -> str:
    """Return `normals` in the form that the file has."""
    if len(normals) > LONGEST_SPELLED_OUT:
        return "sha256:" + hashlib.sha256(normals.astype("<f4").tobytes()).hexdigest()
    return " ".join(f"{bits:08x}" for bits in normals.view(np.uint32))


def golden_text() -> str:
    lines = (
        f"{seed:032x} {offset} {count} -> {as_text(normals.normals(seed, offset, count))}\n"
        for seed, offset, count in STRETCHES
    )
    return HEADER + "".join(lines)


if __name__ == "__main__":
    PATH.write_text(golden_text())
