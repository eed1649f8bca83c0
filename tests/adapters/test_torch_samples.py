"""PyTorch's own samples of its dropout operators, through the functions that stand in for them."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
pytest.importorskip("expecttest", reason="PyTorch's samples import expecttest, an extra of theirs")

from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402

import fastdrop.torch as ft  # noqa: E402
from fastdrop.torch.functional import TORCH  # noqa: E402

# What PyTorch warns of itself, and where it is on its way to warn of.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"
)

FORMS = ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout2d", "dropout3d"]
SAMPLED = [op for op in op_db if op.name.removeprefix("nn.functional.") in FORMS]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]


def cases(dtypes=DTYPES):
    for op in SAMPLED:
        name = op.name.removeprefix("nn.functional.")
        for dtype in dtypes:
            if dtype in op.supported_dtypes("cpu"):
                for n, sample in enumerate(op.sample_inputs("cpu", dtype)):
                    label = f"{name}-{op.variant_test_name}-{str(dtype).removeprefix('torch.')}-{n}"
                    yield pytest.param(name, sample, id=label)


def called(function, sample, seed=0, **changed):
    x = sample.input.detach().clone(memory_format=torch.preserve_format)
    x.requires_grad_(sample.input.requires_grad)
    torch.manual_seed(seed)
    return x, function(x, *sample.args, **(sample.kwargs | changed))


def drops(sample):
    """Whether anything is left to chance."""
    p = sample.kwargs.get("p", sample.args[0] if sample.args else 0.5)
    return 0.0 < p < 1.0 and sample.kwargs.get("training", True)


@pytest.mark.parametrize(("name", "sample"), list(cases()))
def test_a_result_is_one_that_pytorch_could_give(name, sample):
    _, ours = called(getattr(ft, name), sample)
    _, theirs = called(TORCH[name], sample)
    assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride())
    assert ours.requires_grad == theirs.requires_grad
    if not drops(sample):
        assert torch.equal(ours, theirs)
        return
    seen = [called(TORCH[name], sample, seed)[1] for seed in range(64)]
    low, high = torch.stack(seen).amin(0), torch.stack(seen).amax(0)
    error = 2e-2 if ours.dtype.itemsize == 2 else 1e-5
    allowed = {"rtol": error, "atol": error}  # PyTorch rounds its scale, and each of its steps
    assert (torch.isclose(ours, low, **allowed) | torch.isclose(ours, high, **allowed)).all()


@pytest.mark.parametrize(("name", "sample"), list(cases()))
def test_in_place_is_the_same(name, sample):
    with torch.no_grad():
        _, expected = called(getattr(ft, name), sample)
        x, y = called(getattr(ft, name), sample, inplace=True)
    assert y.data_ptr() == x.data_ptr()
    assert torch.equal(x, expected)


@pytest.mark.parametrize(
    ("name", "sample"), [case for case in cases([torch.float64]) if case.values[1].input.numel() <= 200]
)
def test_derivatives(name, sample):
    def call(x):
        torch.manual_seed(0)
        return getattr(ft, name)(x, *sample.args, **sample.kwargs)

    x = sample.input.detach().requires_grad_()
    assert torch.autograd.gradcheck(call, x, check_forward_ad=True, check_batched_grad=True)
    assert torch.autograd.gradgradcheck(call, x, check_batched_grad=True)


@pytest.mark.parametrize("name", FORMS)
def test_lazy_copies_stay_lazy(name):
    for op in SAMPLED:
        if op.name.removeprefix("nn.functional.") != name:
            continue
        for sample in op.sample_inputs("cpu", torch.float32):
            x = torch._lazy_clone(sample.input.detach()).requires_grad_()
            y = getattr(ft, name)(x, *sample.args, **sample.kwargs)
            assert torch._C._is_cow_tensor(x) or y is x
            dy = torch._lazy_clone(torch.ones_like(y))
            torch.autograd.grad(y, x, dy)
            assert torch._C._is_cow_tensor(x)
            assert torch._C._is_cow_tensor(dy)
