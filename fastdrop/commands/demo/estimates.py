"""Means over seeds, with their confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np

CONFIDENCE = 0.95


class Estimate(TypedDict):
    """A mean, and half the width of its confidence interval."""

    mean: float
    half_width: float


def estimate(values: Sequence[float] | Any) -> Estimate:
    """Return the mean of `values`, and its confidence interval by Student's t."""
    from scipy.stats import sem, t

    half_width = float(sem(values)) * float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return {"mean": float(np.mean(values)), "half_width": half_width}


def percent(accuracy: Estimate) -> str:
    return f"{accuracy['mean']:.1%} ± {accuracy['half_width']:.1%}"
