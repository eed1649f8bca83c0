"""The calls as operators of PyTorch: pure functions of their tensors and a seed, with their gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from fastdrop import functional
from fastdrop.formulas import SEED_WORDS, MaskMode, decided_shape
from fastdrop.mask import Mask
from fastdrop.stream import seed_of_words

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """Return a NumPy array that shares the memory of a tensor."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def new_seed(generator: torch.Generator | None) -> Tensor:
    # The words are on the CPU, whatever torch.set_default_device says, because the operators read them.
    # The generator is named even if it is None: compiled code draws otherwise where none is named.
    return torch.randint(0, 2**32, (SEED_WORDS,), generator=generator, dtype=torch.int64, device="cpu")


def result_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def decided(shape: Sequence[int], form: str, shared: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of the mask. With a ReLU it has one bit per element, even if elements share a decision."""
    return decided_shape(tuple(shape), () if form == "relu_dropout" else tuple(shared))


def bits_like(x: Tensor, form: str, shared: Sequence[int]) -> Tensor:
    """Return an empty tensor for the decisions, one bit each."""
    count = math.prod(decided(x.shape, form, shared))
    return torch.empty((count + 7) // 8, dtype=torch.uint8, device=x.device)


@torch.library.custom_op("fastdrop::forward", mutates_args=())
def forward(
    x: Tensor, keep_prob: float, form: str, shared: Sequence[int], seed: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute a form of dropout ("dropout", "relu_dropout" or "alpha_dropout") and its packed bits."""
    y, rng = result_like(x), seed_of_words(seed.numpy())
    call = getattr(functional, form)
    _, mask = call(view(x), keep_prob, broadcast_dims=tuple(shared), rng=rng, out=view(y))
    return y, torch.from_numpy(mask.bits.copy())  # the bits of a mask may not be written


@forward.register_fake
def _(x: Tensor, keep_prob: float, form: str, shared: Sequence[int], seed: Tensor) -> tuple[Tensor, Tensor]:
    return result_like(x), bits_like(x, form, shared)


@torch.library.custom_op("fastdrop::forward_add", mutates_args=())
def forward_add(x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    """Compute ``residual + dropout(x)`` in one pass, and the packed bits."""
    y, rng = result_like(x), seed_of_words(seed.numpy())
    _, mask = functional.dropout_add(view(x), view(residual), keep_prob, rng=rng, out=view(y))
    return y, torch.from_numpy(mask.bits.copy())  # the bits of a mask may not be written


@forward_add.register_fake
def _(x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    return result_like(x), bits_like(x, "dropout", ())


@torch.library.custom_op("fastdrop::backward", mutates_args=())
def backward(dy: Tensor, bits: Tensor, keep_prob: float, form: str, shared: Sequence[int]) -> Tensor:
    """Compute the gradient with respect to the input from the packed bits."""
    dx = result_like(dy)
    mode: MaskMode = "alpha" if form == "alpha_dropout" else "inverted"
    mask = Mask(bits.numpy(), decided(dy.shape, form, shared), keep_prob, mode)
    getattr(functional, f"{form}_backward")(view(dy), mask, out=view(dx))
    return dx


@backward.register_fake
def _(dy: Tensor, bits: Tensor, keep_prob: float, form: str, shared: Sequence[int]) -> Tensor:
    return result_like(dy)


# --- derivatives ------------------------------------------------------------------------------

# Every Jacobian is diagonal, so forward and backward derivatives are the same call on the same bits.


def keep(ctx: Any, bits: Tensor, keep_prob: float, form: str, shared: Sequence[int]) -> None:
    """Save what a derivative needs: one bit per element."""
    ctx.keep_prob, ctx.form, ctx.shared = keep_prob, form, shared
    ctx.save_for_backward(bits)
    ctx.save_for_forward(bits)
    ctx.set_materialize_grads(False)


def masked(ctx: Any, d: Tensor | None) -> Tensor | None:
    return None if d is None else apply_backward(d, *ctx.saved_tensors, ctx.keep_prob, ctx.form, ctx.shared)


def after_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, keep_prob, form, shared, _ = inputs
    keep(ctx, output[1], keep_prob, form, shared)


def after_forward_add(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, _, keep_prob, _ = inputs
    keep(ctx, output[1], keep_prob, "dropout", [])


def after_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, *kept = inputs
    keep(ctx, *kept)


def sum_of(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


def transformed() -> bool:
    """Whether somebody may want a derivative that only a `torch.autograd.Function` has.

    The operator alone is what compiled code wants, and is half the cost.
    """
    forward_mode: bool = forward_ad._current_level >= 0
    if torch.compiler.is_compiling():
        if forward_mode:  # the operator would silently ignore it
            raise NotImplementedError("dropout has no forward-mode derivative inside of compiled code")
        return False
    return forward_mode or torch._C._are_functorch_transforms_active()


def differentiable(operator: Any, backward: Any, jvp: Any, setup_context: Any) -> Any:
    """Return an operator with its derivatives, which also work forward and in the transforms of `torch.func`."""
    operator.register_autograd(backward, setup_context=setup_context)
    members = {"forward": operator, "backward": backward, "jvp": jvp, "setup_context": setup_context}
    function: Any = type(
        "Fastdrop", (torch.autograd.Function,),
        {"generate_vmap_rule": True} | {name: staticmethod(member) for name, member in members.items()},
    )  # fmt: skip

    def apply(*arguments: Any) -> Any:
        return function.apply(*arguments) if transformed() else operator(*arguments)

    return apply


apply_forward = differentiable(
    forward,
    lambda ctx, dy, _: (masked(ctx, dy), None, None, None, None),
    lambda ctx, dx, *_: (masked(ctx, dx), None),
    after_forward,
)
apply_forward_add = differentiable(
    forward_add,
    lambda ctx, dy, _: (masked(ctx, dy), dy, None, None),
    lambda ctx, dx, dresidual, *_: (sum_of(masked(ctx, dx), dresidual), None),
    after_forward_add,
)
apply_backward = differentiable(
    backward,
    lambda ctx, dx: (masked(ctx, dx), None, None, None, None),
    lambda ctx, ddy, *_: masked(ctx, ddy),
    after_backward,
)


def each_example(operator: Any) -> Any:
    """Return a vmap rule, which calls the operator on one example after the other.

    PyTorch has batched the seed, has not, or has raised, as `randomness=` asks.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        results = [
            operator(*(a.select(d, n) if isinstance(d, int) else a for a, d in zip(arguments, in_dims)))
            for n in range(info.batch_size)
        ]
        if isinstance(results[0], Tensor):
            return torch.stack(results), 0
        return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])

    return rule


for operator in (forward, forward_add, backward):
    operator.register_vmap(each_example(operator))
