"""What fastdrop asks PyTorch under names that are not public, with an answer where a version lacks the name.

Such an answer errs on the side of the operators, or of PyTorch's own functions: they are right everywhere,
and slower.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module
from torch.utils import checkpoint as checkpointing

is_tracing: Any = torch.jit.is_tracing  # type: ignore[attr-defined]


def of_torch(holder: Any, name: str, otherwise: Any) -> Any:
    """`holder.name`, or what stands in for it where this version has none."""
    return getattr(holder, name, otherwise)


def imported(module: str, name: str) -> tuple[type, ...]:
    """The class of this name in a module of PyTorch, if there is one."""
    try:
        return (getattr(__import__(module, fromlist=[name]), name),)
    except (ImportError, AttributeError):
        return ()


# Whether a transform of torch.func is active: then a plain tensor may be a wrapper.
transforms_active = of_torch(torch._C, "_are_functorch_transforms_active", lambda: True)
# The innermost of them, if there is one.
innermost_transform = of_torch(of_torch(torch._C, "_functorch", None), "peek_interpreter_stack", lambda: None)
# How many dispatch modes want to see each operator: tracing, fake tensors, a user's own.
count_modes = of_torch(torch._C, "_len_torch_dispatch_stack", lambda: 1)
# None, unless torch.jit.trace or the ONNX exporter built on it records what is called.
tracing_state = of_torch(torch._C, "_get_tracing_state", lambda: is_tracing() or None)
# Holds `_current_level`, which is negative while no level of forward-mode derivatives is open.
forward_mode: dict[str, Any] = vars(forward_ad)
# Whether such derivatives are computed at all: not inside of an autograd.Function, which brings its own.
derives_forward = of_torch(torch._C, "_is_fwd_grad_enabled", lambda: True)
# Whether a tensor shares its memory until one of the sharers writes; and the address of its storage, which
# `data_ptr` cannot give without a copy. Where there is no such address, we do copy.
storage_address = of_torch(torch._C, "_data_address", None)
is_lazy_copy = of_torch(torch._C if storage_address else None, "_is_cow_tensor", lambda tensor: False)
# Tensors that stand for others while PyTorch's compilers trace: they bring operators, and know ours too.
TRACED = (
    *imported("torch._subclasses.fake_tensor", "FakeTensor"),
    *imported("torch._subclasses.functional_tensor", "FunctionalTensor"),
)
# What a class has as `__torch_function__` that overrides none: a Parameter, for one.
NO_FUNCTION = of_torch(torch._C, "_disabled_torch_function_impl", torch.nn.Parameter.__torch_function__)
function_modes = of_torch(torch.overrides, "_get_current_function_mode_stack", lambda: [None])

# Hooks on every module there is. Where a version keeps them elsewhere, we take it that there are some.
FORWARD_HOOKS, FORWARD_PRE_HOOKS, BACKWARD_HOOKS, BACKWARD_PRE_HOOKS = (
    of_torch(nn_module, f"_global_{kind}_hooks", (None,))
    for kind in ("forward", "forward_pre", "backward", "backward_pre")
)
# The id of the backward pass that runs on this thread, or -1.
backward_pass = of_torch(torch._C, "_current_graph_task_id", lambda: -1)
# A softmax whose rows of -inf alone are 0; `softmax_or_zero` in patches.py replaces it before PyTorch 2.5.
safe_softmax = of_torch(torch, "_safe_softmax", None)
# What non-reentrant checkpointing calls with the function that it computes again.
RECOMPUTERS = [
    name
    for name in ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")
    if hasattr(checkpointing, name)
] or ["checkpoint"]


def only_own_modes() -> bool:
    """Whether all modes that see function calls are PyTorch's own, none of which looks for a dropout.

    A `torch.device` context places new tensors, and `make_fx` notes where a node comes from.
    """
    return all(type(mode).__module__.startswith("torch.") for mode in function_modes())


def is_functionalized() -> bool:
    """Whether the innermost transform is `functionalize`, which takes operators only."""
    transform = innermost_transform()
    return transform is not None and transform.key().name == "Functionalize"


def open_forward_level() -> bool:
    return forward_mode.get("_current_level", 0) >= 0


def loses_tangent(*tensors: Tensor | None) -> bool:
    """Whether a forward-mode derivative is wanted that an operator without one would lose."""
    unpack: Any = forward_ad.unpack_dual
    return (
        open_forward_level()
        and derives_forward()
        and any(unpack(tensor).tangent is not None for tensor in tensors if tensor is not None)
    )


def has_function(kind: type) -> bool:
    """Whether tensors of this class override functions, as subclasses do unless they say otherwise."""
    return kind is not Tensor and kind.__torch_function__ is not NO_FUNCTION  # type: ignore[attr-defined]


def has_operators(kind: type) -> bool:
    """Whether tensors of this subclass bring operators, as DTensor does, among which ours are not."""
    theirs: Any = kind
    return theirs.__torch_dispatch__ is not Tensor.__torch_dispatch__ and not issubclass(kind, TRACED)
