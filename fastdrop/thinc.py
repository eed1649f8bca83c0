"""Thinc and spaCy: layers that run on fastdrop's kernels and that a config can name.

`rate` is the probability that an element is *dropped*, as in Thinc. Every training call takes a seed
from NumPy's global generator, which `thinc.util.fix_random_seed` and spaCy's `training.seed` seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fastdrop.optional import require

require("thinc")

import numpy as np
from thinc.api import Model, NumpyOps, get_ops, registry
from thinc.types import Padded, Ragged

from fastdrop import functional
from fastdrop.formulas import SEED_BITS
from fastdrop.usage import explained

__all__ = ["Dropout", "FastdropOps", "ReluDropout", "accelerate"]

# Thinc's best operations for this CPU: NumpyOps, or AppleOps where Thinc finds Apple's library.
CpuOps: Any = type(get_ops("cpu"))


def new_seed() -> int:
    """Return a seed from the generator that Thinc seeds."""
    return int.from_bytes(np.random.bytes(SEED_BITS // 8), "little")  # noqa: NPY002


@registry.ops("FastdropOps")
class FastdropOps(CpuOps):
    """Thinc's operations for the CPU, with dropout masks from fastdrop's kernels.

    A layer takes the operations that are current when it is created, not those at a call. Thinc notes them per
    thread, and `Model.copy` takes the current ones again.

    See Also
    --------
    accelerate : For a model that is there.

    Examples
    --------
    >>> from thinc.api import Dropout, use_ops
    >>> import fastdrop.thinc
    >>> with use_ops("fastdrop"):
    ...     model = Dropout(0.2)
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
    if rate == 0.0 and form == "dropout":
        return X, lambda dY: dY
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
    if rate is not None and math.isnan(rate):
        raise ValueError("rate must be a number, got nan")
    return min(max(rate or 0.0, 0.0), 1.0)


def like(padded: Padded, data: Any) -> Padded:
    return Padded(data, padded.size_at_t, padded.lengths, padded.indices)


def drop(form: str, x: Any, rate: float) -> tuple[Any, Callable[[Any], Any]]:
    """Return the result for an array, and the function that computes its gradient."""
    y, mask = getattr(functional, form)(x, keep_prob=1.0 - rate, rng=new_seed() if rate else 0)
    dtype = y.dtype  # of the result, so that the input may be freed before the gradient is computed
    return y, lambda dy: getattr(functional, f"{form}_backward")(as_floats(dy, dtype), mask)


def as_floats(dy: Any, dtype: Any) -> Any:
    """Return a gradient as an array that keeps its own dtype, unless it holds whole numbers."""
    dy = np.asarray(dy)
    return dy.astype(dtype) if dy.dtype.kind in "biu" else dy


def accelerate(model: Any) -> Any:
    """Let the layers of a model draw their dropout with fastdrop's kernels, and return the model.

    Each layer with Thinc's operations for the CPU takes `FastdropOps`, from which Thinc's layers get their masks.
    Parameters, names and attributes stay, and so do the bytes that the model writes. Layers with other operations,
    such as those of a GPU, stay as they are.

    Parameters
    ----------
    model : thinc.api.Model or spacy.language.Language
        It is changed in place, with all of its layers. In a pipeline of spaCy each component with a model is.

    Returns
    -------
    thinc.api.Model or spacy.language.Language
        `model` itself.

    Raises
    ------
    TypeError
        If `model` is neither.
    ValueError
        If none of the layers computes on the CPU.

    See Also
    --------
    FastdropOps : The operations, for layers that you are about to create.

    Examples
    --------
    >>> from thinc.api import Linear, Dropout, chain
    >>> from fastdrop.thinc import accelerate
    >>> model = accelerate(chain(Linear(4, 4), Dropout(0.2)))
    """
    nodes = [node for each in models_of(model) for node in each.walk()]
    ours = [node for node in nodes if type(node.ops) in (NumpyOps, CpuOps, FastdropOps)]
    if not ours:
        others = ", ".join(sorted({type(node.ops).__name__ for node in nodes})) or "no layers"
        raise ValueError(f"model must have a layer that computes on the CPU with Thinc's operations, got {others}")
    for node in ours:
        node.ops = FastdropOps()
    return model


def models_of(model: Any) -> list[Model[Any, Any]]:
    """Return the models that a model or a pipeline of spaCy consists of."""
    if isinstance(model, Model):
        return [model]
    if not hasattr(model, "components"):
        raise TypeError(f"model must be a thinc.api.Model or a pipeline of spaCy, got {type(model).__name__}")
    parts = [getattr(pipe, "model", None) for _, pipe in model.components]  # disabled ones too
    return [part for part in parts if isinstance(part, Model)]


def accelerate_pipeline() -> Callable[[Any], Any]:
    """Return the callback `fastdrop.accelerate.v1`, which spaCy calls with a pipeline."""
    return accelerate


registry.layers("fastdrop.Dropout.v1")(Dropout)
registry.layers("fastdrop.ReluDropout.v1")(ReluDropout)
