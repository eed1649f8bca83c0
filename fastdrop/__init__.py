"""fastdrop: exact, reproducible dropout on the CPU.

ReLU, dropout and scaling take one pass over an array. The keep probability is exact, the mask has one
bit per element, and the result does not depend on the machine or the number of threads.
"""

from importlib import import_module as _import_module
from sys import implementation as _python
from typing import TYPE_CHECKING, Any

__distribution__ = "fastdrop-kernels"  # fastdrop.core makes sure that these files are ours

try:
    _import_module("fastdrop.core.dispatch")
except ModuleNotFoundError as _error:
    if _error.name != "fastdrop.core.dispatch":
        raise
    raise ImportError(
        f"fastdrop in {__path__[0]} has no modules that were compiled for this Python ({_python.cache_tag}). If that "
        "is a checkout and fastdrop is installed, leave the folder, so that Python finds what is installed. "
        "Otherwise build it there: make build, or pip install -e ."
    ) from None

from fastdrop import cpu as cpu  # it chooses the kernel; type checkers take a name twice as public
from fastdrop import layers, reference
from fastdrop.capi import get_include
from fastdrop.functional import (
    alpha_dropout,
    alpha_dropout_backward,
    dropout,
    dropout_add,
    dropout_add_backward,
    dropout_add_predict,
    dropout_backward,
    dropout_predict,
    gaussian_dropout,
    gaussian_dropout_backward,
    keep_mask,
    relu_dropout,
    relu_dropout_backward,
    relu_dropout_predict,
)
from fastdrop.mask import Mask
from fastdrop.monte_carlo import MonteCarlo, mc_predict
from fastdrop.noise import GaussianNoise
from fastdrop.stream import Stream, Tile
from fastdrop.threads import get_num_threads, set_num_threads
from fastdrop.values import _restored  # noqa: F401  (pickles name it)

__version__ = "0.1.0"

__all__ = [
    "GaussianNoise",
    "Mask",
    "MonteCarlo",
    "Stream",
    "Tile",
    "alpha_dropout",
    "alpha_dropout_backward",
    "dropout",
    "dropout_add",
    "dropout_add_backward",
    "dropout_add_predict",
    "dropout_backward",
    "dropout_predict",
    "gaussian_dropout",
    "gaussian_dropout_backward",
    "get_include",
    "get_num_threads",
    "keep_mask",
    "layers",
    "mc_predict",
    "reference",
    "relu_dropout",
    "relu_dropout_backward",
    "relu_dropout_predict",
    "set_num_threads",
]

_ADAPTERS = ("dask", "jax", "keras", "thinc", "torch")


def __dir__() -> list[str]:
    return [*__all__, "__doc__", "__file__", "__name__", "__path__", "__version__"]


if not TYPE_CHECKING:  # a type checker would accept any name by it

    def __getattr__(name: str) -> Any:
        """Import an adapter when it is first used."""
        if name not in _ADAPTERS:
            layer = f": the layer is fastdrop.layers.{name}" if name in layers.__all__ else ""
            raise AttributeError(f"module 'fastdrop' has no attribute {name!r}{layer}")
        return _import_module(f"fastdrop.{name}")
