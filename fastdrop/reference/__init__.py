"""Dropout in plain NumPy: the definition, which every kernel matches bit for bit.

Read it file by file:

- `generator` turns a seed and a counter into random bits (ARS, seven rounds of AES);
- `decisions` decides with these bits which elements are kept (``docs/stream.md``);
- `calls` computes the results from the decisions;
- `normals` turns random bits into normal numbers, and `gaussian` multiplies by them;
- `arrays` has the common steps on the elements of an array: parts, rounding, copies.

Names, signatures and errors are those of the compiled calls, which document them. No kernel
is needed here.
"""

from fastdrop.reference.calls import (
    alpha_dropout,
    alpha_dropout_backward,
    dropout,
    dropout_add,
    dropout_add_backward,
    dropout_add_predict,
    dropout_backward,
    dropout_predict,
    keep_mask,
    relu_dropout,
    relu_dropout_backward,
    relu_dropout_predict,
)
from fastdrop.reference.gaussian import gaussian_dropout, gaussian_dropout_backward

__all__ = [
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
    "keep_mask",
    "relu_dropout",
    "relu_dropout_backward",
    "relu_dropout_predict",
]
