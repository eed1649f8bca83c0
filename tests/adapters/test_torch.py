"""PyTorch: its words, its rules for operators, and the bits of the calls."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import os  # noqa: E402
import shutil  # noqa: E402
import threading  # noqa: E402

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.torch as ft  # noqa: E402
from fastdrop.arguments import alpha_affine  # noqa: E402
from fastdrop.stream import seed_of_words  # noqa: E402
from fastdrop.torch import functional, operators, patches  # noqa: E402
from support import printed_by  # noqa: E402

# PyTorch itself calls what it has deprecated, to compile and to differentiate forward.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

FORMS = ["dropout", "relu_dropout", "alpha_dropout"]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def seed(n=0):
    """The seed that a call with `generator(n)` draws."""
    return seed_of_words(operators.new_seed(generator(n)))


def values(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=generator(7)).to(dtype)


# --- the calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", operators.DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_are_those_of_the_calls(form, dtype):
    x = values(5, 301, dtype=dtype).requires_grad_()
    dy = values(5, 301, dtype=dtype) + 1
    y = getattr(ft, form)(x, 0.25, True, generator=generator())
    y.backward(dy)
    expected, mask = getattr(fd, form)(operators.view(x), 0.75, rng=seed())
    assert np.array_equal(operators.view(y), expected)
    assert np.array_equal(operators.view(x.grad), getattr(fd, f"{form}_backward")(operators.view(dy), mask))


def test_dropout_add():
    x, residual = values(4, 9).requires_grad_(), (values(4, 9) * 2).requires_grad_()
    y = ft.dropout_add(x, residual, 0.5, generator=generator())
    y.sum().backward()
    expected, mask = fd.dropout_add(operators.view(x), operators.view(residual), 0.5, rng=seed())
    assert np.array_equal(operators.view(y), expected)
    assert np.array_equal(x.grad, fd.dropout_backward(np.ones((4, 9), np.float32), mask))
    assert residual.grad.eq(1).all()


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_whole_channels(spatial):
    x = values(3, 40, *[4] * spatial).requires_grad_()
    y = getattr(ft, f"dropout{spatial}d")(x, 0.5, generator=generator())
    y.sum().backward()
    axes = tuple(range(2, x.dim()))
    assert np.array_equal(y.detach(), fd.dropout(operators.view(x), 0.5, broadcast_dims=axes, rng=seed())[0])
    assert (x.grad.flatten(2) == x.grad.flatten(2)[..., :1]).all()
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("shape", [(6, 40), (3, 40, 7), (3, 10, 2, 3, 4)], ids=str)
def test_whole_channels_in_the_alpha_form(shape):
    x, dy = values(*shape).requires_grad_(), values(*shape) + 1
    y = ft.feature_alpha_dropout(x, 0.25, True, generator=generator())
    y.backward(dy)
    decisions = fd.keep_mask(shape, 0.75, broadcast_dims=tuple(range(2, len(shape))), rng=seed())
    kept = torch.from_numpy(decisions.to_array())
    a, dropped, b = (torch.tensor(value) for value in alpha_affine(0.75))
    assert torch.equal(y, torch.where(kept, x * a, dropped) + b)
    assert torch.equal(x.grad, torch.where(kept, dy * a, 0.0))


@pytest.mark.parametrize("shape", [(3, 500), (3, 500, 2)], ids=str)
def test_the_alpha_form_has_the_values_and_the_channels_of_pytorchs(shape):
    ours, theirs = (call(torch.full(shape, 3.0), 0.25, True)
                    for call in (ft.feature_alpha_dropout, F.feature_alpha_dropout))  # fmt: skip
    torch.testing.assert_close(ours.unique(), theirs.unique())
    for y in (ours, theirs):
        assert torch.equal(y.flatten(1), y[..., :1].expand(shape).flatten(1) if len(shape) > 2 else y)


def test_the_alpha_form_needs_channels():
    with pytest.raises(RuntimeError, match="Feature dropout requires at least 2 dimensions"):
        ft.feature_alpha_dropout(values(3), 0.5, True)
    with pytest.raises(TypeError, match="generator needs"):
        ft.feature_alpha_dropout(values(3), 0.5, True, generator=generator())


def test_channels_without_elements():
    x = torch.ones(2, 3, 0, 4, requires_grad=True)
    ft.dropout2d(x, 0.5).sum().backward()
    assert x.grad.shape == x.shape
    torch.library.opcheck(operators.forward, (x, 0.5, "dropout", [2, 3], operators.new_seed(None)))


def test_strides_and_in_place():
    x = values(6, 8)
    expected = fd.dropout(operators.view(x).T, 0.5, rng=seed())[0]
    assert np.array_equal(ft.dropout(x.T, 0.5, generator=generator()), expected)
    y = x.T
    assert ft.dropout(y, 0.5, inplace=True, generator=generator()) is y
    assert np.array_equal(x.T, expected)


@pytest.mark.parametrize("p", [0.0, 1.0])
@pytest.mark.parametrize("form", [*FORMS, "feature_alpha_dropout"])
def test_edge_probabilities_are_pytorchs(form, p):
    x = values(5, 10)
    theirs = functional.relu_and_dropout if form == "relu_dropout" else getattr(F, form)
    assert torch.equal(getattr(ft, form)(x, p, True), theirs(x, p, True, False))


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", [*FORMS, "feature_alpha_dropout", "dropout1d"])
def test_bad_probabilities_raise_pytorchs_error(name, p):
    with pytest.raises(ValueError, match="dropout probability has to be between 0 and 1, but got"):
        getattr(ft, name)(values(2, 3, 4), p, True)


def test_other_tensors_go_to_pytorch():
    x = torch.ones(3, device="meta")
    assert ft.dropout(x, 0.5).device.type == "meta"
    with pytest.raises(TypeError, match="generator needs a strided CPU tensor"):
        ft.dropout(x, 0.5, generator=generator())


def test_a_generator_is_never_ignored():
    with pytest.raises(TypeError, match="generator needs"):
        ft.dropout2d(values(2, 3, 4), 0.5, generator=generator())


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_go_to_pytorch():
    assert ft.dropout(torch.nested.nested_tensor([torch.ones(2, 3), torch.ones(4, 3)]), 0.5).is_nested


def test_the_default_device_is_not_that_of_the_seed():
    x = torch.ones(100)
    with torch.device("meta"):
        y = ft.dropout(x, 0.5, generator=generator())
    assert torch.equal(y, ft.dropout(x, 0.5, generator=generator()))


# --- operators --------------------------------------------------------------------------------


def has_right_derivatives(call, *inputs):
    """Of both orders: backward, forward, and forward over backward; in batches too."""
    assert torch.autograd.gradcheck(
        call, inputs, check_forward_ad=True, check_batched_grad=True, check_batched_forward_grad=True
    )
    assert torch.autograd.gradgradcheck(call, inputs, check_fwd_over_rev=True, check_batched_grad=True)


@pytest.mark.parametrize("shared", [[], [1]], ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_operators_keep_pytorchs_rules(form, shared):
    words = operators.new_seed(generator())
    x = values(4, 6, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(operators.forward, (x, 0.5, form, shared, words))

    def call(x):
        return operators.apply_forward(x, 0.5, form, shared, words)[0]

    has_right_derivatives(call, x)


def test_the_operator_with_a_residual_keeps_them_too():
    words = operators.new_seed(generator())
    x, residual = (values(4, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    torch.library.opcheck(operators.forward_add, (x, residual, 0.5, words))
    has_right_derivatives(lambda *args: operators.apply_forward_add(*args, 0.5, words)[0], x, residual)


def test_a_gradient_keeps_one_bit_an_element():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ft.relu_dropout(values(8, 128).requires_grad_(), 0.1)
    assert [(t.dtype, t.numel()) for t in saved] == [(torch.uint8, 128)]


INDUCTOR = pytest.param(
    "inductor",  # the default
    marks=pytest.mark.skipif(
        shutil.which(os.environ.get("CXX", "g++")) is None, reason="the default backend needs a C++ compiler"
    ),
)


@pytest.mark.parametrize("backend", ["aot_eager", INDUCTOR])
@pytest.mark.parametrize("form", FORMS)
def test_compiled_without_a_graph_break_to_the_same_bits(form, backend):
    def step(x):  # arithmetic that a compiler cannot round otherwise, before, between and after two draws
        return ft.dropout_add(getattr(ft, form)(2 * x, 0.3, True), x, 0.25) / 4

    results, gradients = [], []
    for call in (step, torch.compile(step, fullgraph=True, backend=backend)):
        x = values(4, 65).requires_grad_()
        torch.manual_seed(3)
        results.append(call(x))
        results[-1].backward(values(4, 65) + 1)
        gradients.append(x.grad)
    assert torch.equal(*results)
    assert torch.equal(*gradients)


def test_export():
    class Model(nn.Module):
        def forward(self, x):
            return ft.dropout(x, 0.5)

    program = torch.export.export(Model(), (values(4, 8),))
    assert "fastdrop.forward" in str(program.graph)


def test_vmap_respects_randomness():
    x = torch.ones(3, 256)
    same = torch.func.vmap(lambda x: ft.dropout(x, 0.5), randomness="same")(x)
    different = torch.func.vmap(lambda x: ft.dropout(x, 0.5), randomness="different")(x)
    assert torch.equal(same[0], same[1])
    assert not torch.equal(different[0], different[1])
    with pytest.raises(RuntimeError, match="randomness"):
        torch.func.vmap(lambda x: ft.dropout(x, 0.5))(x)


@pytest.mark.parametrize("form", FORMS)
def test_derivatives_inside_of_torch_func_are_those_of_autograd(form):
    x, dy = values(3, 40).requires_grad_(), values(3, 40)

    def call(x):
        return getattr(ft, form)(x, 0.3, True, generator=generator())

    expected = torch.autograd.grad((call(x) * dy).sum(), x)[0]
    x = x.detach()
    assert torch.equal(torch.func.grad(lambda x: (call(x) * dy).sum())(x), expected)
    assert torch.equal(torch.func.vjp(call, x)[1](dy)[0], expected)
    assert torch.equal(torch.func.jvp(call, (x,), (dy,))[1], expected)  # the Jacobian is diagonal
    for jacobian in (torch.func.jacrev(call), torch.func.jacfwd(call, randomness="same")):
        assert torch.equal((jacobian(x) * dy).sum((2, 3)), expected)


def test_gradients_of_each_example():
    def loss(x):
        return ft.relu_dropout(x, 0.5).sum()

    x = torch.ones(3, 256)
    for randomness, same in (("same", True), ("different", False)):
        slopes = torch.func.vmap(torch.func.grad(loss), randomness=randomness)(x)
        assert set(slopes.unique().tolist()) == {0.0, 2.0}
        assert torch.equal(slopes[0], slopes[1]) == same


@pytest.mark.parametrize("requires_grad", [False, True])
def test_dual_numbers_keep_their_tangents(requires_grad):
    with dual_level():
        x = make_dual(values(40).requires_grad_(requires_grad), torch.ones(40))
        y, tangent = unpack_dual(ft.dropout_add(x, values(40), 0.5))
        dropped = unpack_dual(ft.dropout_add(values(40), x, 0.5)).tangent
    assert torch.equal(tangent, torch.where(y == values(40), 0.0, 2.0))
    assert dropped.eq(1).all()


def test_code_that_is_compiled_to_be_differentiated_forward_loses_no_tangent():
    def tangent(call):
        torch.manual_seed(0)
        with dual_level():
            return unpack_dual(call(make_dual(x, torch.ones(40)))).tangent

    x = values(40)
    compiled = torch.compile(lambda x: ft.dropout(x, 0.5), backend="aot_eager")
    assert torch.equal(tangent(compiled), tangent(lambda x: ft.dropout(x, 0.5)))
    whole = torch.compile(lambda x: ft.dropout(x, 0.5), backend="aot_eager", fullgraph=True)
    with pytest.raises(torch._dynamo.exc.Unsupported):
        tangent(whole)


def test_patched_code_is_compiled_without_a_graph_break():
    layer, x = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True), values(2, 5, 16)
    with ft.patched():
        results = []
        for call in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
            torch.manual_seed(0)
            results.append(call(x))
    torch.testing.assert_close(*results)


def test_autocast():
    layer = nn.Sequential(nn.Linear(8, 8), ft.ReLUDropout(0.5))
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(values(4, 8))
    assert y.dtype == torch.bfloat16
    y.sum().backward()
    assert layer[0].weight.grad.dtype == torch.float32


# --- randomness -------------------------------------------------------------------------------


def test_manual_seed_makes_a_run_reproducible():
    runs = []
    for _ in range(2):
        torch.manual_seed(5)
        runs.append([ft.dropout(torch.ones(500), 0.5) for _ in range(2)])
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert not torch.equal(*runs[0])


def test_a_checkpointed_model_has_the_same_gradients():
    model = nn.Sequential(nn.Linear(32, 64), ft.ReLUDropout(0.3), nn.Linear(64, 32), ft.Dropout(0.2))
    gradients = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False, preserve_rng_state=True)):
        model.zero_grad()
        torch.manual_seed(1)
        run(values(16, 32).requires_grad_()).pow(2).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients))


def test_threads_each_with_a_generator():
    found = {}

    def work(n):
        found[n] = ft.dropout(torch.ones(100_000), 0.5, generator=generator(n))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, y in found.items():
        assert torch.equal(y, ft.dropout(torch.ones(100_000), 0.5, generator=generator(n)))


# --- modules and models -----------------------------------------------------------------------


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
import os, threading, time, warnings
import fastdrop.torch as ft
from torch.nn import functional as F
warnings.simplefilter("ignore", DeprecationWarning)
inside = threading.Event()

class Slow(dict):
    def items(self):
        inside.set()
        time.sleep(0.2)
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
    assert printed_by(code, timeout=60) == "0"


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
    dropped = torch.stack([patches.attention(q, k, v, dropout_p=0.5, **options) for _ in range(4000)]).mean(0)
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
