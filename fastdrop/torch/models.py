"""Replace the classes of the dropout modules of an existing model, and bring them back.

Only the class of a module changes, and nothing else remembers the change. Each class here stands for one of
PyTorch's and exists for `accelerate` only, so `restore` recognises its modules, also after a copy or a pickle.

A ReLU stays PyTorch's own module. The Sequential that holds it decides at each call whether to run it together
with the dropout after it. It does so only if nothing can see the ReLU's result, and the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F

from fastdrop.torch import modules
from fastdrop.torch.functional import RELU_DROPOUT, fast_drop, relu_dropout
from fastdrop.torch.internals import BACKWARD_HOOKS, BACKWARD_PRE_HOOKS, FORWARD_HOOKS, FORWARD_PRE_HOOKS
from fastdrop.torch.modules import Leaf
from fastdrop.torch.operators import EVERY


class Dropout(modules.Dropout):
    """A `torch.nn.Dropout` that `accelerate` found."""

    __module__ = Leaf(__name__)


class AlphaDropout(modules.AlphaDropout):
    """A `torch.nn.AlphaDropout` that `accelerate` found."""

    __module__ = Leaf(__name__)


class FeatureAlphaDropout(modules.FeatureAlphaDropout):
    """A `torch.nn.FeatureAlphaDropout` that `accelerate` found."""

    __module__ = Leaf(__name__)


class Dropout1d(modules.Dropout1d):
    """A `torch.nn.Dropout1d` that `accelerate` found."""

    __module__ = Leaf(__name__)


class Dropout2d(modules.Dropout2d):
    """A `torch.nn.Dropout2d` that `accelerate` found."""

    __module__ = Leaf(__name__)


class Dropout3d(modules.Dropout3d):
    """A `torch.nn.Dropout3d` that `accelerate` found."""

    __module__ = Leaf(__name__)


class Sequential(nn.Sequential):
    """A `torch.nn.Sequential` that `accelerate` found: a ReLU and the Dropout after it run in one pass."""

    def forward(self, input: Tensor) -> Tensor:
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            for module in self:
                input = module(input)
        else:
            input = run(tuple(self._modules.values()), input)
        return input


# FX writes these into the programs that it makes, and does not evaluate strings.
Sequential.forward.__annotations__ = {"input": Tensor, "return": Tensor}

OURS: dict[type, type] = {
    nn.Dropout: Dropout, nn.AlphaDropout: AlphaDropout, nn.FeatureAlphaDropout: FeatureAlphaDropout,
    nn.Dropout1d: Dropout1d, nn.Dropout2d: Dropout2d, nn.Dropout3d: Dropout3d,
}  # fmt: skip
THEIRS = {ours: theirs for theirs, ours in OURS.items()} | {Sequential: nn.Sequential}
MADE_OF_OURS = tuple(base for ours in OURS.values() for base in ours.__mro__[1:2])

# --- a Sequential at work ---------------------------------------------------------------------

DROPOUTS = (Dropout, modules.Dropout)
# Modules whose result is a new tensor that no gradient needs, so that nobody else holds it.
MAKERS = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm,
)  # fmt: skip
CALL, RELU_FORWARD, RELU = nn.Module.__call__, nn.ReLU.forward, F.relu


def run(members: tuple[nn.Module, ...], x: Any) -> Any:
    """Run the members one after the other, each ReLU together with the dropout after it where possible."""
    last, done = len(members) - 1, False
    for n, module in enumerate(members):
        if done:
            done = False
            continue
        y = None
        if type(module) is nn.ReLU and n < last:
            y = with_next(members[n - 1] if n else None, module, members[n + 1], x)
        done = y is not None
        x = y if done else module(x)
    return x


def with_next(before: nn.Module | None, relu: nn.Module, dropout: Any, x: Any) -> Tensor | None:
    """Run a ReLU together with the module after it, or return None if each has to run alone."""
    if type(dropout) in DROPOUTS and unseen(before, relu, dropout):
        return in_one_pass(x, dropout.p)
    return None


def unseen(before: nn.Module | None, relu: Any, dropout: Any) -> bool:
    """Whether nothing can see what the ReLU gives to the dropout, nor that its input is not written over."""
    return (
        dropout.training is True
        and not dropout.inplace
        and runs_plainly(relu)
        and runs_plainly(dropout)
        and (not relu.inplace or (type(before) in MAKERS and runs_plainly(before)))
        and not (FORWARD_HOOKS or FORWARD_PRE_HOOKS or BACKWARD_HOOKS or BACKWARD_PRE_HOOKS)
        and nn.Module.__call__ is CALL
        and nn.ReLU.forward is RELU_FORWARD
        and F.relu is RELU
    )


def runs_plainly(module: Any) -> bool:
    """Whether a call of the module calls its class's `forward` and nothing else."""
    return not (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )


def in_one_pass(x: Any, p: Any) -> Tensor | None:
    """Compute ReLU and dropout of `x`, or return None if a transform, a mode or a tracer has to see both."""
    if is_dynamo_compiling():
        return relu_dropout(x, p, True)
    return fast_drop(x, p, True, False, None, RELU_DROPOUT, EVERY)


# --- swapping ---------------------------------------------------------------------------------


@dataclass
class Report:
    """What `accelerate` did.

    Attributes
    ----------
    replaced : dict of str to str
        The class of each dropout that was replaced, by the name of the module.
    fused : dict of str to str
        The name of the ReLU in front of such a dropout in a Sequential, by the name of the dropout. The two
        run in one pass at each call in which nothing else sees the ReLU's result.
    left : dict of str to str
        Why other modules that drop, or seem to drop, were left alone, by their names.
    """

    replaced: dict[str, str] = field(default_factory=dict)
    fused: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [
            f"{shown(name)}: now fastdrop.torch.{kind}"
            + (f", in one pass with the ReLU {self.fused[name]}" if name in self.fused else "")
            for name, kind in self.replaced.items()
        ]
        if not lines:
            lines = [
                "nothing to replace"
                if self.left
                else "nothing to replace: this model has no module of dropout. If it calls "
                "torch.nn.functional.dropout itself, use patched()"
            ]
        return "\n".join(lines + [f"{shown(name)}: left alone, {why}" for name, why in self.left.items()])


def shown(name: str) -> str:
    return name or "the model itself"


def accelerate(model: nn.Module) -> Report:
    """Run the dropout modules of a model on the kernels.

    Each `torch.nn.Dropout`, `AlphaDropout`, `FeatureAlphaDropout` and `Dropout1d` to `Dropout3d` stays the
    same object with its hooks, flags and name. Its class becomes a subclass with the same name, so `state_dict`,
    `isinstance` and tools that look for class names see no difference.

    A `torch.nn.Sequential` with a Dropout after a ReLU gets a subclass too. At each call it runs the two in one
    pass if nothing can see the ReLU's result: no hook, no mode, no tracer, no replaced method, no in-place
    operation on a tensor that other code may hold. Otherwise the two run one after the other, and each of them
    may be called alone. The bits are the same in all cases.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed in place.

    Returns
    -------
    Report
        What was replaced, and what was left and why. It prints as text.

    See Also
    --------
    restore : The way back.
    patched : For models that call `torch.nn.functional.dropout` themselves.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import accelerate
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Dropout(0.1))
    >>> print(accelerate(model))
    2: now fastdrop.torch.Dropout, in one pass with the ReLU 1
    """
    report = Report()
    names = {module: name for name, module in checked(model).named_modules()}
    for module, name in names.items():
        if why := reason_to_leave(module):
            report.left[name] = why
        elif type(module) in OURS:
            module.__class__ = OURS[type(module)]
            report.replaced[name] = type(module).__name__
    for module in names:
        if type(module) in (nn.Sequential, Sequential) and not has_own_forward(module):
            for relu, dropout in pairs(module):
                module.__class__ = Sequential
                if not dropout.inplace:
                    report.fused[names[dropout]] = names[relu]
    return report


def checked(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    return model


def pairs(sequential: Any) -> Iterator[tuple[nn.Module, nn.Module]]:
    """Yield the neighbours that may run in one pass."""
    for relu, dropout in pairwise(sequential):
        if type(relu) is nn.ReLU and type(dropout) in DROPOUTS:
            yield relu, dropout


def has_own_forward(module: nn.Module) -> bool:
    return "forward" in vars(module)


def reason_to_leave(module: nn.Module) -> str:
    """Return why a module that drops, or seems to, is not replaced; an empty text for any other module."""
    kind = type(module)
    if kind in OURS:
        return "it has a forward of its own" if has_own_forward(module) else ""
    if kind in THEIRS or kind in MADE_OF_OURS or kind is modules.ReLUDropout:
        return "" if kind is Sequential else "it is fastdrop's already"
    if isinstance(module, nn.modules.dropout._DropoutNd) or "dropout" in kind.__name__.lower():
        return f"{kind.__name__} is a class of its own"
    rates = [f"{name}={rate}" for name, rate in vars(module).items() if "drop" in name and is_rate(rate)]
    if not rates:
        return ""
    if isinstance(module, nn.RNNBase):
        return f"{rates[0]} is applied between the layers inside of PyTorch's own loop"
    return f"if {', '.join(rates)} is applied by a function of torch.nn.functional, use patched()"


def is_rate(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= 1


def restore(model: nn.Module) -> None:
    """Undo `accelerate`: each module that it changed has PyTorch's class again.

    Parameters
    ----------
    model : torch.nn.Module
        It is changed in place. Modules of `fastdrop.torch` that you made yourself stay.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import accelerate, restore
    >>> model = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Dropout(0.1))
    >>> report = accelerate(model)
    >>> restore(model)
    >>> type(model) is torch.nn.Sequential and type(model[1]) is torch.nn.Dropout
    True
    """
    for module in checked(model).modules():
        if type(module) in THEIRS:
            module.__class__ = THEIRS[type(module)]
