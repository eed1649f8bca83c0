"""The calls as operators of PyTorch: pure functions of their tensors and a seed, with their gradients.

Compiled code, exported programs, transforms and modes see these operators. A call on a plain tensor in eager mode
takes the shorter path of fast.pyx, which gives the same bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from fastdrop.formulas import SEED_WORDS
from fastdrop.torch import fast
from fastdrop.torch.internals import is_functionalized, open_forward_level, transforms_active

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
EVERY = -1  # for `features`: each element has a decision of its own


def new_seed(generator: torch.Generator | None) -> Tensor:
    # The words are on the CPU whatever torch.set_default_device says, because the operators read them. A generator is
    # always named, also as None, because compiled code draws other numbers for a randint that names none.
    return torch.randint(0, 2**32, (SEED_WORDS,), generator=generator, dtype=torch.int64, device="cpu")


# --- operators --------------------------------------------------------------------------------

# Results have the strides that `empty_like` gives, or its sum with the residual, so compiled code may not lay
# out the inputs anew.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)
# `form` is "dropout", "relu_dropout" or "alpha_dropout". `features` is the number of leading axes with
# decisions of their own; the elements behind share one. The second result is the packed bits of what passed.
SCHEMAS = {
    "forward": "(Tensor x, float keep_prob, str form, int features, Tensor seed) -> (Tensor, Tensor)",
    "forward_add": "(Tensor x, Tensor residual, float keep_prob, Tensor seed) -> (Tensor, Tensor)",
    "backward": "(Tensor dy, Tensor bits, float keep_prob, str form, int features) -> Tensor",
}
for name, schema in SCHEMAS.items():
    torch.library.define(f"fastdrop::{name}", schema, tags=TAGS)
forward, forward_add, backward = (getattr(torch.ops.fastdrop, name).default for name in SCHEMAS)


def forward_alone(
    x: Tensor, keep_prob: float, form: str, features: int, seed: Tensor
) -> tuple[Tensor, Tensor]:
    return fast.operator_forward(x, None, keep_prob, form, features, seed)


def forward_with_residual(
    x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor
) -> tuple[Tensor, Tensor]:
    return fast.operator_forward(x, residual, keep_prob, "dropout", EVERY, seed)


torch.library.impl("fastdrop::forward", "cpu", forward_alone)
torch.library.impl("fastdrop::forward_add", "cpu", forward_with_residual)
torch.library.impl("fastdrop::backward", "cpu", fast.operator_backward)


@torch.library.register_fake("fastdrop::forward")  # type: ignore[misc, untyped-decorator]
def _(x: Tensor, keep_prob: float, form: str, features: int, seed: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), bits_like(x, features)


@torch.library.register_fake("fastdrop::forward_add")  # type: ignore[misc, untyped-decorator]
def _(x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    return residual + torch.empty_like(x), bits_like(x, EVERY)


@torch.library.register_fake("fastdrop::backward")  # type: ignore[misc, untyped-decorator]
def _(dy: Tensor, bits: Tensor, keep_prob: float, form: str, features: int) -> Tensor:
    return torch.empty_like(dy)


def bits_like(x: Tensor, features: int) -> Tensor:
    """Return an empty tensor for the decisions, one bit each, as `packed` of fast.pyx counts them."""
    count = math.prod(x.shape if features == EVERY else x.shape[:features])
    return torch.empty(count // 8 + 2, dtype=torch.uint8, device=x.device)


# --- derivatives ------------------------------------------------------------------------------

# Every Jacobian is diagonal, so forward and backward derivatives are the same call on the same bits.


def keep(ctx: Any, bits: Tensor, keep_prob: float, form: str, features: int) -> None:
    """Save what a derivative needs: one bit per decision."""
    ctx.rule = keep_prob, form, features
    ctx.save_for_backward(bits)
    ctx.save_for_forward(bits)
    ctx.set_materialize_grads(False)


def masked(ctx: Any, d: Tensor | None) -> Tensor | None:
    return None if d is None else apply_backward(d, *ctx.saved_tensors, *ctx.rule)


def after_forward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, keep_prob, form, features, _ = inputs
    keep(ctx, output[1], keep_prob, form, features)


def after_forward_add(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, _, keep_prob, _ = inputs
    keep(ctx, output[1], keep_prob, "dropout", EVERY)


def after_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, *kept = inputs
    keep(ctx, *kept)


def sum_of(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    return second if first is None else first if second is None else first + second


def transformed() -> bool:
    """Whether a derivative may be wanted that only a `torch.autograd.Function` has.

    The operator alone is what compiled code wants, and is half the cost.
    """
    forward_mode = open_forward_level()
    if torch.compiler.is_compiling():
        if forward_mode:  # the operator would silently ignore it
            raise NotImplementedError("dropout has no forward-mode derivative inside of compiled code")
        return False
    return forward_mode or (transforms_active() and not is_functionalized())


def each_example(call: Any) -> Any:
    """Return a vmap rule, which calls the operator on one example after the other.

    PyTorch has batched the seed, has not, or has raised, as `randomness=` asks.
    """

    def rule(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> tuple[Any, Any]:
        def example(n: int) -> Any:
            return call(*(a.select(d, n) if isinstance(d, int) else a for a, d in zip(arguments, in_dims)))

        size = info.batch_size
        if not size:  # then the shapes are those of an example that is made up
            arguments = tuple(
                a.new_zeros([*a.shape[:d], 1, *a.shape[d + 1 :]]) if isinstance(d, int) else a
                for a, d in zip(arguments, in_dims)
            )
        results = [example(n) for n in range(max(size, 1))]
        if isinstance(results[0], Tensor):
            return torch.stack(results)[:size], 0
        return tuple(torch.stack(parts)[:size] for parts in zip(*results)), (0,) * len(results[0])

    return rule


def differentiable(operator: Any, backward: Any, jvp: Any, setup_context: Any) -> Any:
    """Return an operator with its derivatives, which also work forward and in the transforms of `torch.func`."""
    torch.library.register_autograd(operator._name.split(".")[0], backward, setup_context=setup_context)
    if hasattr(torch.library, "register_vmap"):  # from 2.5 on: vmap inside of compiled code
        torch.library.register_vmap(operator._name.split(".")[0], each_example(operator))

    def apply(*arguments: Any) -> Any:
        return derived.apply(*arguments) if transformed() else operator(*arguments)

    members = {
        "forward": operator, "backward": backward, "jvp": jvp, "setup_context": setup_context,
        "vmap": each_example(apply),
    }  # fmt: skip
    statics = {name: staticmethod(member) for name, member in members.items()}
    derived: Any = type("Fastdrop", (torch.autograd.Function,), statics)
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


class FastDropout(torch.autograd.Function):
    """Dropout of a plain tensor in eager mode, which saves one bit per decision.

    It has no `setup_context`, which would cost more than the rest, so no transform of torch.func takes it.
    """

    forward = staticmethod(fast.function_forward)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        if is_dynamo_compiling():  # compiled autograd traces the backward pass
            return apply_backward(dy, *ctx.saved_tensors, *ctx.rule), dy if ctx.needs_input_grad[1] else None, None
        return fast.function_backward(ctx, dy)


fast.bind(FastDropout, apply_backward)
