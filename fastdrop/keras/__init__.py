"""Keras 3: the layers of dropout on fastdrop's kernels, with Keras's own names and arguments.

`rate` is the probability that an element is *dropped*, as in Keras. The backend is the one that Keras
uses: PyTorch, JAX or TensorFlow. Each call takes a seed from the layer's `keras.random.SeedGenerator`, so
`keras.utils.set_random_seed` or a layer's `seed` makes a run reproducible. The same seed gives the
same decisions on each backend, and other decisions than Keras's own layer.

Tensors on other devices than the CPU, and of other dtypes than float32, float64, float16 and bfloat16, go
to Keras's own layer.
"""

from fastdrop.optional import require

require("keras")

from fastdrop.keras.layers import (
    AlphaDropout,
    Dropout,
    GaussianDropout,
    ReLUDropout,
    SpatialDropout1D,
    SpatialDropout2D,
    SpatialDropout3D,
)

__all__ = [
    "AlphaDropout", "Dropout", "GaussianDropout", "ReLUDropout", "SpatialDropout1D", "SpatialDropout2D",
    "SpatialDropout3D",
]  # fmt: skip
