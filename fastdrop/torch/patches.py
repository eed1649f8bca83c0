"""Replace PyTorch's functions while a context is open, for code that you cannot edit.

A replacement asks at each call whether it is in effect, and otherwise calls PyTorch's own function. It is in effect
while a context is open, but not for what a backward pass computes again, which uses what its forward pass used. So a
function that is checkpointed inside a context takes the context along, and one that was checkpointed outside does
not enter it.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F
from torch.utils import checkpoint as checkpointing

from fastdrop.torch.attention import attention, torch_attention
from fastdrop.torch.functional import (
    SDPA,
    TORCH,
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
    script_as,
)
from fastdrop.torch.internals import RECOMPUTERS, backward_pass

# --- what is in effect ------------------------------------------------------------------------


class Patches:
    """What replaces PyTorch's functions while somebody holds it in place, and how many contexts are open.

    PyTorch's modules are one for all threads, so these counts have to be, too.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open = 0
        self.holders = 0
        self.before: list[tuple[Any, str, Any]] = []

    def hold(self, ours: dict[tuple[Any, str], Any], opens: bool) -> None:
        with self.lock:
            self.open += opens
            self.holders += 1
            if self.holders == 1:
                self.before = [(holder, name, vars(holder)[name]) for holder, name in ours]
                for (holder, name), function in ours.items():
                    setattr(holder, name, function)

    def let_go(self, opened: bool) -> None:
        with self.lock:
            self.open -= opened
            self.holders -= 1
            if self.holders == 0:
                for holder, name, function in self.before:
                    setattr(holder, name, function)


PATCHES = Patches()
if hasattr(os, "register_at_fork"):  # in a child the lock is open, and nothing is half replaced
    os.register_at_fork(
        before=PATCHES.lock.acquire,
        after_in_parent=PATCHES.lock.release,
        after_in_child=PATCHES.lock.release,
    )


class OfThread(threading.local):
    """Whether this thread runs again a function that was checkpointed under a context, or that opens one."""

    again = False


THREAD = OfThread()


def in_effect() -> bool:
    if is_dynamo_compiling():  # this function was found in place of PyTorch's, which a guard remembers
        return True
    return THREAD.again or (PATCHES.open > 0 and backward_pass() < 0)


def taking_along(function: Any) -> Any:
    """A function that is checkpointed, with our functions in effect at each run if they are in effect now."""
    if not in_effect():
        return function

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        outer = THREAD.again
        PATCHES.hold(REPLACEMENTS, opens=False)
        THREAD.again = True
        try:
            return function(*args, **kwargs)
        finally:
            THREAD.again = outer
            PATCHES.let_go(opened=False)

    return call


# --- replacements -----------------------------------------------------------------------------


def instead(ours: Any, theirs: Any, scripted: Any = None) -> Any:
    """The replacement of a function of PyTorch's. `scripted` is what TorchScript compiles in its place."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return (ours if in_effect() else theirs)(*args, **kwargs)

    functools.update_wrapper(call, theirs)  # so that inspect.signature gives PyTorch's
    script_as(call, scripted or theirs)
    return call


def of_torch(ours: Any, theirs: Any) -> Any:
    """The replacement of a function of `torch` itself, whose arguments have other names and no defaults."""

    def renamed(input: Tensor, p: float, train: bool) -> Tensor:
        return ours(input, p, train)

    def scripted(input: Tensor, p: float, train: bool) -> Tensor:
        return theirs(input, p, train)

    return instead(renamed, theirs, scripted)


def scripted_attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None,
) -> Tensor:  # fmt: skip
    return torch_attention(query, key, value, attn_mask, dropout_p, is_causal, scale=scale)


def checkpointed(original: Any) -> Any:
    """The replacement of a function that is given one to run again."""

    @functools.wraps(original)
    def call(function: Any, *args: Any, **kwargs: Any) -> Any:
        return original(taking_along(function), *args, **kwargs)

    return call


def checkpointed_forward(original: Any) -> Any:
    """`checkpointed` for the `forward` of an autograd.Function."""

    @functools.wraps(original)
    def call(ctx: Any, function: Any, *args: Any) -> Any:
        return original(ctx, taking_along(function), *args)

    return staticmethod(call)


def replacements() -> dict[tuple[Any, str], Any]:
    """What takes the place of each function, by the module or class that holds it and its name there."""
    both = alpha_dropout, dropout, feature_alpha_dropout
    found: dict[tuple[Any, str], Any] = {
        (F, ours.__name__): instead(ours, TORCH[ours.__name__])
        for ours in (*both, dropout1d, dropout2d, dropout3d)
    }
    found[F, SDPA] = instead(attention, torch_attention, scripted_attention)
    found |= {(torch, ours.__name__): of_torch(ours, getattr(torch, ours.__name__)) for ours in both}
    found |= {(checkpointing, name): checkpointed(getattr(checkpointing, name)) for name in RECOMPUTERS}
    reentrant = checkpointing.CheckpointFunction
    found[reentrant, "forward"] = checkpointed_forward(reentrant.forward)
    return found


REPLACEMENTS = replacements()


@contextmanager
def patched() -> Iterator[None]:
    """Run the dropout of `torch.nn.functional` on the kernels, in code that you cannot edit.

    While the context is open, this covers all threads and all code that looks up a function of dropout in
    `torch.nn.functional`, or `torch.dropout`, `torch.alpha_dropout` or `torch.feature_alpha_dropout`, and
    attention with ``dropout_p > 0``. Contexts may be nested and may overlap between threads; the last to close
    restores PyTorch's functions.

    A function given to `torch.utils.checkpoint` runs again in the backward pass as it ran in the forward
    pass, whether a context is open then or not.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import patched
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    >>> with patched():
    ...     layer(torch.ones(3, 1, 8)).shape
    torch.Size([3, 1, 8])
    """
    outer = THREAD.again
    THREAD.again = outer or backward_pass() >= 0  # a checkpointed function opens it again where it is computed again
    PATCHES.hold(REPLACEMENTS, opens=True)
    try:
        yield
    finally:
        THREAD.again = outer
        PATCHES.let_go(opened=True)
