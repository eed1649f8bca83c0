"""Thinc and spaCy: dropout by the kernels, in layers that a config can name.

`rate`, as in Thinc, is the probability to *drop*. Every draw takes its seed from NumPy's global
generator, which `thinc.util.fix_random_seed` and spaCy's `training.seed` set.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from thinc.api import Model, NumpyOps, registry
from thinc.types import Padded, Ragged

from fastdrop import functional

__all__ = ["Dropout", "FastdropOps", "ReluDropout"]


def new_seed() -> int:
    return int.from_bytes(np.random.bytes(16), "little")  # noqa: NPY002  (the generator that Thinc seeds)


@registry.ops("FastdropOps")
class FastdropOps(NumpyOps):
    """Thinc's `NumpyOps`, with dropout masks by the kernels.

    Examples
    --------
    >>> from thinc.api import use_ops
    >>> import fastdrop.thinc
    >>> with use_ops("fastdrop"):
    ...     pass
    """

    name = "fastdrop"

    def get_dropout_mask(self, shape: Any, drop: float | None) -> Any:
        """1 / (1 - drop) where kept, else 0, in float32."""
        if drop is None or drop <= 0:
            return np.ones(shape, np.float32)
        ones = np.ones(shape, np.float32)
        return functional.dropout(ones, 1 - min(drop, 1.0), rng=new_seed(), out=ones, return_mask=False)[0]


def Dropout(rate: float = 0.0) -> Model[Any, Any]:
    """Thinc's `Dropout` layer: arrays, Ragged, Padded, or a list of arrays.

    Parameters
    ----------
    rate : float, default 0.0
        The probability that an element is dropped; `set_dropout_rate` changes it.

    Examples
    --------
    >>> from thinc.api import Linear, chain
    >>> from fastdrop.thinc import Dropout
    >>> model = chain(Linear(4, 4), Dropout(0.2))
    """
    return layer("dropout", rate)


def ReluDropout(rate: float = 0.0) -> Model[Any, Any]:
    """ReLU, then dropout, in one pass; a ReLU alone at prediction. Inputs as of `Dropout`."""
    return layer("relu_dropout", rate)


def layer(form: str, rate: float) -> Model[Any, Any]:
    return Model(form, drop_any, attrs={"dropout_rate": rate, "is_enabled": True})


def drop_any(model: Model[Any, Any], X: Any, is_train: bool) -> tuple[Any, Callable[[Any], Any]]:
    """Whatever the input is made of, its elements are dropped."""
    rate = model.attrs["dropout_rate"] if is_train and model.attrs["is_enabled"] else 0.0
    if isinstance(X, Ragged):
        y, back = drop(model.name, X.dataXd, rate)
        return Ragged(y, X.lengths), lambda dY: Ragged(back(dY.dataXd), dY.lengths)
    if isinstance(X, Padded):
        y, back = drop(model.name, X.data, rate)
        return like(X, y), lambda dY: like(dY, back(dY.data))
    if isinstance(X, (list, tuple)):
        results = [drop(model.name, x, rate) for x in X]
        return [y for y, _ in results], lambda dY: [back(dy) for (_, back), dy in zip(results, dY)]
    return drop(model.name, X, rate)


def like(padded: Padded, data: Any) -> Padded:
    return Padded(data, padded.size_at_t, padded.lengths, padded.indices)


def drop(form: str, x: Any, rate: float) -> tuple[Any, Callable[[Any], Any]]:
    """The result for an array, and what makes its gradient."""
    if rate == 0.0 and form == "dropout":
        return x, lambda dy: dy
    y, mask = getattr(functional, form)(x, 1.0 - rate, rng=new_seed() if rate else 0)
    return y, lambda dy: getattr(functional, f"{form}_backward")(np.ascontiguousarray(dy, x.dtype), mask)


registry.layers("fastdrop.Dropout.v1")(Dropout)
registry.layers("fastdrop.ReluDropout.v1")(ReluDropout)
