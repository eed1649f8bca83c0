"""Every form agrees with PyTorch's formula for our decisions; alpha and Gaussian dropout also with Keras's.

PyTorch differentiates its formula itself, so the backward calls are compared with its gradients.
"""

from __future__ import annotations

import numpy as np
import pytest

import fastdrop as fd

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

KEEP_PROB = 0.7
SHAPE = (4, 6, 5, 8)
RELATIVE = {"float32": 2e-6, "float64": 1e-14}


def numbers(seed: int, dtype: str, shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def close(actual: np.ndarray, expected: torch.Tensor, dtype: str, what: str) -> None:
    wanted = expected.detach().numpy()
    assert actual.dtype == wanted.dtype
    np.testing.assert_allclose(actual, wanted, rtol=RELATIVE[dtype], atol=4 * RELATIVE[dtype], err_msg=what)


def formulas(decided: torch.Tensor):
    """Each form is written in PyTorch's own terms; `decided` replaces its Bernoulli draw."""
    relu = torch.nn.functional.relu
    alpha = -1.7580993408473766
    a = ((alpha**2 * (1 - KEEP_PROB) + 1) * KEEP_PROB) ** -0.5
    noise = decided / KEEP_PROB
    return {
        "relu_dropout": lambda x, bias, residual: relu(x + bias) * noise,
        "dropout": lambda x, bias, residual: (x + bias) * noise,
        "dropout_add": lambda x, bias, residual: residual + (x + bias) * noise,
        # aten/src/ATen/native/Dropout.cpp: input * (noise * a) + b, b made of noise, alpha and a
        "alpha_dropout": lambda x, bias, residual: (
            x * (decided * a) + (decided - 1) * (-alpha * a) - alpha * a * (1 - KEEP_PROB)
        ),
    }


@pytest.mark.parametrize("dtype", RELATIVE)
@pytest.mark.parametrize("shared", [(), (2, 3), (0,), (1, 2, 3)])
@pytest.mark.parametrize("call", ["relu_dropout", "dropout", "dropout_add", "alpha_dropout"])
def test_the_same_as_pytorch_forward_and_backward(call, shared, dtype):
    x, residual, bias = numbers(0, dtype), numbers(1, dtype), numbers(2, dtype, SHAPE[-1:])
    dy = numbers(3, dtype)
    decisions = fd.keep_mask(SHAPE, keep_prob=KEEP_PROB, broadcast_dims=shared, rng=5).to_array()
    theirs = {name: torch.tensor(value, requires_grad=True) for name, value in
              {"x": x, "bias": bias, "residual": residual}.items()}  # fmt: skip
    expected = formulas(torch.tensor(decisions.astype(dtype)))[call](*theirs.values())
    expected.backward(torch.tensor(dy))

    options = {} if call == "alpha_dropout" else {"bias": bias}
    arrays = (x, residual) if call == "dropout_add" else (x,)
    y, mask = getattr(fd, call)(*arrays, keep_prob=KEEP_PROB, broadcast_dims=shared, rng=5, **options)
    close(y, expected, dtype, "y")
    if call == "alpha_dropout":
        close(fd.alpha_dropout_backward(dy, mask), theirs["x"].grad, dtype, "dx")
        return
    dx, dbias = getattr(fd, f"{call}_backward")(dy, mask, bias_grad=True)
    close(dx, theirs["x"].grad, dtype, "dx")
    np.testing.assert_allclose(dbias, theirs["bias"].grad.numpy(), rtol=1e-4 if dtype == "float32" else 1e-12)
    if call == "dropout_add":
        close(dy, theirs["residual"].grad, dtype, "the residual's gradient")


def test_alpha_is_pytorchs():
    """PyTorch's own operator computes the same for a kept and for a dropped element at an extreme value."""
    torch.manual_seed(0)
    x = torch.full((1000,), 3.0)
    theirs = np.unique(torch.nn.functional.alpha_dropout(x, 1 - KEEP_PROB, True).numpy())
    ours = np.unique(fd.alpha_dropout(np.full(1000, 3.0, np.float32), keep_prob=KEEP_PROB, rng=0)[0])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("dtype", RELATIVE)
def test_gaussian_noise_multiplies(dtype):
    """Keras computes inputs * N(1, sqrt(rate / (1 - rate)))."""
    x, dy = numbers(0, dtype), numbers(1, dtype)
    y, noise = fd.gaussian_dropout(x, keep_prob=KEEP_PROB, rng=5)
    factor = torch.tensor(noise.to_array().astype(dtype))
    theirs = torch.tensor(x, requires_grad=True)
    expected = theirs * factor
    expected.backward(torch.tensor(dy))
    close(y, expected, dtype, "y")
    close(fd.gaussian_dropout_backward(dy, noise), theirs.grad, dtype, "dx")
