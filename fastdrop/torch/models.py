"""Replace the modules of dropout of an existing model, and bring them back."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from torch import nn

from fastdrop.torch.modules import (
    AlphaDropout,
    Dropout,
    Dropout1d,
    Dropout2d,
    Dropout3d,
    FeatureAlphaDropout,
    FusedReLU,
    ReLUDropout,
)

OURS = {
    ours.__mro__[1]: ours
    for ours in (Dropout, AlphaDropout, FeatureAlphaDropout, Dropout1d, Dropout2d, Dropout3d)
}
THEIRS = {ours: theirs for theirs, ours in OURS.items()} | {ReLUDropout: nn.Dropout, FusedReLU: nn.ReLU}


@dataclass
class Report:
    """What `accelerate` did: the names of replaced modules, and the reasons why others were left."""

    replaced: dict[str, str] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        lines = [f"{name}: now {what}" for name, what in self.replaced.items()]
        return "\n".join(lines + [f"{name}: left alone, {why}" for name, why in self.left.items()])


def accelerate(model: nn.Module) -> Report:
    """Run the dropout of a model on the kernels, fused with a ReLU before it in a Sequential.

    The modules stay the same objects with their hooks, flags and names, and get another class, so
    `state_dict` is unchanged. A ReLU is fused only if nothing else can see its result when this is called:
    if it has hooks or is used in several places, only the dropout is replaced. A fused ReLU does nothing
    by itself, so call `restore` before you edit the model, slice it or add hooks.

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
    """Yield each ReLU and Dropout that are next to each other in a Sequential."""
    for module in model.modules():
        if type(module) is nn.Sequential:
            for relu, after in pairwise(module):
                if type(relu) is nn.ReLU and type(after) is nn.Dropout:
                    yield relu, after


def seen_between(relu: nn.Module, after: nn.Module, uses: Counter[int]) -> str:
    """Return the reason why something else sees what is between the two, or an empty text."""
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
