"""Write golden_streams.txt, which elements are kept in some streams, from the NumPy reference.

The stream is frozen: the file must never change within a stream version. The tests compare the
reference with the file, and the file with Random123's own header.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from fastdrop.reference import decisions

PATH = Path(__file__).with_name("golden_streams.txt")
LONGEST_SPELLED_OUT = 512  # elements; longer streams are stored as a digest

HEADER = """\
# Which elements are kept, stream version 1, a line each:
#   seed (hexadecimal)  offset  keep_prob (C99 hexadecimal)  elements -> packed bits
# Element n is bit n % 8 of byte n // 8; the bytes in hexadecimal, or their SHA-256 for long streams.
# Written by make_golden.py.
"""

LARGE_SEED = 0xFEEDFACE_DEADBEEF_01234567_89ABCDEF
STREAMS = [
    *((42, 0, keep_prob, 256) for keep_prob in (0.9, 0.5, 0.25, 0.75, 0.1, 3 / 256, 0.0, 1.0)),
    *((LARGE_SEED, offset, 0.8, 300) for offset in (0, 1, 31, 127, 128, 2**32 - 5, 2**63 + 3, 2**64 - 300)),
    *((seed, 0, 0.5, 128) for seed in (0, 1, 2**32, 2**64 - 1, 2**64, 2**127, 2**128 - 1)),
    (7, 1000, 1 - 2.0**-53, 130),
    (7, 1000, 1e-300, 130),
    (7, 0, 2.0**-11, 8192),
    (42, 0, 0.9, 2**20),
    (LARGE_SEED, 2**40 + 77, 0.7, 100_003),
]


def packed(seed: int, offset: int, keep_prob: float, count: int) -> bytes:
    flags = decisions.kept(seed, offset, count, keep_prob)
    return np.packbits(flags, bitorder="little").tobytes()


def as_text(bits: bytes, count: int) -> str:
    """Return `bits` in the form that the file has."""
    return bits.hex() if count <= LONGEST_SPELLED_OUT else "sha256:" + hashlib.sha256(bits).hexdigest()


def golden_text() -> str:
    lines = (
        f"{seed:032x} {offset} {keep_prob.hex()} {count} -> "
        f"{as_text(packed(seed, offset, keep_prob, count), count)}\n"
        for seed, offset, keep_prob, count in STREAMS
    )
    return HEADER + "".join(lines)


if __name__ == "__main__":
    PATH.write_text(golden_text())
