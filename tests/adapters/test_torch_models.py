"""PyTorch's modules and models: swapped, patched and put back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import os  # noqa: E402

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_support import values  # noqa: E402

import fastdrop.torch as ft  # noqa: E402
from fastdrop.torch import functional, patches  # noqa: E402
from support import printed_by  # noqa: E402


@pytest.mark.parametrize(
    "name", ["Dropout", "AlphaDropout", "FeatureAlphaDropout", "Dropout1d", "Dropout2d", "Dropout3d"]
)
def test_modules_are_pytorchs(name):
    ours, theirs = getattr(ft, name)(0.3, inplace=True), getattr(nn, name)(0.3, inplace=True)
    assert isinstance(ours, getattr(nn, name))
    assert repr(ours) == repr(theirs)
    x = values(2, 3, *[4] * (int(name[-2]) if name[-1] == "d" else 1))
    assert torch.equal(ours.eval()(x.clone()), x)
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got 2"):
        getattr(ft, name)(2)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 64), nn.Dropout(0.1))


def test_accelerate_and_restore():
    plain, fast = model(), model()
    seen = []
    fast[4].register_forward_hook(lambda *_: seen.append(1))
    report = ft.accelerate(fast)
    assert report.replaced == {"1": "FusedReLU", "2": "ReLUDropout", "4": "Dropout"}
    assert list(fast.state_dict()) == list(plain.state_dict())
    fast(values(3, 6))
    assert seen == [1]
    assert torch.equal(fast.eval()(values(3, 6)), plain.eval()(values(3, 6)))
    assert not fast[2].training
    ft.restore(fast)
    assert repr(fast) == repr(plain)


def test_a_relu_that_others_see_is_left():
    fast, relu = model(), nn.ReLU()
    fast[1].register_forward_hook(lambda *_: None)
    assert ft.accelerate(fast).replaced == {"2": "Dropout", "4": "Dropout"}
    shared = nn.Sequential(relu, nn.Dropout(0.5), nn.Sequential(relu, nn.Identity()))
    assert ft.accelerate(shared).replaced == {"1": "Dropout"}


def test_what_is_left_is_reported_with_its_reason():
    class Own(nn.Dropout):
        pass

    report = ft.accelerate(nn.Sequential(Own(), nn.FeatureAlphaDropout()))
    assert report.replaced == {"1": "FeatureAlphaDropout"}
    assert set(report.left) == {"0"}
    assert "Own is not one of the forms" in str(report)


def test_a_relu_that_is_left_is_reported_with_its_reason():
    hooked, shared = model(), nn.Sequential(nn.ReLU(), nn.Dropout(0.5))
    hooked[1].register_forward_hook(lambda *_: None)
    assert ft.accelerate(hooked).left == {"1": "the ReLU of this pair has hooks"}
    shared.append(shared[0])
    assert ft.accelerate(shared).left == {"0": "the ReLU of this pair is used in several places"}


def test_contexts_that_overlap_are_undone_by_the_last():
    theirs, first, second = F.dropout, ft.patched(), ft.patched()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert F.dropout is ft.dropout
    second.__exit__(None, None, None)
    assert F.dropout is theirs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_forked_while_another_thread_patches_can_patch():
    """The fork waits for that thread, so the child finds all replaced, and no lock held."""
    code = """
import os, threading, warnings
import fastdrop.torch as ft
from torch.nn import functional as F
warnings.simplefilter("ignore", DeprecationWarning)
inside, forking = threading.Event(), threading.Event()
os.register_at_fork(before=forking.set)  # the last to be registered is called first

class Slow(dict):
    def items(self):
        inside.set()
        forking.wait()
        return super().items()

patches = ft.patches.PATCHES
other = threading.Thread(target=patches.enter, args=(Slow({(F, "dropout"): ft.dropout}),))
other.start()
inside.wait()
child = os.fork()
if child == 0:
    with ft.patched():
        os._exit(0 if F.dropout is ft.dropout else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert printed_by(code) == "0"


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout"])
def test_patched_covers_the_functions_of_torch_and_of_its_nn(name):
    x, theirs = torch.ones(10, 10, 2), getattr(torch, name)
    with ft.patched():
        assert getattr(F, name) is getattr(ft, name)
        torch.manual_seed(0)
        y = getattr(torch, name)(x, 0.5, train=True)
        torch.manual_seed(0)
        assert torch.equal(y, getattr(ft, name)(x, 0.5, True))
    assert getattr(torch, name) is theirs


def test_patched_covers_a_transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)
    calls = []
    with ft.patched():
        drawn = F.dropout

        def counted(*args, **options):
            calls.append(args[1] if len(args) > 1 else options)
            return drawn(*args, **options)

        F.dropout = counted
        torch.manual_seed(0)
        y = layer(values(2, 5, 16))
    assert F.dropout is functional.TORCH["dropout"]
    assert len(calls) == 3, "two residual branches and the feed-forward one; attention has its own"
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize(
    "options", [{}, {"is_causal": True}, {"scale": 0.5}, {"mask": bool}, {"mask": float}], ids=str
)
def test_attention_is_pytorchs_but_for_the_draw(options):
    q, k, v = (values(2, 3, 5, 8) * n for n in (1, 2, 3))
    options = dict(options)
    kind = options.pop("mask", None)
    if kind:
        options["attn_mask"] = torch.ones(5, 5).tril().bool() if kind is bool else values(5, 5)
    expected = F.scaled_dot_product_attention(q, k, v, **options)
    torch.testing.assert_close(patches.attention(q, k, v, dropout_p=1e-12, **options), expected)
    torch.manual_seed(1)
    dropped = torch.stack([patches.attention(q, k, v, dropout_p=0.5, **options) for _ in range(1000)]).mean(0)
    assert (dropped - expected).abs().max() < 0.1 * expected.abs().max() + 0.2


@pytest.mark.parametrize("kind", [bool, float])
def test_attention_that_may_see_nothing_is_zero(kind):
    q, k, v = (values(1, 2, 4, 8).requires_grad_() for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    if kind is float:
        mask = torch.zeros(4, 4).masked_fill(~mask, -torch.inf)
    y = patches.attention(q, k, v, mask, dropout_p=1e-12)
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, mask))
    y.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (q, k, v))
    assert (y[..., 1, :] == 0).all()


def test_attention_keeps_pytorchs_errors():
    q = values(1, 1, 3, 4)
    for options, text in (
        ({"attn_mask": torch.ones(3, 3).bool(), "is_causal": True, "dropout_p": 0.1}, "attn_mask should not"),
        ({"dropout_p": 1.5}, "dropout probability has to be between 0 and 1"),
    ):
        with pytest.raises(RuntimeError, match=text):
            patches.attention(q, q, q, **options)
