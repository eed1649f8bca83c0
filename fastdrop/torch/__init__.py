"""PyTorch: dropout on CPU tensors by the kernels, under PyTorch's own names.

Here, as in PyTorch, ``p`` is the probability to *drop*. Tensors that are not strided float32,
float64, float16 or bfloat16 on the CPU go to PyTorch's own operator, unchanged.

A call draws four words from PyTorch's generator, outside of the operators, and these are the seed of
its stream: `torch.manual_seed` makes a run reproducible, activation checkpointing replays the same
mask, and the operators are pure functions that `torch.compile`, `torch.export` and `vmap` can move.
"""

from fastdrop.optional import require

require("torch")

from fastdrop.torch.functional import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    dropout_add,
    feature_alpha_dropout,
    relu_dropout,
)
from fastdrop.torch.models import Report, accelerate, restore
from fastdrop.torch.modules import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    ReLUDropout,
)
from fastdrop.torch.patches import patched

__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout",
    "ReLUDropout", "Report", "accelerate", "alpha_dropout", "dropout", "dropout1d", "dropout2d",
    "dropout3d", "dropout_add", "feature_alpha_dropout", "patched", "relu_dropout", "restore",
]  # fmt: skip
