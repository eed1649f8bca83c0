"""PyTorch: dropout on CPU tensors by the kernels, under PyTorch's own names.

Here, as in PyTorch, ``p`` is the probability to *drop*. Tensors that are not strided float32,
float64, float16 or bfloat16 on the CPU go to PyTorch's own operator, unchanged.

A call draws four words from PyTorch's generator, outside of the operators, and these are the seed of
its stream: `torch.manual_seed` makes a run reproducible, activation checkpointing replays the same
mask, and the operators are pure functions that `torch.compile`, `torch.export` and `vmap` can move.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastdrop import functional
from fastdrop.arguments import MaskMode
from fastdrop.mask import Mask

__all__ = [
    "AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "ReLUDropout", "Report",
    "accelerate", "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "dropout_add",
    "patched", "relu_dropout", "restore",
]  # fmt: skip

DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SEED_WORDS = 4  # of 32 bits: every tracer of PyTorch knows integers of that range


# --- operators --------------------------------------------------------------------------------


def view(tensor: Tensor) -> np.ndarray[Any, Any]:
    """A tensor's memory as an array of NumPy's."""
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def seed_of(words: Tensor) -> int:
    return sum(word << 32 * i for i, word in enumerate(words.tolist()))


def result_like(x: Tensor) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


def decided(shape: Sequence[int], form: str, shared: Sequence[int]) -> tuple[int, ...]:
    """The shape of a mask: the ReLU decides for each element even where a draw is shared."""
    alone = shared if form != "relu_dropout" else ()
    return tuple(1 if axis in alone else length for axis, length in enumerate(shape))


def bits_like(x: Tensor, form: str, shared: Sequence[int]) -> Tensor:
    """Room for the decisions, one bit each."""
    count = math.prod(decided(x.shape, form, shared))
    return torch.empty((count + 7) // 8, dtype=torch.uint8, device=x.device)


@torch.library.custom_op("fastdrop::forward", mutates_args=())
def forward(
    x: Tensor, keep_prob: float, form: str, shared: Sequence[int], seed: Tensor
) -> tuple[Tensor, Tensor]:
    """A form of dropout, "dropout", "relu_dropout" or "alpha_dropout", and its packed bits."""
    y = result_like(x)
    call = getattr(functional, form)
    _, mask = call(view(x), keep_prob, broadcast_dims=tuple(shared), rng=seed_of(seed), out=view(y))
    return y, torch.from_numpy(mask.bits)


@forward.register_fake
def _(x: Tensor, keep_prob: float, form: str, shared: Sequence[int], seed: Tensor) -> tuple[Tensor, Tensor]:
    return result_like(x), bits_like(x, form, shared)


@torch.library.custom_op("fastdrop::forward_add", mutates_args=())
def forward_add(x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    """``residual + dropout(x)`` in one pass, and the packed bits."""
    y = result_like(x)
    _, mask = functional.dropout_add(view(x), view(residual), keep_prob, rng=seed_of(seed), out=view(y))
    return y, torch.from_numpy(mask.bits)


@forward_add.register_fake
def _(x: Tensor, residual: Tensor, keep_prob: float, seed: Tensor) -> tuple[Tensor, Tensor]:
    return result_like(x), bits_like(x, "dropout", ())


@torch.library.custom_op("fastdrop::backward", mutates_args=())
def backward(dy: Tensor, bits: Tensor, keep_prob: float, form: str, shared: Sequence[int]) -> Tensor:
    """The gradient of the input, from the packed bits."""
    dx = result_like(dy)
    mode: MaskMode = "alpha" if form == "alpha_dropout" else "inverted"
    mask = Mask(bits.numpy(), decided(dy.shape, form, shared), keep_prob, mode)
    getattr(functional, f"{form}_backward")(view(dy), mask, out=view(dx))
    return dx


@backward.register_fake
def _(dy: Tensor, bits: Tensor, keep_prob: float, form: str, shared: Sequence[int]) -> Tensor:
    return result_like(dy)


def keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """One bit an element is all that a gradient needs."""
    if len(inputs) == 4:
        _, _, ctx.keep_prob, _ = inputs
        ctx.form, ctx.shared = "dropout", []
    else:
        _, ctx.keep_prob, ctx.form, ctx.shared, _ = inputs
    ctx.save_for_backward(output[1])
    ctx.set_materialize_grads(False)


def gradient(ctx: Any, dy: Tensor | None) -> Tensor | None:
    return None if dy is None else backward(dy, *ctx.saved_tensors, ctx.keep_prob, ctx.form, ctx.shared)


def keep_for_second(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    _, bits, ctx.keep_prob, ctx.form, ctx.shared = inputs
    ctx.save_for_backward(bits)
    ctx.set_materialize_grads(False)


forward.register_autograd(
    lambda ctx, dy, _: (gradient(ctx, dy), None, None, None, None), setup_context=keep_for_backward
)
forward_add.register_autograd(
    lambda ctx, dy, _: (gradient(ctx, dy), dy, None, None), setup_context=keep_for_backward
)
# The gradient is linear in dy, by the same diagonal matrix.
backward.register_autograd(
    lambda ctx, dx: (gradient(ctx, dx), None, None, None, None), setup_context=keep_for_second
)


def each_example(operator: Any) -> Any:
    """A vmap rule: the operator on one example after the other. PyTorch has batched the seed, or
    has not, or has raised, as `randomness=` asks."""

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


# --- functions --------------------------------------------------------------------------------


def supported(x: Tensor) -> bool:
    # A nested tensor calls itself strided, but has no shape that an array could have.
    return x.device.type == "cpu" and x.dtype in DTYPES and x.layout == torch.strided and not x.is_nested


def checked(p: float) -> float:
    """`p`, with PyTorch's own words where it is no probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return p


def new_seed(generator: torch.Generator | None) -> Tensor:
    # On the CPU whatever torch.set_default_device says: the operators read the words.
    return torch.randint(0, 2**32, (SEED_WORDS,), generator=generator, dtype=torch.int64, device="cpu")


def refuse_generator(generator: torch.Generator | None, x: Tensor) -> None:
    """PyTorch's own operators take none, and to ignore it would lose reproducibility in silence."""
    if generator is not None:
        raise TypeError(
            f"generator needs a strided CPU tensor of {', '.join(map(str, DTYPES))} with the axes that "
            f"the call is for, got {x.dtype} on {x.device} with {x.dim()} axes"
        )


def drop(
    x: Tensor, p: float, training: bool, inplace: bool, generator: torch.Generator | None,
    form: str, torch_form: Any, shared: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    """What the functions below have in common."""
    checked(p)
    if not training or p == 0.0 or not supported(x):
        if not supported(x):
            refuse_generator(generator, x)
        return torch_form(x, p, training, inplace)
    y: Tensor = forward(x, 1.0 - p, form, list(shared), new_seed(generator))[0]
    return x.copy_(y) if inplace else y


def relu_and_dropout(x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    return TORCH["dropout"](F.relu(x, inplace), p, training, inplace)


SDPA = "scaled_dot_product_attention"
TORCH: dict[str, Any] = {
    name: getattr(F, name)
    for name in ("dropout", "alpha_dropout", "dropout1d", "dropout2d", "dropout3d", SDPA)
}


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.dropout`.

    Parameters
    ----------
    input : Tensor
    p : float, default 0.5
        The probability that an element is dropped, in [0, 1].
    training : bool, default True
    inplace : bool, default False
    generator : torch.Generator, optional
        Where the seed of this call comes from; by default PyTorch's own.

    Returns
    -------
    Tensor
        ``input / (1 - p)`` where kept, else 0.

    Raises
    ------
    ValueError
        If `p` is no probability.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout
    >>> generator = torch.Generator().manual_seed(0)
    >>> sorted(set(dropout(torch.ones(1000), 0.5, generator=generator).tolist()))
    [0.0, 2.0]
    """
    return drop(input, p, training, inplace, generator, "dropout", TORCH["dropout"])


def relu_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """``dropout(relu(input), p, training)`` in one pass; parameters as of `dropout`."""
    return drop(input, p, training, inplace, generator, "relu_dropout", relu_and_dropout)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """`torch.nn.functional.alpha_dropout`; parameters as of `dropout`."""
    return drop(input, p, training, inplace, generator, "alpha_dropout", TORCH["alpha_dropout"])


def channels(name: str, spatial: int) -> Any:
    """Dropout of whole channels of an input (N, C, ...) or, without a batch, (C, ...)."""

    def call(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        batched = input.dim() == spatial + 2
        if not batched and (input.dim() != spatial + 1 or name == "dropout2d"):
            refuse_generator(generator, input)
            return TORCH[name](input, p, training, inplace)  # with its own warnings and errors
        shared = range(2 if batched else 1, input.dim())
        return drop(input, p, training, inplace, generator, "dropout", TORCH[name], shared)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"`torch.nn.functional.{name}`; parameters as of `dropout`."
    return call


dropout1d, dropout2d, dropout3d = (channels(f"dropout{n}d", n) for n in (1, 2, 3))


def dropout_add(
    input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """``residual + dropout(input, p, training)`` in one pass; parameters as of `dropout`."""
    alike = residual.shape == input.shape and residual.dtype == input.dtype
    if not training or p == 0.0 or not (supported(input) and supported(residual) and alike):
        return residual + dropout(input, p, training, generator=generator)
    result: Tensor = forward_add(input, residual, 1.0 - checked(p), new_seed(generator))[0]
    return result


# --- modules ----------------------------------------------------------------------------------


class Dropout(nn.Dropout):
    """`torch.nn.Dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout(input, self.p, self.training, self.inplace)


class ReLUDropout(nn.Dropout):
    """ReLU, then dropout, in one pass; a ReLU alone at prediction."""

    def forward(self, input: Tensor) -> Tensor:
        return relu_dropout(input, self.p, self.training, self.inplace)


class AlphaDropout(nn.AlphaDropout):
    """`torch.nn.AlphaDropout`."""

    def forward(self, input: Tensor) -> Tensor:
        return alpha_dropout(input, self.p, self.training, self.inplace)


class Dropout1d(nn.Dropout1d):
    """`torch.nn.Dropout1d`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(nn.Dropout2d):
    """`torch.nn.Dropout2d`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(nn.Dropout3d):
    """`torch.nn.Dropout3d`."""

    def forward(self, input: Tensor) -> Tensor:
        return dropout3d(input, self.p, self.training, self.inplace)


class FusedReLU(nn.ReLU):
    """A ReLU that the dropout after it computes."""

    def forward(self, input: Tensor) -> Tensor:
        return input


# --- models that are there already ------------------------------------------------------------

OURS = {ours.__mro__[1]: ours for ours in (Dropout, AlphaDropout, Dropout1d, Dropout2d, Dropout3d)}
THEIRS = {ours: theirs for theirs, ours in OURS.items()} | {ReLUDropout: nn.Dropout, FusedReLU: nn.ReLU}


@dataclass
class Report:
    """What `accelerate` did: module names, and why others were left."""

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: now {what}" for name, what in self.replaced.items()]
        return "\n".join(lines + [f"{name}: left alone, {why}" for name, why in self.left.items()])


def accelerate(model: nn.Module) -> Report:
    """Let a model's dropout run on the kernels, and a ReLU before it in a Sequential with it.

    The modules stay the same objects, with their hooks, flags and names, and get another class; so
    `state_dict` is unchanged. A ReLU is fused only if nothing else can see its result: where it has
    hooks, or is used in several places, only the dropout is replaced.

    Returns
    -------
    Report

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import accelerate
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Dropout(0.1))
    >>> print(accelerate(model))
    1: now FusedReLU
    2: now ReLUDropout
    """
    report = Report()
    uses = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    names = {id(module): name for name, module in model.named_modules()}
    for relu, after in list(pairs(model)):
        if why := seen_between(relu, after, uses):
            report.left[names[id(relu)]] = why
        else:
            relu.__class__, after.__class__ = FusedReLU, ReLUDropout
    for name, module in model.named_modules():
        if type(module) in OURS:
            module.__class__ = OURS[type(module)]
        if type(module) in THEIRS:
            report.replaced[name] = type(module).__name__
        elif isinstance(module, nn.modules.dropout._DropoutNd):
            report.left[name] = f"{type(module).__name__} is not one of the forms that are replaced"
    return report


def pairs(model: nn.Module) -> Iterator[tuple[nn.Module, nn.Module]]:
    """ReLU and Dropout, next to each other in a Sequential."""
    for module in model.modules():
        if type(module) is nn.Sequential:
            for relu, after in pairwise(module):
                if type(relu) is nn.ReLU and type(after) is nn.Dropout:
                    yield relu, after


def seen_between(relu: nn.Module, after: nn.Module, uses: Counter[int]) -> str:
    """Why something else sees what is between the two, or nothing."""
    for module in (relu, after):
        if hooked(module):
            return f"the {type(module).__name__} of this pair has hooks"
        if uses[id(module)] > 1:
            return f"the {type(module).__name__} of this pair is used in several places"
    return ""


def hooked(module: nn.Module) -> bool:
    return any(
        getattr(module, hooks)
        for hooks in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    )


def restore(model: nn.Module) -> None:
    """Undo `accelerate`."""
    for module in model.modules():
        if type(module) in THEIRS:
            module.__class__ = THEIRS[type(module)]


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """`scaled_dot_product_attention`, with the weights dropped by the kernels."""
    # Bad arguments too, for PyTorch's own errors.
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
    # A query that may see nothing gets 0, as in PyTorch, and not the NaN of a softmax over nothing:
    # it is let see everything, which is finite, and its result is replaced.
    blind = masked.all(-1, keepdim=True)
    if attn_mask.dtype == torch.bool:
        weights = weights.masked_fill(masked & ~blind, -math.inf)
    else:
        weights = weights + attn_mask.masked_fill(blind, 0.0)
    return (dropout(torch.softmax(weights, -1), dropout_p) @ value).masked_fill(blind, 0.0)


class Patches:
    """How many contexts are open, in all threads, and what the first one has replaced."""

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


PATCHES = Patches()  # PyTorch's modules are one for all threads, so the count has to be, too


def torch_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`torch.dropout`, which has other names and no defaults."""
    return dropout(input, p, train)


def torch_alpha_dropout(input: Tensor, p: float, train: bool) -> Tensor:
    return alpha_dropout(input, p, train)


@contextmanager
def patched() -> Iterator[None]:
    """`torch.nn.functional`'s dropout by the kernels, in code that one cannot edit.

    It covers what looks a function up in `torch.nn.functional`, or `torch.dropout` and
    `torch.alpha_dropout`, while the context is open, in any thread; attention with `dropout_p > 0`
    too. Contexts may be nested, and overlap between threads: the last to close undoes it.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import patched
    >>> layer = torch.nn.TransformerEncoderLayer(8, 2, 16)
    >>> with patched():
    ...     layer(torch.ones(3, 1, 8)).shape
    torch.Size([3, 1, 8])
    """
    ours = {
        "dropout": dropout, "alpha_dropout": alpha_dropout, "dropout1d": dropout1d,
        "dropout2d": dropout2d, "dropout3d": dropout3d, SDPA: attention,
    }  # fmt: skip
    targets = {(F, name): function for name, function in ours.items()}
    targets |= {(torch, "dropout"): torch_dropout, (torch, "alpha_dropout"): torch_alpha_dropout}
    PATCHES.enter(targets)
    try:
        yield
    finally:
        PATCHES.leave()
