"""What a call means to PyTorch's other parts: subclasses, tracers, odd arguments, strides, gradients."""

from __future__ import annotations

import itertools
from contextlib import nullcontext

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import numpy as np  # noqa: E402
from torch import nn  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402
from torch.autograd.forward_ad import dual_level, make_dual  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_support import Onlooker, generator, values  # noqa: E402

import fastdrop.torch as ft  # noqa: E402
from fastdrop.torch import operators  # noqa: E402
from fastdrop.torch.functional import TORCH  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

SHAPES = {
    "dropout": (2, 3, 4), "relu_dropout": (2, 3, 4), "alpha_dropout": (2, 3, 4),
    "feature_alpha_dropout": (2, 3, 4), "dropout1d": (2, 3, 4), "dropout2d": (2, 3, 4, 4),
    "dropout3d": (2, 3, 4, 4, 4),
}  # fmt: skip
CARRIED = 2**14  # elements up to which PyTorch's product carries a gradient


class Layer(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.call = getattr(ft, name)

    def forward(self, x):
        return self.call(x, 0.5, self.training)


# --- others see PyTorch's own function --------------------------------------------------------


@pytest.mark.parametrize("name", SHAPES)
def test_a_tracer_of_fx_finds_it(name):
    traced = torch.fx.symbolic_trace(Layer(name))
    targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
    assert targets[-1] is (F.dropout if name == "relu_dropout" else getattr(F, name))
    assert traced(values(*SHAPES[name])).shape == SHAPES[name]


@pytest.mark.parametrize("name", SHAPES)
def test_a_script_has_it(name):
    # Functions are scripted by their source, where a default of a module would not be.
    scripted = torch.jit.script(getattr(ft, name))
    x = values(*SHAPES[name])
    assert scripted(x, 0.5, True).shape == x.shape
    assert torch.equal(scripted(x, 0.5, False), getattr(ft, name)(x, 0.5, False))


@pytest.mark.parametrize("name", SHAPES)
def test_a_trace_has_it(name):
    traced = torch.jit.trace(Layer(name), values(*SHAPES[name]), check_trace=False)
    kinds = [node.kind() for node in traced.inlined_graph.nodes()]
    assert any("dropout" in kind for kind in kinds)
    assert not any("fastdrop" in kind for kind in kinds)


def test_a_subclass_sees_it():
    seen = []

    class Seeing(torch.Tensor):
        @classmethod
        def __torch_function__(cls, function, types, args=(), kwargs=None):
            seen.append(function)
            return super().__torch_function__(function, types, args, kwargs or {})

    x = torch.ones(4).as_subclass(Seeing)
    for name in SHAPES:
        seen.clear()
        assert type(getattr(ft, name)(torch.ones(SHAPES[name]).as_subclass(Seeing), 0.5, True)) is Seeing
        assert (F.dropout if name == "relu_dropout" else TORCH[name]) in seen
    seen.clear()
    with ft.patched():
        F.dropout(x)
    assert TORCH["dropout"] in seen


def test_a_function_mode_sees_it():
    seen = []

    class Seeing(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Seeing():
        ft.dropout(torch.ones(4))
    assert TORCH["dropout"] in seen


@pytest.mark.parametrize("name", [*SHAPES, "dropout_add"])
def test_a_function_mode_sees_nothing_before_it(name):
    x, seen = values(*SHAPES.get(name, (2, 3))), []

    class Onlooking(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    with Onlooking():
        getattr(ft, name)(x, *(x,) * (name == "dropout_add"), 0.5, True)
    first = TORCH.get("dropout" if name == "dropout_add" else name)
    assert seen[0] is (F.relu if name == "relu_dropout" else first)


def test_a_device_context_changes_nothing():
    plain = ft.dropout(torch.ones(100), generator=generator())
    with torch.device("cpu"):
        assert torch.equal(ft.dropout(torch.ones(100), generator=generator()), plain)


def test_a_dispatch_mode_sees_our_operator():
    seen = []

    class Seeing(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function)
            return function(*args, **(kwargs or {}))

    plain = ft.dropout(torch.ones(100), generator=generator())
    with Seeing():
        assert torch.equal(ft.dropout(torch.ones(100), generator=generator()), plain)
    assert operators.forward in seen


# --- arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout"])
@pytest.mark.parametrize("training", [0, 1, np.True_, torch.tensor(True), None])
def test_training_is_a_bool(name, training):
    with pytest.raises(TypeError, match="argument 'train'"):
        getattr(ft, name)(values(5), 0.5, training)


@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout"])
@pytest.mark.parametrize("p", [torch.tensor(0.5, requires_grad=True), torch.tensor([0.5]), np.array(0.5)])
def test_p_is_a_number(name, p):
    for training in (True, False):
        with pytest.raises(TypeError, match="argument 'p'"):
            getattr(ft, name)(values(5), p, training)


@pytest.mark.parametrize("p", [np.float32(0.5), np.float64(0.5)])
def test_p_may_be_a_number_of_numpy(p):
    plain = ft.dropout(values(50), 0.5, generator=generator())
    assert torch.equal(ft.dropout(values(50), p, generator=generator()), plain)


@pytest.mark.parametrize("p", [np.float64(0.25), np.float32(0.25)], ids=repr)
@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout"])
def test_a_number_of_numpy_gives_the_same_bits_in_compiled_code(name, p):
    def call(x):
        return getattr(ft, name)(x, p, True)

    results = []
    for each in (call, torch.compile(call, backend="eager")):
        torch.manual_seed(0)
        results.append(each(values(50)))
    assert torch.equal(*results)


@pytest.mark.parametrize("dtype", operators.DTYPES, ids=str)
def test_a_residual_and_a_number_of_numpy(dtype):
    x, residual, p = values(1000, dtype=dtype), values(1000, dtype=dtype) * 2, np.float32(0.1)

    def call():
        return ft.dropout_add(x, residual, p)

    results = [ft.dropout_add(x, residual, each, generator=generator()) for each in (p, float(p))]
    for each in (call, torch.compile(call, backend="eager")):
        torch.manual_seed(0)
        results.append(each())
    assert torch.equal(*results[:2])
    assert torch.equal(*results[2:])


def test_a_tensor_without_its_memory_is_refused():
    x = torch.ones(8)
    x.untyped_storage().resize_(0)
    with pytest.raises(RuntimeError, match="storage of this one is empty"):
        ft.dropout(x)


def test_a_fake_tensor_outside_of_its_mode_is_pytorchs():
    x = FakeTensorMode().from_tensor(torch.ones(8))
    assert ft.dropout(x).shape == (8,)


@pytest.mark.parametrize("p", [True, 1, 1.0])
def test_all_may_be_dropped(p):
    assert ft.dropout(torch.full((5,), torch.inf), p).eq(0).all()


@pytest.mark.parametrize("name", SHAPES)
def test_prediction_returns_the_input(name):
    x = torch.rand(SHAPES[name])
    y = getattr(ft, name)(x, 0.5, False)
    assert y is x or (name == "relu_dropout" and torch.equal(y, x))


def test_no_elements():
    for x in (torch.ones(0), torch.ones(3, 0)):
        assert ft.dropout(x).shape == x.shape
    empty = torch.func.vmap(lambda x: ft.dropout_add(x, x, 0.5), randomness="different")(torch.ones(0, 3))
    assert empty.shape == (0, 3)


def test_in_place_is_refused_where_pytorch_refuses():
    x = torch.ones(5, requires_grad=True)
    with pytest.raises(RuntimeError, match="leaf Variable"):
        ft.dropout(x, inplace=True)
    assert x.eq(1).all()
    with torch.inference_mode():
        frozen = torch.ones(5)
    with pytest.raises(RuntimeError, match="nference tensor"):
        ft.dropout(frozen, inplace=True)


def test_in_place_is_noticed_by_a_backward_pass():
    x = torch.ones(5, requires_grad=True)
    y = x.exp()  # which keeps its result
    with torch.no_grad():
        ft.dropout(y, inplace=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


# --- memory -----------------------------------------------------------------------------------

LAYOUTS = {
    "channels_last": lambda: values(2, 5, 4, 3).contiguous(memory_format=torch.channels_last),
    "large channels_last": lambda: values(2, 64, 20, 20).contiguous(memory_format=torch.channels_last),
    "channels_last, wide": lambda: values(2, 5000, 3, 3).contiguous(memory_format=torch.channels_last),
    "channels_last, wider": lambda: values(1, 17_000, 3, 3).contiguous(memory_format=torch.channels_last),
    "permuted": lambda: values(3, 4, 5, 2).permute(3, 2, 1, 0),
    "sliced": lambda: values(4, 5, 4, 6)[::2, :, 1:, ::2],
    "long rows with gaps": lambda: values(2, 5, 4, 300)[..., 50:250],
    "expanded": lambda: values(2, 5, 1, 3).expand(2, 5, 4, 3),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", operators.DTYPES, ids=str)
@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout", "dropout2d"])
def test_strides_are_pytorchs_and_values_lie_by_index(name, dtype, layout):
    x = LAYOUTS[layout]().to(dtype)
    theirs = F.dropout(x, 0.5) if name == "relu_dropout" else getattr(F, name)(x, 0.5, True)
    for wants_gradient in (False, True):
        results = []
        for each in (x.detach(), x.contiguous()):
            each.requires_grad_(wants_gradient)
            y = getattr(ft, name)(each, 0.5, True, generator=generator())
            dy = values(*x.shape).to(dtype)
            results.append((y, *(torch.autograd.grad(y, each, dy) if wants_gradient else ())))
        assert results[0][0].stride() == theirs.stride()
        assert all(torch.equal(*pair) for pair in zip(*results))


RESIDUALS = {
    "plain": lambda channels: values(2, channels, 4, 3),
    "channels_last": lambda channels: values(2, channels, 4, 3).contiguous(memory_format=torch.channels_last),
    "permuted": lambda channels: values(3, 4, channels, 2).permute(3, 2, 1, 0),
    "sliced": lambda channels: values(4, channels, 4, 6)[::2, :, :, ::2],
    "long rows with gaps": lambda channels: values(2, channels + 1, 4, 3)[:, 1:],
    "expanded": lambda channels: values(2, channels, 1, 3).expand(2, channels, 4, 3),
}


@pytest.mark.parametrize("channels", [5, 1000])
@pytest.mark.parametrize("wants_gradient", [False, True])
@pytest.mark.parametrize("seen", [False, True], ids=["eager", "by an operator"])
@pytest.mark.parametrize("pair", list(itertools.product(RESIDUALS, RESIDUALS)), ids=" + ".join)
def test_a_residual_may_have_other_strides(pair, seen, wants_gradient, channels):
    x, residual = (RESIDUALS[name](channels) for name in pair)
    x.requires_grad_(wants_gradient)
    with Onlooker() if seen else nullcontext():
        y = ft.dropout_add(x, residual, 0.5, generator=generator())
    assert y.stride() == (residual + F.dropout(x, 0.5)).stride()
    assert torch.equal(y, ft.dropout_add(x.contiguous(), residual.contiguous(), 0.5, generator=generator()))


# --- transforms that see operators ------------------------------------------------------------


@pytest.mark.parametrize("name", [*SHAPES, "dropout_add"])
def test_functionalize_changes_nothing(name):
    x = values(*SHAPES.get(name, (2, 3, 4)))
    call = getattr(ft, name)
    more = (x,) if name == "dropout_add" else ()
    y = torch.func.functionalize(lambda x: call(x, *more, 0.5, True, generator=generator()))(x)
    assert torch.equal(y, call(x, *more, 0.5, True, generator=generator()))


# --- the two ways of a gradient ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout", "relu_dropout", "alpha_dropout"])
def test_a_gradient_is_the_same_by_a_product_and_by_bits(name):
    long = values(CARRIED + 1).requires_grad_()
    short = long.detach()[:CARRIED].clone().requires_grad_()  # a prefix has the decisions of the whole
    dy = values(CARRIED + 1) + 1
    ys = [getattr(ft, name)(x, 0.25, True, generator=generator()) for x in (long, short)]
    assert ("Mul" in ys[1].grad_fn.name()) and ("FastDropout" in ys[0].grad_fn.name())
    assert torch.equal(ys[0][:-1], ys[1])
    gradients = [torch.autograd.grad(y, x, dy[: x.numel()])[0] for y, x in zip(ys, (long, short))]
    assert torch.equal(gradients[0][:-1], gradients[1])


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("size", [100, CARRIED + 100])
def test_an_infinite_gradient_is_zero_where_the_relu_cut(size, inplace):
    x = torch.full((size,), -1.0, requires_grad=True)
    y = ft.relu_dropout(x * 1, 1e-12, True, inplace)
    assert torch.autograd.grad(y, x, torch.full((size,), torch.inf))[0].eq(0).all()


@pytest.mark.parametrize("size", [100, CARRIED + 100])
def test_a_gradient_may_be_sparse(size):
    x = values(size).requires_grad_()
    dy = values(size)
    y = ft.dropout(x, 0.5, generator=generator())
    expected = torch.autograd.grad(y, x, dy, retain_graph=True)[0]
    assert torch.equal(torch.autograd.grad(y, x, dy.to_sparse())[0].to_dense(), expected)


@pytest.mark.parametrize("size", [100, CARRIED + 100])
def test_what_is_dropped_is_zero_whatever_it_was(size):
    x = torch.full((size,), torch.nan, requires_grad=True)
    y = ft.dropout(x, 0.5)
    assert 0 < y.eq(0).sum() < size
    assert not y[y == 0].signbit().any()


@pytest.mark.parametrize("size", [100, CARRIED + 100])
def test_in_place_with_a_gradient(size):
    x = values(size).requires_grad_()
    results = []
    for inplace in (False, True):
        y = ft.alpha_dropout(x * 1, 0.5, True, inplace, generator=generator())
        results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    assert all(torch.equal(*pair) for pair in zip(*results))


@pytest.mark.parametrize("size", [100, CARRIED + 100])
def test_second_derivatives_and_batches(size):
    x = values(size).requires_grad_()
    y = ft.dropout(x, 0.5, generator=generator())
    kept = y.ne(0)
    (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, torch.where(kept, 8.0, 0.0))
    dys = torch.ones(2, size)
    (batch,) = torch.autograd.grad(ft.dropout(x, 0.5, generator=generator()), x, dys, is_grads_batched=True)
    assert torch.equal(batch, torch.where(kept, 2.0, 0.0).expand(2, size))


def test_forward_derivatives_around_vmap():
    def loss(x):
        return (ft.dropout(x, 0.5, generator=generator()) ** 3).sum()

    x = torch.rand(4, dtype=torch.float64) + 1
    hessian = torch.func.jacfwd(torch.func.jacrev(loss), randomness="same")(x)
    assert torch.equal(hessian, torch.autograd.functional.hessian(loss, x))
    rows = torch.ones(2, 3)
    batched = torch.func.vmap(lambda x: ft.dropout(x, 0.5), randomness="same")
    tangent = torch.func.jvp(batched, (rows,), (rows,))[1]
    assert set(tangent.unique().tolist()) <= {0.0, 2.0}


def test_an_operator_refuses_a_tangent_that_it_would_lose():
    seed = operators.new_seed(None)
    with dual_level(), pytest.raises(NotImplementedError, match="forward"):
        operators.forward(make_dual(values(5), values(5)), 0.5, "dropout", operators.EVERY, seed)


@pytest.mark.filterwarnings("ignore:At pre-dispatch tracing")  # PyTorch 2.4 says so of every operator
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 2), (4, 8)], ids=str)
def test_a_batch_may_have_any_length_in_an_exported_program(shape):
    batch = torch.export.Dim("batch")
    program = torch.export.export(Layer("dropout"), (values(*shape),), dynamic_shapes={"x": {0: batch}})
    for length in (2, 7):
        assert program.module()(values(length, *shape[1:])).shape == (length, *shape[1:])
