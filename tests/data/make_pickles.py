"""Write pickles.txt, which has a pickle of every value, by every protocol from 2 on.

The file must never change, because whoever stored a value has to be able to load it. New values are added
below the old ones. `VALUES` defines what each pickle contains.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

import fastdrop as fd
from fastdrop.stream import StreamRows, sample_stream

PATH = Path(__file__).with_name("pickles.txt")
PROTOCOLS = range(2, 6)
SEED = 0xFEEDFACE_DEADBEEF_01234567_89ABCDEF

HEADER = """\
# Pickles of the package's values, a line each:
#   name  protocol -> the pickle in hexadecimal
# Written by make_pickles.py, which says what they are; they must never change.
"""


def parent() -> fd.Stream:
    stream = fd.Stream(SEED, 2**64 - 7)
    stream.spawn(3)
    return stream


VALUES = {
    "mask": fd.Mask(np.uint8([0xB6, 0x05]), (11,), keep_prob=0.3),
    "alpha mask": fd.Mask(np.uint8([0x2D]), (2, 3), keep_prob=0.5, mode="alpha"),
    "empty mask": fd.Mask(np.empty(0, np.uint8), (3, 0), keep_prob=1.0, mode="vanilla"),
    "stream": fd.Stream(7),
    "stream with children": parent(),
    "sample of a stream": sample_stream(SEED, 2**40 + 5, ()),
    "rows of a stream": StreamRows(parent(), 4, 3, 10),
    "tile": fd.Tile((2**32, 2**32), (5, 6), SEED),
    "noise": fd.GaussianNoise(SEED, 2**63, (3, 4), keep_prob=0.25),
    "noise of a tile": fd.GaussianNoise(5, 17, (3, 4), keep_prob=2.0**-126, strides=(2**60, 1)),
}


def pickles_text() -> str:
    lines = (
        f"{name}  {protocol} -> {pickle.dumps(value, protocol).hex()}\n"
        for name, value in VALUES.items()
        for protocol in PROTOCOLS
    )
    return HEADER + "".join(lines)


if __name__ == "__main__":
    PATH.write_text(pickles_text())
