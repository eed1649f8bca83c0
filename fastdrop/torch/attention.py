"""Attention with weights that the kernels drop, which `patched` puts in place of PyTorch's own.

With dropout PyTorch computes attention on the CPU step by step. These are the same steps in the same precision, but
the queries alone are scaled, where PyTorch scales queries and keys by the root.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_dynamo_compiling

from fastdrop.torch import fast
from fastdrop.torch.functional import SDPA, TORCH, belongs_to_others, dropout, looked_for, supported
from fastdrop.torch.internals import safe_softmax

# Settings with a name of CUDA that PyTorch follows on the CPU too. The second came with PyTorch 2.5.
cuda: Any = torch.backends.cuda
halves_allowed: Any = getattr(cuda, "fp16_bf16_reduction_math_sdp_allowed", lambda: False)
HALVES = (torch.float16, torch.bfloat16)
torch_attention = TORCH[SDPA]


def attention(
    query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
    is_causal: bool = False, *, scale: float | None = None, enable_gqa: bool = False,
) -> Tensor:  # fmt: skip
    """Compute `scaled_dot_product_attention` with weights that the kernels drop."""
    if not drops_here(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa):
        only_if_asked = {} if enable_gqa is False else {"enable_gqa": enable_gqa}  # PyTorch 2.4 has no such argument
        return torch_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, **only_if_asked
        )
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value, attn_mask = (in_autocast(x, kind) for x in (query, key, value, attn_mask))
        with torch.autocast("cpu", enabled=False):
            return attend(query, key, value, attn_mask, dropout_p, is_causal, scale)
    return attend(query, key, value, attn_mask, dropout_p, is_causal, scale)


# --- which calls ------------------------------------------------------------------------------


def drops_here(
    query: Any, key: Any, value: Any, mask: Any, dropout_p: Any, is_causal: Any, scale: Any, enable_gqa: Any
) -> bool:
    """Whether the kernels drop for these arguments; PyTorch takes all others, or refuses them."""
    return (
        type(dropout_p) is float
        and 0.0 < dropout_p <= 1.0
        and (scale is None or type(scale) is float)
        and type(is_causal) is bool
        and enable_gqa is False
        and not (is_causal and mask is not None)
        and are_ours(query, key, value)
        and (is_dynamo_compiling() or computes_in_steps(query))
        and query.dtype == key.dtype == value.dtype
        and min(query.dim(), key.dim(), value.dim()) >= 2
        and agree(query.shape, key.shape, value.shape)
        and (mask is None or fits(mask, query, key))
    )


def computes_in_steps(query: Any) -> bool:
    """Whether PyTorch itself takes these steps, for all that `torch.nn.attention.sdpa_kernel` and others may ask."""
    return cuda.math_sdp_enabled() and not (halves_allowed() and query.dtype in HALVES)


def are_ours(*tensors: Any) -> bool:
    """Whether the kernels take such tensors, and nobody else has to see the call."""
    if not is_dynamo_compiling() and fast.are_plain(tensors):
        return True
    return all(not is_others(tensor) and supported(tensor) for tensor in tensors)


def is_others(tensor: Any) -> bool:
    return belongs_to_others(tensor, 0.5, True) or looked_for(tensor)


def agree(query: torch.Size, key: torch.Size, value: torch.Size) -> bool:
    """Whether the shapes are (..., L, E), (..., S, E) and (..., S, V), with keys for each example or for all."""
    examples = query[:-2]
    alike = key[:-2] == value[:-2] == examples or (expands(key[:-2], examples) and expands(value[:-2], examples))
    return alike and key[-2] == value[-2] and query[-1] == key[-1]


def expands(shape: torch.Size, whole: torch.Size) -> bool:
    """Whether broadcasting makes `whole` of a shape."""
    return len(shape) <= len(whole) and all(length in (1, full) for length, full in zip(shape[::-1], whole[::-1]))


def fits(mask: Tensor, query: Tensor, key: Tensor) -> bool:
    """Whether a mask is one that PyTorch adds to the scores in place."""
    strided = not is_others(mask) and mask.layout == torch.strided and not mask.is_nested
    kind = strided and mask.device == query.device and mask.dtype in (torch.bool, query.dtype)
    return kind and expands(mask.shape, query.shape[:-1] + key.shape[-2:-1])


def in_autocast(tensor: Any, kind: torch.dtype) -> Any:
    """What autocasting makes of an argument of attention."""
    if tensor is None or not tensor.is_floating_point() or tensor.dtype == torch.float64:
        return tensor
    return tensor.to(kind)


# --- the steps --------------------------------------------------------------------------------


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout_p: float, is_causal: bool,
    scale: float | None,
) -> Tensor:  # fmt: skip
    """The steps of attention, for arguments that are good."""
    kind = query.dtype
    if kind in HALVES:
        mask = mask if mask is None or mask.dtype == torch.bool else mask.float()
        result = attend(query.float(), key.float(), value.float(), mask, dropout_p, is_causal, scale)
        return result.to(kind)
    *examples, rows, width = query.shape
    columns = key.shape[-2]
    keys = matrices(key, examples).transpose(1, 2)
    if scale is None:
        scale = 1.0 / math.sqrt(width or 1)
    scores = torch.bmm(matrices(query * scale, examples), keys)
    if is_causal:
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril()
    if mask is not None:
        scores = (scores.view(*examples, rows, columns) + added(mask, query.dtype)).view(scores.shape)
    weights = dropout(softmax_or_zero(scores), dropout_p)
    return torch.bmm(weights, matrices(value, examples)).view(*examples, rows, value.shape[-1])


def matrices(x: Tensor, examples: list[int]) -> Tensor:
    """The matrices of the last two axes, one after the other."""
    *own, rows, columns = x.shape
    if own != examples:
        x = x.expand(*examples, rows, columns)
    return x.reshape(math.prod(examples), rows, columns)


def added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What a mask adds to the scores: a mask of bools says which keys a query may see."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -math.inf)


def softmax_or_zero(scores: Tensor) -> Tensor:
    """The softmax of each row, and 0 in rows of -inf alone, as of a query that may see nothing."""
    weights = None if is_dynamo_compiling() else fast.softmax(scores)
    if weights is not None:
        return weights
    if safe_softmax is not None:
        return safe_softmax(scores, -1)
    blind = scores.isneginf().all(-1, keepdim=True)  # let see everything, which is finite, and then replaced
    return torch.softmax(scores.masked_fill(blind, 0.0), -1).masked_fill(blind, 0.0)
