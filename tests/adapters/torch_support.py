"""What the tests of fastdrop.torch have in common."""

from __future__ import annotations

import ml_dtypes
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastdrop.stream import seed_of_words
from fastdrop.torch import operators

FORMS = ["dropout", "relu_dropout", "alpha_dropout"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seed(n=0):
    """The seed that a call with `generator(n)` draws."""
    return seed_of_words(operators.new_seed(generator(n)))


def values(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(7)).to(dtype)


def view(tensor):
    """The tensor's memory as an array."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


class Onlooker(TorchDispatchMode):
    """A mode that sees each operator, and changes nothing."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}))
