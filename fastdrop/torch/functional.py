"""The forms of dropout of `torch.nn.functional`, by the kernels where they can, else by PyTorch's own functions.

Each function tries fast.pyx first, then the operators. A call that other code has to see goes to PyTorch's own
function: a subclass with `__torch_function__`, DTensor, or a tracer of FX, torch.jit or ONNX looks for that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from fastdrop.torch import fast
from fastdrop.torch.internals import TRACED, count_modes, has_function, has_operators, only_own_modes, tracing_state
from fastdrop.torch.operators import DTYPES, EVERY, apply_forward, apply_forward_add, new_seed

SDPA = "scaled_dot_product_attention"
NAMES = "dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", SDPA
TORCH: dict[str, Any] = {name: getattr(F, name) for name in NAMES}


def has_channels(x: Any) -> bool:
    """Whether the input has the axes (N, C, ...)."""
    return isinstance(x, Tensor) and x.dim() >= 2


def relu_and_dropout(x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    """`relu_dropout` in two calls, for whoever has to see the calls: PyTorch has no function of both."""
    return dropout(F.relu(x, inplace), p, training, inplace)


TORCH["relu_dropout"] = relu_and_dropout
DROPOUT, RELU_DROPOUT, ALPHA_DROPOUT = range(3)  # indices of fast.FORMS
# Each function calls `fast_drop` itself: on a small tensor a frame more takes 4 % of a call.
fast_drop, fast_drop_add, NUMBERS = fast.drop, fast.drop_add, fast.NUMBERS


def supported(x: Tensor) -> bool:
    """Whether the operators take this tensor."""
    # A nested tensor calls itself strided, but has no shape that an array could have.
    return x.device.type == "cpu" and x.dtype in DTYPES and x.layout == torch.strided and not x.is_nested


def looked_for(x: Any) -> bool:
    """Whether a subclass, a tracer or a mode has to see which function is called."""
    if not has_torch_function_unary(x):
        return False
    if isinstance(x, Tensor) and not has_function(type(x)):  # so it is a mode
        return not (torch.compiler.is_compiling() or only_own_modes())
    return True


def belongs_to_others(x: Any, p: Any, training: Any) -> bool:
    """Whether the call is PyTorch's own: for somebody who looks for it, or for the error it gives."""
    kind = type(x)
    return (
        not (isinstance(x, Tensor) and isinstance(p, float) and isinstance(training, bool))
        or (kind is not Tensor and kind is not torch.nn.Parameter and (has_operators(kind) or untraced(kind)))
        or tracing_state() is not None
        or torch.onnx.is_in_onnx_export()
    )


def untraced(kind: type) -> bool:
    """Whether a tensor that stands for another in a trace is used outside of it."""
    return issubclass(kind, TRACED) and not count_modes()


def is_hidden(p: Any) -> bool:
    """Whether a compiler sees `p` as a tensor, as it does a NumPy number. Such a call is not compiled."""
    return is_dynamo_compiling() and not isinstance(p, (int, float))


def checked(p: float) -> float:
    """`p`, with PyTorch's own words where it is no probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return p


def refuse_generator(generator: torch.Generator | None, x: Tensor) -> None:
    """PyTorch's own operators take none, and to ignore it would lose reproducibility in silence."""
    if generator is not None:
        raise TypeError(
            f"generator needs a strided CPU tensor of {', '.join(map(str, DTYPES))} with the axes that "
            f"the call is for, a number p and a bool training, outside of tracing; got {described(x)}"
        )


def described(x: Any) -> str:
    if not isinstance(x, Tensor):
        return f"a {type(x).__name__}"
    return f"a {type(x).__name__}, {x.dtype} on {x.device} with {x.dim()} axes"


def drop(
    x: Any, p: Any, training: Any, inplace: bool, generator: torch.Generator | None,
    form: int, name: str, features: int = EVERY,
) -> Tensor:  # fmt: skip
    """What the functions below do where fast.pyx did not. `name` is that of PyTorch's own function."""
    theirs = TORCH[name]
    if is_hidden(p):
        return drop_eagerly(x, p, training, inplace, generator, form, name, features)
    if generator is None and looked_for(x):
        if theirs is relu_and_dropout:
            return theirs(x, p, training, inplace)
        return handle_torch_function(theirs, (x,), x, p=p, training=training, inplace=inplace)
    if isinstance(p, NUMBERS):
        p = float(checked(p))
    if belongs_to_others(x, p, training) or not supported(x):
        refuse_generator(generator, x)
        return theirs(x, p, training, inplace)
    if not training or p == 0.0:
        return theirs(x, p, training, inplace)
    y: Tensor = apply_forward(x, 1.0 - p, fast.FORMS[form], features, new_seed(generator))[0]
    return x.copy_(y) if inplace else y


drop_eagerly: Any = torch.compiler.disable(drop)  # type: ignore[no-untyped-call]


def channel_axes(x: Any, spatial: int) -> int:
    """How many leading axes have decisions of their own: those of (N, C, ...) or (C, ...), and 0 for other inputs."""
    axes = x.dim() if isinstance(x, Tensor) else 0
    return 2 if axes == spatial + 2 else 1 if axes == spatial + 1 and spatial != 2 else 0


def drop_channels(
    x: Any, p: Any, training: Any, inplace: bool, generator: torch.Generator | None, name: str, spatial: int
) -> Tensor:
    """What the functions below do where fast.pyx did not, for dropout of whole channels."""
    features = EVERY if generator is None and looked_for(x) else channel_axes(x, spatial)
    if not features:
        refuse_generator(generator, x)
        return TORCH[name](x, p, training, inplace)  # with its own warnings and errors
    return drop(x, p, training, inplace, generator, DROPOUT, name, features)


def dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Dropout of single elements, as `torch.nn.functional.dropout`.

    Parameters
    ----------
    input : Tensor
        Any shape.
    p : float, default 0.5
        The probability that an element is dropped, in [0, 1].
    training : bool, default True
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``input / (1 - p)`` where kept, else 0.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout
    >>> generator = torch.Generator().manual_seed(0)
    >>> sorted(set(dropout(torch.ones(1000), 0.5, generator=generator).tolist()))
    [0.0, 2.0]
    """
    if not is_dynamo_compiling():
        y = fast_drop(input, p, training, inplace, generator, DROPOUT, EVERY)
        if y is not None:
            return y
    return drop(input, p, training, inplace, generator, DROPOUT, "dropout")


def relu_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """``dropout(relu(input), p, training)`` in one pass.

    Parameters
    ----------
    input : Tensor
        Any shape.
    p : float, default 0.5
        The probability that an element is dropped, in [0, 1].
    training : bool, default True
        If False, the result is ``relu(input)``.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``relu(input) / (1 - p)`` where kept, else 0.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import relu_dropout
    >>> generator = torch.Generator().manual_seed(0)
    >>> relu_dropout(torch.tensor([-1.0, 3.0, 3.0, 3.0]), 0.5, generator=generator).tolist()
    [0.0, 6.0, 0.0, 6.0]
    """
    if not is_dynamo_compiling():
        y = fast_drop(input, p, training, inplace, generator, RELU_DROPOUT, EVERY)
        if y is not None:
            return y
    return drop(input, p, training, inplace, generator, RELU_DROPOUT, "relu_dropout")


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Dropout for SELU networks, as `torch.nn.functional.alpha_dropout`.

    Parameters
    ----------
    input : Tensor
        Any shape.
    p : float, default 0.5
        The probability that an element is dropped, in [0, 1].
    training : bool, default False
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        An affine map, which keeps mean 0 and variance 1, of `input` where kept, and of the negative limit
        of SELU where dropped.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import alpha_dropout
    >>> generator = torch.Generator().manual_seed(0)
    >>> alpha_dropout(torch.zeros(3), 0.5, True, generator=generator).tolist()
    [-0.7791939377784729, 0.7791939377784729, -0.7791939377784729]
    """
    if not is_dynamo_compiling():
        y = fast_drop(input, p, training, inplace, generator, ALPHA_DROPOUT, EVERY)
        if y is not None:
            return y
    return drop(input, p, training, inplace, generator, ALPHA_DROPOUT, "alpha_dropout")


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """`alpha_dropout` of whole channels, as `torch.nn.functional.feature_alpha_dropout`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, ...).
    p : float, default 0.5
        The probability that a channel is dropped, in [0, 1].
    training : bool, default False
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        As of `alpha_dropout`, with one decision per channel.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import feature_alpha_dropout
    >>> generator = torch.Generator().manual_seed(0)
    >>> feature_alpha_dropout(torch.zeros(1, 2, 2), 0.5, True, generator=generator).tolist()
    [[[-0.7791939377784729, -0.7791939377784729], [0.7791939377784729, 0.7791939377784729]]]
    """
    seen = generator is None and has_torch_function_unary(input)
    if not (seen or has_channels(input)):
        refuse_generator(generator, input)
        return TORCH["feature_alpha_dropout"](input, p, training, inplace)  # with its own error
    if not is_dynamo_compiling():
        y = fast_drop(input, p, training, inplace, generator, ALPHA_DROPOUT, 2)
        if y is not None:
            return y
    return drop(input, p, training, inplace, generator, ALPHA_DROPOUT, "feature_alpha_dropout", 2)


def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Dropout of whole channels, as `torch.nn.functional.dropout1d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, L) or (C, L).
    p : float, default 0.5
        The probability that a channel is dropped, in [0, 1].
    training : bool, default True
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``input / (1 - p)`` where its channel is kept, else 0.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout1d
    >>> generator = torch.Generator().manual_seed(0)
    >>> dropout1d(torch.ones(1, 3, 2), 0.5, generator=generator).flatten().tolist()
    [0.0, 0.0, 2.0, 2.0, 0.0, 0.0]
    """
    if not (is_dynamo_compiling() or has_torch_function_unary(input)):
        y = fast_drop(input, p, training, inplace, generator, DROPOUT, channel_axes(input, 1))
        if y is not None:
            return y
    return drop_channels(input, p, training, inplace, generator, "dropout1d", 1)


def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Dropout of whole channels, as `torch.nn.functional.dropout2d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, H, W). An input (C, H, W) is taken for (N, C, L), as PyTorch does.
    p : float, default 0.5
        The probability that a channel is dropped, in [0, 1].
    training : bool, default True
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``input / (1 - p)`` where its channel is kept, else 0.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout2d
    >>> generator = torch.Generator().manual_seed(0)
    >>> dropout2d(torch.ones(1, 3, 2, 2), 0.5, generator=generator).flatten().tolist()
    [0.0, 0.0, 0.0, 0.0, 2.0, 2.0, 2.0, 2.0, 0.0, 0.0, 0.0, 0.0]
    """
    if not (is_dynamo_compiling() or has_torch_function_unary(input)):
        y = fast_drop(input, p, training, inplace, generator, DROPOUT, channel_axes(input, 2))
        if y is not None:
            return y
    return drop_channels(input, p, training, inplace, generator, "dropout2d", 2)


def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Dropout of whole channels, as `torch.nn.functional.dropout3d`.

    Parameters
    ----------
    input : Tensor
        Shape (N, C, D, H, W) or (C, D, H, W).
    p : float, default 0.5
        The probability that a channel is dropped, in [0, 1].
    training : bool, default True
        If False, the result is `input` itself.
    inplace : bool, default False
        Write the result over `input`.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``input / (1 - p)`` where its channel is kept, else 0.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout3d
    >>> generator = torch.Generator().manual_seed(0)
    >>> dropout3d(torch.ones(1, 3, 2, 2, 2), 0.5, generator=generator)[..., 0, 0, 0].tolist()
    [[0.0, 2.0, 0.0]]
    """
    if not (is_dynamo_compiling() or has_torch_function_unary(input)):
        y = fast_drop(input, p, training, inplace, generator, DROPOUT, channel_axes(input, 3))
        if y is not None:
            return y
    return drop_channels(input, p, training, inplace, generator, "dropout3d", 3)


def dropout_add(
    input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """``residual + dropout(input, p, training)``, in one pass where both have one shape and dtype.

    Parameters
    ----------
    input : Tensor
        Any shape.
    residual : Tensor
        What is added, of a shape that broadcasts with that of `input`.
    p : float, default 0.5
        The probability that an element of `input` is dropped, in [0, 1].
    training : bool, default True
        If False, the result is ``residual + input``.
    generator : torch.Generator, optional
        The source of the seed of this call. By default it is PyTorch's own generator.

    Returns
    -------
    Tensor
        ``residual + input / (1 - p)`` where kept, else `residual`. It is rounded once, so in 16 bits it may differ
        in the last bit from the sum of two results.

    Raises
    ------
    ValueError
        If `p` is not in [0, 1].
    TypeError
        If a generator is given for a tensor that only PyTorch's own function can take.

    Examples
    --------
    >>> import torch
    >>> from fastdrop.torch import dropout_add
    >>> generator = torch.Generator().manual_seed(0)
    >>> dropout_add(torch.ones(5), torch.ones(5), 0.5, generator=generator).tolist()
    [1.0, 3.0, 1.0, 3.0, 3.0]
    """
    return drop_add(input, residual, p, training, generator)


def drop_add(x: Any, residual: Any, p: Any, training: Any, generator: torch.Generator | None) -> Tensor:
    if is_hidden(p):
        return drop_add_eagerly(x, residual, p, training, generator)
    if isinstance(p, NUMBERS):
        p = float(checked(p))
    if not is_dynamo_compiling():
        y = fast_drop_add(x, residual, p, training, generator)
        if y is not None:
            return y
    if adds_in_one_pass(x, residual, p, training, generator):
        result: Tensor = apply_forward_add(x, residual, 1.0 - p, new_seed(generator))[0]
        return result
    return residual + dropout(x, p, training, generator=generator)


drop_add_eagerly: Any = torch.compiler.disable(drop_add)  # type: ignore[no-untyped-call]


def adds_in_one_pass(
    x: Tensor, residual: Tensor, p: float, training: bool, generator: torch.Generator | None
) -> bool:
    """Whether the operator of both takes the call."""
    if belongs_to_others(x, p, training) or belongs_to_others(residual, p, training):
        return False
    if generator is None and (looked_for(x) or looked_for(residual)):
        return False
    alike = residual.shape == x.shape and residual.dtype == x.dtype
    return training and p != 0.0 and alike and supported(x) and supported(residual)


# --- TorchScript ------------------------------------------------------------------------------

# A program of `torch.jit.script` has no Python. It gets PyTorch's own functions, through the hook that
# `torch.jit.script` calls. These two spell out what PyTorch has no function for.

torch_dropout, torch_relu = F.dropout, F.relu


def scripted_relu_dropout(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    return torch_dropout(torch_relu(input, inplace), p, training, inplace)


def scripted_dropout_add(input: Tensor, residual: Tensor, p: float = 0.5, training: bool = True) -> Tensor:
    return residual + torch_dropout(input, p, training)


def script_as(ours: Any, theirs: Any) -> None:
    ours.__prepare_scriptable__ = lambda: theirs


for function in (dropout, alpha_dropout, feature_alpha_dropout, dropout1d, dropout2d, dropout3d):
    script_as(function, TORCH[function.__name__])
script_as(relu_dropout, scripted_relu_dropout)
script_as(dropout_add, scripted_dropout_add)
