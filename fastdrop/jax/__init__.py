"""JAX: dropout and ReLU-dropout on the CPU, as foreign functions of XLA.

The calls work under `jit`, `grad`, `vmap`, `scan`, `checkpoint`, `shard_map` and `pmap`. `keep_prob` is the
probability to *keep*, as in the calls for NumPy.
"""

from fastdrop.optional import require

require("jax")

from fastdrop.jax.functional import dropout, relu_dropout
from fastdrop.jax.paths import targets

__all__ = ["dropout", "relu_dropout", "targets"]
