"""The bits of a uniform, one in each plane, are coins too, and independent of each other.

The planes are those of the reference, because the kernels compute only planes that decide an element.
"""

from __future__ import annotations

import numpy as np
import pytest

from coins import BLOCK, assert_binomial, assert_columns_independent, drawn, signs
from fastdrop.reference import decisions

PLANES = 64


@pytest.fixture(scope="module")
def planes(seed: int, size: int) -> np.ndarray:
    """Return signs: an array of blocks for each plane, the most significant plane first."""
    blocks = np.arange(size >> 12, dtype=np.uint64)
    packed = np.stack([decisions.plane(seed, blocks, j) for j in range(PLANES)])
    return signs(np.unpackbits(packed, axis=-1, bitorder="little"), BLOCK).reshape(PLANES, -1, BLOCK)


def test_each_place_of_each_plane(planes: np.ndarray) -> None:
    assert_binomial(np.count_nonzero(planes > 0, axis=1), planes.shape[1], 0.5)


def test_every_pair_of_planes(planes: np.ndarray) -> None:
    rows = planes.reshape(PLANES, -1).T
    assert_columns_independent(rows, rows)


@pytest.mark.parametrize("distance", [1, 2, 3, 4, 8, 16, 32])
def test_every_pair_of_places_of_two_planes(distance: int, planes: np.ndarray) -> None:
    """Planes of one block differ in one bit or more of their counter."""
    lower, upper = planes[:-distance].reshape(-1, BLOCK), planes[distance:].reshape(-1, BLOCK)
    assert_columns_independent(lower, upper)


@pytest.mark.parametrize("cells", [10, 16, 64])
def test_uniforms_fill_equal_cells_alike(cells: int, seed: int, size: int) -> None:
    """These elements are kept in addition by the next keep_prob, on the same stream."""
    kept = [np.count_nonzero(drawn(cell / cells, seed, size)) for cell in range(cells + 1)]
    assert_binomial(np.diff(kept), size, 1 / cells)


@pytest.mark.parametrize("cells", [4, 8])
def test_pairs_of_neighbouring_uniforms_fill_squares_alike(cells: int, seed: int, size: int) -> None:
    uniforms = sum((~drawn(cell / cells, seed, size)).astype(np.int64) for cell in range(1, cells))
    pairs = uniforms.reshape(-1, 2)
    assert_binomial(np.bincount(pairs[:, 0] * cells + pairs[:, 1], minlength=cells**2), len(pairs), cells**-2)
