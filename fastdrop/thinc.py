"""Thinc and spaCy: layers that run on fastdrop's kernels and that a config can name.

`rate` is the probability that an element is *dropped*, as in Thinc. Every training call takes a seed
from NumPy's global generator, which `thinc.util.fix_random_seed` and spaCy's `training.seed` seed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastdrop.optional import require

require("thinc")

import numpy as np
from thinc.api import Model, NumpyOps, registry
from thinc.types import Padded, Ragged

from fastdrop import functional
from fastdrop.formulas import SEED_BITS
from fastdrop.usage import explained

__all__ = ["Dropout", "FastdropOps", "ReluDropout"]


def new_seed() -> int:
    """Return a seed from the generator that Thinc seeds."""
    return int.from_bytes(np.random.bytes(SEED_BITS // 8), "little")  # noqa: NPY002


@registry.ops("FastdropOps")
class FastdropOps(NumpyOps):
    """Thinc's `NumpyOps` with dropout masks from fastdrop's kernels.

    Examples
    --------
    >>> from thinc.api import use_ops
    >>> import fastdrop.thinc
    >>> with use_ops("fastdrop"):
    ...     pass
    """

    name = "fastdrop"

    def get_dropout_mask(self, shape: Any, drop: float | None) -> Any:
        """Return a float32 array with 1 / (1 - drop) where an element is kept, else 0."""
        rate, ones = within_0_and_1(drop), np.ones(shape, np.float32)
        if rate == 0.0:
            return ones
        return functional.dropout(ones, keep_prob=1 - rate, rng=new_seed(), out=ones, return_mask=False)


@explained
def Dropout(rate: float = 0.0) -> Model[Any, Any]:
    """Return Thinc's `Dropout` layer, which runs on fastdrop's kernels.

    Its input is an array of float32, float64, float16 or bfloat16 with any shape, a Ragged, a Padded,
    or a list of arrays.

    Parameters
    ----------
    rate : float, default 0.0
        The probability that an element is dropped. `set_dropout_rate` changes it. Thinc's rules hold
        outside [0, 1]: below 0 nothing is dropped, above 1 everything.

    Returns
    -------
    thinc.api.Model

    See Also
    --------
    ReluDropout : ReLU and dropout in one pass.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> from thinc.api import Linear, chain
    >>> from fastdrop.thinc import Dropout
    >>> model = chain(Linear(4, 4), Dropout(0.2))
    """
    return layer("dropout", forward, rate)


@explained
def ReluDropout(rate: float = 0.0) -> Model[Any, Any]:
    """Return a layer that applies ReLU and then dropout in one pass, and only ReLU at prediction.

    Its input is an array of float32, float64, float16 or bfloat16 with any shape, a Ragged, a Padded,
    or a list of arrays.

    Parameters
    ----------
    rate : float, default 0.0
        The probability that an element is dropped. `set_dropout_rate` changes it. Thinc's rules hold
        outside [0, 1]: below 0 nothing is dropped, above 1 everything.

    Returns
    -------
    thinc.api.Model

    See Also
    --------
    Dropout : Dropout without the ReLU.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> from thinc.api import Linear, chain
    >>> from fastdrop.thinc import ReluDropout
    >>> model = chain(Linear(4, 4), ReluDropout(0.2))
    """
    return layer("relu_dropout", relu_forward, rate)


def layer(name: str, forward: Callable[..., Any], rate: float) -> Model[Any, Any]:
    return Model(name, forward, attrs={"dropout_rate": rate, "is_enabled": True})


# Each form has a function of its own: the name of a model can be changed, and Thinc reads the signature.


def forward(model: Model[Any, Any], X: Any, is_train: bool) -> tuple[Any, Callable[[Any], Any]]:
    return drop_any("dropout", model, X, is_train)


def relu_forward(model: Model[Any, Any], X: Any, is_train: bool) -> tuple[Any, Callable[[Any], Any]]:
    return drop_any("relu_dropout", model, X, is_train)


def drop_any(
    form: str, model: Model[Any, Any], X: Any, is_train: bool
) -> tuple[Any, Callable[[Any], Any]]:
    """Drop elements of whichever kind of input Thinc passes."""
    drops = is_train and model.attrs["is_enabled"]
    rate = within_0_and_1(model.attrs["dropout_rate"]) if drops else 0.0
    if isinstance(X, Ragged):
        y, back = drop(form, X.dataXd, rate)
        return Ragged(y, X.lengths), lambda dY: Ragged(back(dY.dataXd), dY.lengths)
    if isinstance(X, Padded):
        y, back = drop(form, X.data, rate)
        return like(X, y), lambda dY: like(dY, back(dY.data))
    if isinstance(X, (list, tuple)):
        results = [drop(form, x, rate) for x in X]
        return [y for y, _ in results], lambda dY: [back(dy) for (_, back), dy in zip(results, dY)]
    return drop(form, X, rate)


def within_0_and_1(rate: float | None) -> float:
    """Return the rate as Thinc's masks treat it: None and below 0 drop nothing, above 1 everything."""
    return min(max(rate or 0.0, 0.0), 1.0)


def like(padded: Padded, data: Any) -> Padded:
    return Padded(data, padded.size_at_t, padded.lengths, padded.indices)


def drop(form: str, x: Any, rate: float) -> tuple[Any, Callable[[Any], Any]]:
    """Return the result for an array, and the function that computes its gradient."""
    if rate == 0.0 and form == "dropout":
        return x, lambda dy: dy
    y, mask = getattr(functional, form)(x, keep_prob=1.0 - rate, rng=new_seed() if rate else 0)
    return y, lambda dy: getattr(functional, f"{form}_backward")(np.ascontiguousarray(dy, x.dtype), mask)


registry.layers("fastdrop.Dropout.v1")(Dropout)
registry.layers("fastdrop.ReluDropout.v1")(ReluDropout)
