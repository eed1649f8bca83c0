"""Replace PyTorch's functions while a context is open, for code that you cannot edit."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastdrop.torch.functional import (
    SDPA,
    TORCH,
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    supported,
)


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Compute `scaled_dot_product_attention` with weights that the kernels drop."""
    # Bad arguments go to PyTorch too, which raises its own errors.
    if not 0.0 < dropout_p <= 1.0 or (is_causal and attn_mask is not None) or enable_gqa or not (
        supported(query) and supported(key) and supported(value)
    ):
        return TORCH[SDPA](
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    weights = query * (query.size(-1) ** -0.5 if scale is None else scale) @ key.transpose(-2, -1)
    if is_causal:
        attn_mask = torch.ones(weights.shape[-2:], dtype=torch.bool, device="cpu").tril()
    if attn_mask is None:
        return dropout(torch.softmax(weights, -1), dropout_p) @ value
    masked = ~attn_mask if attn_mask.dtype == torch.bool else attn_mask.isneginf()
    # A query that may see nothing gets 0, as in PyTorch, and not the NaN of a softmax over nothing. We let it
    # see everything, which is finite, and replace its result.
    blind = masked.all(-1, keepdim=True)
    if attn_mask.dtype == torch.bool:
        weights = weights.masked_fill(masked & ~blind, -math.inf)
    else:
        weights = weights + attn_mask.masked_fill(blind, 0.0)
    return (dropout(torch.softmax(weights, -1), dropout_p) @ value).masked_fill(blind, 0.0)


class Patches:
    """The number of open contexts in all threads, and what the first one has replaced."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open = 0
        self.before: list[tuple[Any, str, Any]] = []

    def enter(self, ours: dict[tuple[Any, str], Any]) -> None:
        with self.lock:
            self.open += 1
            if self.open == 1:
                self.before = [(module, name, getattr(module, name)) for module, name in ours]
                for (module, name), function in ours.items():
                    setattr(module, name, function)

    def leave(self) -> None:
        with self.lock:
            self.open -= 1
            if self.open == 0:
                for module, name, function in self.before:
                    setattr(module, name, function)


PATCHES = Patches()  # all threads share PyTorch's modules, so they share the count
if hasattr(os, "register_at_fork"):  # in a child the lock is open, and nothing is half replaced
    os.register_at_fork(
        before=PATCHES.lock.acquire,
        after_in_parent=PATCHES.lock.release,
        after_in_child=PATCHES.lock.release,
    )


def of_torch(function: Any) -> Any:
    """Return a function of `torch` itself, whose parameters have other names than those of `F` and no defaults."""

    def call(input: Tensor, p: float, train: bool) -> Tensor:
        return function(input, p, train)

    return call


@contextmanager
def patched() -> Iterator[None]:
    """Run the dropout of `torch.nn.functional` on the kernels, in code that you cannot edit.

    While the context is open, this covers all threads and all code that looks up a function of dropout in
    `torch.nn.functional`, or `torch.dropout`, `torch.alpha_dropout` or `torch.feature_alpha_dropout`, and
    attention with ``dropout_p > 0``. Contexts may be nested and may overlap between threads; the last to
    close restores PyTorch's functions.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import patched
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    >>> with patched():
    ...     layer(torch.ones(3, 1, 8)).shape
    torch.Size([3, 1, 8])
    """
    both = {
        "dropout": dropout, "alpha_dropout": alpha_dropout, "feature_alpha_dropout": feature_alpha_dropout,
    }  # fmt: skip
    ours = both | {"dropout1d": dropout1d, "dropout2d": dropout2d, "dropout3d": dropout3d, SDPA: attention}
    targets = {(F, name): function for name, function in ours.items()}
    targets |= {(torch, name): of_torch(function) for name, function in both.items()}
    PATCHES.enter(targets)
    try:
        yield
    finally:
        PATCHES.leave()
