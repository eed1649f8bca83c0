"""The forms of dropout of `torch.nn.functional`, on our operators. Other tensors go to PyTorch's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fastdrop.torch.operators import DTYPES, apply_forward, apply_forward_add, new_seed

SDPA = "scaled_dot_product_attention"
NAMES = "dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d", SDPA
TORCH: dict[str, Any] = {name: getattr(F, name) for name in NAMES}


def supported(x: Tensor) -> bool:
    # A nested tensor says that it is strided, but an array cannot have its shape.
    return x.device.type == "cpu" and x.dtype in DTYPES and x.layout == torch.strided and not x.is_nested


def checked(p: float) -> float:
    """Return `p`, or raise PyTorch's own error if it is not a probability."""
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
    return p


def refuse_generator(generator: torch.Generator | None, x: Tensor) -> None:
    """Refuse a generator where PyTorch's own operators run: they take none, and a run would not be reproducible."""
    if generator is not None:
        raise TypeError(
            f"generator needs a strided CPU tensor of {', '.join(map(str, DTYPES))} with the axes that "
            f"the call is for, got {x.dtype} on {x.device} with {x.dim()} axes"
        )


def drop(
    x: Tensor, p: float, training: bool, inplace: bool, generator: torch.Generator | None,
    form: str, torch_form: Any, shared: Sequence[int] = (),
) -> Tensor:  # fmt: skip
    """Do what the functions below have in common."""
    checked(p)
    ours = supported(x)
    if not ours:
        refuse_generator(generator, x)
    if not (ours and training and p > 0.0):
        return torch_form(x, p, training, inplace)
    y: Tensor = apply_forward(x, 1.0 - p, form, list(shared), new_seed(generator))[0]
    return x.copy_(y) if inplace else y


def relu_and_dropout(x: Tensor, p: float, training: bool, inplace: bool) -> Tensor:
    return TORCH["dropout"](F.relu(x, inplace), p, training, inplace)


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
    """Compute ``dropout(relu(input), p, training)`` in one pass. The parameters are those of `dropout`."""
    return drop(input, p, training, inplace, generator, "relu_dropout", relu_and_dropout)


def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Do as `torch.nn.functional.alpha_dropout`. The parameters are those of `dropout`."""
    return drop(input, p, training, inplace, generator, "alpha_dropout", TORCH["alpha_dropout"])


def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False, *,
    generator: torch.Generator | None = None,
) -> Tensor:  # fmt: skip
    """Do as `torch.nn.functional.feature_alpha_dropout`, which drops whole channels of an input (N, C, ...).

    The parameters are those of `dropout`.
    """
    theirs = TORCH["feature_alpha_dropout"]
    if input.dim() < 2:
        refuse_generator(generator, input)
        return theirs(input, p, training, inplace)  # it raises its own error
    return drop(input, p, training, inplace, generator, "alpha_dropout", theirs, range(2, input.dim()))


def channels(name: str, spatial: int) -> Any:
    """Return a function that drops whole channels of an input (N, C, ...) or, without a batch, (C, ...)."""

    def call(
        input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False, *,
        generator: torch.Generator | None = None,
    ) -> Tensor:  # fmt: skip
        batched = input.dim() == spatial + 2
        if not batched and (input.dim() != spatial + 1 or name == "dropout2d"):
            refuse_generator(generator, input)
            return TORCH[name](input, p, training, inplace)  # it has its own warnings and errors
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
    """Compute ``residual + dropout(input, p, training)`` in one pass. The parameters are those of `dropout`."""
    alike = residual.shape == input.shape and residual.dtype == input.dtype
    if not training or p == 0.0 or not (supported(input) and supported(residual) and alike):
        return residual + dropout(input, p, training, generator=generator)
    result: Tensor = apply_forward_add(input, residual, 1.0 - checked(p), new_seed(generator))[0]
    return result
