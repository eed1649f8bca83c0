"""Keras's PyTorch backend: the PyTorch adapter, and a function of autograd for the calls that it lacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastdrop.foreign import base_array
from fastdrop.keras.calls import Call, compute, differentiate
from fastdrop.torch import fast, internals
from fastdrop.torch.functional import supported as takes  # noqa: F401
from fastdrop.torch.operators import EVERY, apply_forward

CAN_BE_COMPILED = True


@torch.compiler.disable  # type: ignore[untyped-decorator]  # compiled code would keep the first seed
def apply(call: Call, x: Tensor, seeds: Any) -> Tensor:
    """Return the result for `x`, differentiable, with the next seed."""
    words = words_from(seeds)
    if call.form not in fast.FORMS or call.shared:
        result: Tensor = Computed.apply(x, call, words)
        return result
    y = fast.drop(x, call.rate, True, False, words, fast.FORMS.index(call.form), EVERY)
    return by_operator(call, x, words) if y is None else y


def words_from(seeds: Any) -> tuple[int, ...]:
    """Return the next seed.

    A function that is computed again in a backward pass has the first seed if its caller holds the state, as
    in `stateless_call`. The layer's own state has moved on, so the gradient would belong to other decisions.
    """
    state = seeds.state.value
    words = tuple(word % 2**32 for word in seeds.next().tolist())  # PyTorch has them as signed numbers
    if internals.backward_pass() != -1 and seeds.state.value is state:
        raise RuntimeError(
            "a dropout layer was called in a backward pass, as keras.remat does, and would draw other decisions "
            "than in the forward pass: leave it out of keras.remat, or pass its seed with stateless_call"
        )
    return words


def by_operator(call: Call, x: Tensor, words: tuple[int, ...]) -> Tensor:
    """Return the result for a tensor that only an operator can take, as inside of a transform of torch.func."""
    halves = [half for word in words for half in (word, 0)]
    y: Tensor = apply_forward(x, call.keep_prob, call.form, EVERY, torch.tensor(halves, device="cpu"))[0]
    return y


class Computed(torch.autograd.Function):
    """The result of a call."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, call: Call, words: tuple[int, ...]) -> Tensor:
        ctx.call, ctx.words = call, words
        return written(compute, x, call, words)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        return Differentiated.apply(dy, ctx.call, ctx.words), None, None


class Differentiated(Computed):
    """The gradient of a call, which is linear in `dy`, so it has the same backward."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, call: Call, words: tuple[int, ...]) -> Tensor:
        ctx.call, ctx.words = call, words
        return written(differentiate, dy, call, words)


def written(function: Any, x: Tensor, call: Call, words: tuple[int, ...]) -> Tensor:
    """Return what a function of calls.py writes for `x`."""
    y = torch.empty(x.shape, dtype=x.dtype, device="cpu")
    function(call, base_array("inputs", x.detach()), words, base_array("outputs", y))
    return y
