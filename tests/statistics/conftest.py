"""`make statistics` sets these to more than the suite has time for."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def size(request: pytest.FixtureRequest) -> int:
    """Return the number of elements of a sequence, a multiple of 2**16."""
    return request.config.getoption("elements")


@pytest.fixture(scope="session")
def seed(request: pytest.FixtureRequest) -> int:
    """The seed is fixed, so a check that has passed goes on passing until bits change."""
    return request.config.getoption("statistics_seed")
