"""PyTorch: its words, its rules for operators, and the bits of the calls."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import os  # noqa: E402
import shutil  # noqa: E402
import threading  # noqa: E402
from contextlib import nullcontext  # noqa: E402

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch._dynamo import compiled_autograd  # noqa: E402
from torch.autograd.forward_ad import dual_level, make_dual, unpack_dual  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_support import FORMS, generator, seed, values, view  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.torch as ft  # noqa: E402
from fastdrop.formulas import alpha_affine  # noqa: E402
from fastdrop.torch import functional, operators  # noqa: E402
from support import printed_by  # noqa: E402

# PyTorch itself calls what it has deprecated, to compile, to check operators and to differentiate forward.
# The first version that we take does so more often.
pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script:DeprecationWarning",
    "ignore:`torch.jit.script:FutureWarning",
    "ignore:Please use `torch.vmap`:FutureWarning",
    "ignore:`torch.cpu.amp.autocast:FutureWarning",
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning",
    "ignore:At pre-dispatch tracing:UserWarning",
)

# --- the calls --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", operators.DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_are_those_of_the_calls(form, dtype):
    x = values(5, 301, dtype=dtype).requires_grad_()
    dy = values(5, 301, dtype=dtype) + 1
    y = getattr(ft, form)(x, 0.25, True, generator=generator())
    y.backward(dy)
    expected, mask = getattr(fd, form)(view(x), keep_prob=0.75, rng=seed())
    assert np.array_equal(view(y), expected)
    assert np.array_equal(view(x.grad), getattr(fd, f"{form}_backward")(view(dy), mask))


def test_dropout_add():
    x, residual = values(4, 9).requires_grad_(), (values(4, 9) * 2).requires_grad_()
    y = ft.dropout_add(x, residual, 0.5, generator=generator())
    y.sum().backward()
    expected, mask = fd.dropout_add(view(x), view(residual), keep_prob=0.5, rng=seed())
    assert np.array_equal(view(y), expected)
    assert np.array_equal(x.grad, fd.dropout_backward(np.ones((4, 9), np.float32), mask))
    assert residual.grad.eq(1).all()


@pytest.mark.parametrize("spatial", [1, 2, 3])
def test_whole_channels(spatial):
    x = values(3, 40, *[4] * spatial).requires_grad_()
    y = getattr(ft, f"dropout{spatial}d")(x, 0.5, generator=generator())
    y.sum().backward()
    axes = tuple(range(2, x.dim()))
    assert np.array_equal(y.detach(), fd.dropout(view(x), keep_prob=0.5, broadcast_dims=axes, rng=seed())[0])
    assert (x.grad.flatten(2) == x.grad.flatten(2)[..., :1]).all()
    assert set(x.grad.unique().tolist()) == {0.0, 2.0}


@pytest.mark.parametrize("shape", [(6, 40), (3, 40, 7), (3, 10, 2, 3, 4)], ids=str)
def test_whole_channels_in_the_alpha_form(shape):
    x, dy = values(*shape).requires_grad_(), values(*shape) + 1
    y = ft.feature_alpha_dropout(x, 0.25, True, generator=generator())
    y.backward(dy)
    decisions = fd.keep_mask(shape, keep_prob=0.75, broadcast_dims=tuple(range(2, len(shape))), rng=seed())
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
    torch.library.opcheck(operators.forward, (x, 0.5, "dropout", 2, operators.new_seed(None)))


def test_strides_and_in_place():
    x = values(6, 8)
    expected = fd.dropout(view(x).T, keep_prob=0.5, rng=seed())[0]
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


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan"), 2, 10**400], ids=["-0.1", "1.1", "nan", "2", "large"])
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


@pytest.mark.parametrize(
    ("form", "features"), [*((form, operators.EVERY) for form in FORMS), ("dropout", 1), ("alpha_dropout", 1)]
)
def test_operators_keep_pytorchs_rules(form, features):
    words = operators.new_seed(generator())
    x = values(4, 6, dtype=torch.float64).requires_grad_()
    torch.library.opcheck(operators.forward, (x, 0.5, form, features, words))

    def call(x):
        return operators.apply_forward(x, 0.5, form, features, words)[0]

    has_right_derivatives(call, x)


def test_the_operator_with_a_residual_keeps_them_too():
    words = operators.new_seed(generator())
    x, residual = (values(4, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    torch.library.opcheck(operators.forward_add, (x, residual, 0.5, words))
    has_right_derivatives(lambda *args: operators.apply_forward_add(*args, 0.5, words)[0], x, residual)


def test_a_gradient_keeps_one_bit_an_element():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        ft.relu_dropout(values(128, 256).requires_grad_(), 0.1)
    (bits,) = saved
    assert bits.dtype == torch.uint8
    assert bits.numel() <= 128 * 256 // 8 + 2


def backends():
    """PyTorch's compiler of programs takes its time: of it, one form."""
    inductor = pytest.mark.skipif(
        shutil.which(os.environ.get("CXX", "g++")) is None, reason="the default backend needs a C++ compiler"
    )
    yield from ((form, "aot_eager") for form in FORMS)
    yield pytest.param("relu_dropout", "inductor", marks=inductor)


@pytest.mark.parametrize(("form", "backend"), list(backends()))
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


@pytest.mark.parametrize("size", [100, 40_000])
def test_a_backward_pass_is_compiled_to_the_same_bits(size):
    x = values(size).requires_grad_()
    loss = (ft.dropout(x * 2, 0.5, generator=generator()) * 3).square().sum()
    (expected,) = torch.autograd.grad(loss, x, retain_graph=True)
    enable = getattr(compiled_autograd, "_enable", None) or compiled_autograd.enable  # its name before PyTorch 2.7
    with enable(lambda graph: torch.compile(graph, backend="aot_eager")):
        loss.backward()
    assert torch.equal(x.grad, expected)


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


@pytest.mark.parametrize("size", [100, 40_000])
@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout"])
def test_what_is_saved_may_go_elsewhere_and_come_back(name, size):
    x = values(size).requires_grad_()
    gradients = []
    for context in (nullcontext(), torch.autograd.graph.save_on_cpu()):
        with context:
            y = getattr(ft, name)(x, 0.5, True, generator=generator())
        gradients.append(torch.autograd.grad(y.exp().sum(), x)[0])
    assert torch.equal(*gradients)


def test_a_process_group_changes_nothing():
    """A model in DistributedDataParallel has the gradients it has alone, and a DTensor gets PyTorch's own dropout."""
    code = """
import copy, os
import torch
import torch.distributed as dist
from torch import nn
import fastdrop.torch as ft

os.environ["GLOO_SOCKET_IFNAME"] = "lo"
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
try:
    from torch.distributed.tensor import Shard, distribute_tensor, init_device_mesh
except ImportError:  # PyTorch 2.4
    from torch.distributed._tensor import Shard, distribute_tensor, init_device_mesh

def grown(model):
    torch.manual_seed(1)
    model(x).sum().backward()
    return [parameter.grad for parameter in model.parameters()]

x = torch.randn(100, 8)
alone = nn.Sequential(nn.Linear(8, 300), nn.ReLU(), nn.Dropout(), nn.Linear(300, 2), nn.Dropout())
ft.accelerate(alone)
together = nn.parallel.DistributedDataParallel(copy.deepcopy(alone))
print(all(torch.equal(*pair) for pair in zip(grown(alone), grown(together))))

def dropped(function, x):
    torch.manual_seed(1)
    return function(x, 0.5, True)

x = distribute_tensor(x, init_device_mesh("cpu", (1,)), [Shard(0)])
for name in ("dropout", "alpha_dropout"):
    ours, theirs = (dropped(getattr(module, name), x) for module in (ft, nn.functional))
    print(type(ours) is type(theirs), torch.equal(ours.to_local(), theirs.to_local()))
dist.destroy_process_group()
"""
    assert printed_by(code).split() == ["True"] * 5


@pytest.mark.parametrize("randomness", ["same", "different"])
@pytest.mark.parametrize("name", [*FORMS, "dropout2d"])
def test_a_batch_may_have_no_example(name, randomness):
    x = torch.ones(0, 2, 3, 4, 4)
    y = torch.vmap(lambda x: getattr(ft, name)(x, 0.5, True), randomness=randomness)(x)
    assert y.shape == x.shape


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
