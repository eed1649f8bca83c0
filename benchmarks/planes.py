"""How many planes of random bits a decision takes: in theory, and counted on the stream.

An element is compared with the threshold bit by bit. Each plane decides half of the undecided
elements, and if the rest of the threshold is zero, all of them. Elements that are decided together
need as many planes as the slowest of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastdrop import formulas
from fastdrop.reference import decisions

PLANES = 64


def planes_that_matter(threshold: int) -> int:
    """Return the number of planes up to the last 1 of the threshold. No element is undecided after it."""
    return next((j for j in range(PLANES) if threshold << j & (2**64 - 1) == 0), PLANES)


def expected(keep_prob: float, together: int) -> float:
    """Return the expected planes of `together` elements: the sum over planes of P(one is undecided)."""
    planes = np.arange(planes_that_matter(formulas.threshold(keep_prob)))
    return float(np.sum(1 - (1 - 0.5**planes) ** together))


def counted(keep_prob: float, together: int, blocks: int = 256, seed: int = 1) -> float:
    """Return the mean number of planes that groups of `together` elements of a stream need."""
    needed = planes_needed(formulas.threshold(keep_prob), blocks, seed)
    return float(needed.reshape(-1, together).max(axis=1).mean())


def planes_needed(threshold: int, blocks: int, seed: int) -> NDArray[np.int64]:
    """Return, for each element, the planes until its uniform differs from the threshold."""
    counters = np.arange(blocks, dtype=np.uint64)
    last = planes_that_matter(threshold)
    needed = np.full(blocks * decisions.BLOCK, last)
    undecided = np.ones(needed.size, np.bool_)
    for j in range(last):
        bits = np.unpackbits(decisions.plane(seed, counters, j), bitorder="little")
        decided = undecided & (bits != threshold >> (63 - j) & 1)
        needed[decided] = j + 1
        undecided &= ~decided
    return needed
