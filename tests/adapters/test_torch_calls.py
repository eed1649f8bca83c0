"""Whole calls of fastdrop.torch drawn at random, each compared with the reference on contiguous arrays."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

from collections.abc import Callable  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from typing import NamedTuple  # noqa: E402

import numpy as np  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402
from torch_support import Onlooker, generator, seed, view  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.torch as ft  # noqa: E402
from fastdrop import cpu, reference  # noqa: E402
from fastdrop.core import dispatch  # noqa: E402
from fastdrop.torch.operators import DTYPES  # noqa: E402
from support import THREAD_WORK  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:`torch.cpu.amp.autocast:FutureWarning")  # of PyTorch 2.4's own
SEED = 20261126
BATCH = 100
FRESH = random.SystemRandom().getrandbits(32)  # other cases at each run

CHANNELS = {"dropout1d": 3, "dropout2d": 4, "dropout3d": 5, "feature_alpha_dropout": 4}  # axes of the input
NAMES = ("dropout", "relu_dropout", "alpha_dropout", "dropout_add", *CHANNELS)
MODULES = {"dropout": ft.Dropout, "relu_dropout": ft.ReLUDropout, "alpha_dropout": ft.AlphaDropout,
           "dropout2d": ft.Dropout2d}  # fmt: skip
SPECIALS = (torch.inf, -torch.inf, torch.nan, -0.0, 0.0, 1e-40, 65504.0, -65504.0)
PS = (0.0, 1.0, 0.5, 0.1, 0.9, 1e-12, 2**-32, 1 / 3)
LENGTHS = (0, 1, 2, 7, 8, 9, 64, 1000, 16_383, 16_384, 16_385, 40_000, 150_000)
LAYOUTS = ("plain", "transposed", "sliced", "shifted", "expanded", "channels_last", "channels_first")
WAYS = ("eager", "eager", "eager", "module", "patched", "mode", "vjp", "checkpoint", "hooks", "threads")
GRADIENTS = ("none", "no_grad", "inference", "leaf", "product", "twice")


class Case(NamedTuple):
    """A case says which call is made, on what, and who else is watching."""

    name: str
    shape: tuple[int, ...]
    layout: str
    dtype: torch.dtype
    p: float
    inplace: bool
    gradient: str
    way: str
    residual: str
    dy: str
    isa: str
    special: bool  # whether infinities, NaN and -0 are among the values of x
    seed: int


def drawn(rng: random.Random) -> Case:
    name = rng.choice(NAMES)
    return Case(
        name, shape(rng, CHANNELS.get(name)), rng.choice(LAYOUTS), rng.choice(DTYPES), rng.choice(PS),
        rng.random() < 0.2, rng.choice(GRADIENTS), rng.choice(WAYS), rng.choice(LAYOUTS), rng.choice(LAYOUTS),
        rng.choice(cpu.available()), rng.random() < 0.2, rng.randrange(2**40),
    )  # fmt: skip


def shape(rng: random.Random, axes: int | None) -> tuple[int, ...]:
    """A shape with about one of LENGTHS elements."""
    axes = rng.randrange(5) if axes is None else axes
    length, lengths = rng.choice(LENGTHS), []
    for _ in range(axes - 1):
        lengths.append(rng.randint(1, max(1, min(length, 60))))
        length //= max(lengths[-1], 1)
    lengths += [length] if axes else []
    rng.shuffle(lengths)
    return tuple(lengths)


def laid_out(values: torch.Tensor, layout: str) -> torch.Tensor:
    """The same values, which lie in memory otherwise."""
    axes = values.dim()
    if layout == "transposed" and axes:
        return values.permute(*reversed(range(axes))).contiguous().permute(*reversed(range(axes)))
    if layout == "sliced" and axes:
        room = values.new_full((*values.shape[:-1], 2 * values.shape[-1] + 3), 7.0)
        return room[..., 1:-2:2].copy_(values)
    if layout == "shifted":
        room = values.new_full((values.numel() + 3,), 7.0)
        return room[3:].view(values.shape).copy_(values)
    if layout == "expanded" and axes and values.shape[0]:
        return values[:1].expand(values.shape)
    if layout == "channels_last" and axes == 4:
        return values.contiguous(memory_format=torch.channels_last)
    if layout == "channels_first" and axes >= 2:
        return values.transpose(0, 1).contiguous().transpose(0, 1)
    return values.clone()


def values(case: Case, number: int, layout: str) -> torch.Tensor:
    plain = torch.randn(case.shape, generator=generator(case.seed + number)).to(case.dtype)
    if case.special and number == 0 and case.p:
        count = -(-plain.numel() // len(SPECIALS))
        specials = torch.tensor(SPECIALS, dtype=case.dtype).repeat(count)[: plain.numel()].view(case.shape)
        plain = torch.where(torch.rand(case.shape, generator=generator(case.seed - 1)) < 0.3, specials, plain)
    return laid_out(plain, layout)


# --- what has to come out ---------------------------------------------------------------------


class Expected(NamedTuple):
    y: np.ndarray
    back: Callable[[torch.Tensor], np.ndarray]  # from the gradient of y to the gradient of x


def plain(tensor: torch.Tensor) -> np.ndarray:
    return view(tensor.detach().clone(memory_format=torch.contiguous_format))


def expected(case: Case, x: torch.Tensor, residual: torch.Tensor) -> Expected:
    """The result by the reference, on contiguous copies."""
    name, x_array = case.name, plain(x)
    form = "alpha_dropout" if "alpha" in name else "dropout" if name in CHANNELS else name
    if case.p == 0.0:
        y = {"relu_dropout": torch.relu(x), "dropout_add": residual + x}.get(name, x)
        passed = plain(x > 0) if name == "relu_dropout" else np.bool_(True)
        return Expected(plain(y), lambda dy: np.where(passed, plain(dy), 0).astype(x_array.dtype))
    shared = tuple(range(2, x.dim())) if name in CHANNELS else ()
    others = (plain(residual),) if name == "dropout_add" else ()
    settings = {} if form in ("relu_dropout", "dropout_add") and not shared else {"broadcast_dims": shared}
    call = getattr(reference, form)
    y, mask = call(x_array, *others, keep_prob=1.0 - case.p, rng=seed(case.seed), **settings)
    return Expected(y, lambda dy: getattr(reference, f"{form}_backward")(plain(dy), mask))


# --- what comes out ---------------------------------------------------------------------------


def call(case: Case, x: torch.Tensor, residual: torch.Tensor, own_generator: bool) -> torch.Tensor:
    source = {"generator": generator(case.seed)} if own_generator else {}
    if case.name == "dropout_add":
        return ft.dropout_add(x, residual, case.p, True, **source)
    if case.way == "module" and case.name in MODULES:
        return MODULES[case.name](case.p, case.inplace)(x)
    if case.way == "patched" and case.name != "relu_dropout":
        return getattr(F, case.name)(x, case.p, True, case.inplace)
    return getattr(ft, case.name)(x, case.p, True, case.inplace, **source)


def result(case: Case, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """The result of the call, in the case's way."""
    torch.manual_seed(case.seed)
    own = case.way == "eager" and case.seed % 2 == 0
    with ExitStack() as stack:
        if case.gradient == "no_grad":
            stack.enter_context(torch.no_grad())
        elif case.gradient == "inference":
            stack.enter_context(torch.inference_mode())
        if case.way == "mode":
            stack.enter_context(Onlooker())
        elif case.way == "hooks":
            stack.enter_context(torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t))
        elif case.way == "patched":
            stack.enter_context(ft.patched())
        elif case.way == "threads":
            before = fd.get_num_threads()
            fd.set_num_threads(2)
            dispatch.set_thread_work(0)
            stack.callback(fd.set_num_threads, before)
            stack.callback(dispatch.set_thread_work, THREAD_WORK)
        if case.way == "checkpoint" and not case.inplace:
            return checkpoint(call, case, x, residual, False, use_reentrant=False)
        return call(case, x, residual, own)


def fault(case: Case) -> str:
    """What is wrong with a case, or nothing."""
    if "alpha" in case.name and case.p == 1.0:
        return ""  # PyTorch's own has no affine map there
    x, residual, dy = (values(case, n, lies) for n, lies in enumerate((case.layout, case.residual, case.dy)))
    never = case.name == "dropout_add" or (case.name == "alpha_dropout" and case.way == "module")
    if case.inplace and (case.layout == "expanded" or never):
        case = case._replace(inplace=False)
    wants = case.gradient in ("leaf", "product", "twice")
    should = expected(case, x, residual)
    source = x.detach().clone(memory_format=torch.preserve_format)
    if wants:
        x.requires_grad_()
        residual.requires_grad_(case.seed % 3 == 0)
    given = x * 1 if wants and (case.gradient == "product" or case.inplace) else x
    if case.way == "vjp" and not case.inplace:
        torch.manual_seed(case.seed)
        y, back = torch.func.vjp(lambda z: call(case, z, residual, False), x.detach())
        found = back(dy.clone())[0]
        return wrong("y", y, should.y) or wrong("dx", found, should.back(dy))
    y = result(case, given, residual)
    if problem := wrong("y", y, should.y):
        return problem
    if case.inplace and y.data_ptr() != given.data_ptr():
        return "the result lies elsewhere"
    if not case.inplace and wrong("x", x, plain(source)):
        return "the input has been written over"
    if not wants:
        return "" if not y.requires_grad else "a gradient that nobody wants"
    if case.gradient == "twice":
        return second(case, y, x, dy, should)
    y.backward(dy)
    if residual.requires_grad and case.name == "dropout_add" and (problem := wrong("dr", residual.grad, plain(dy))):
        return problem
    return wrong("dx", x.grad, should.back(dy))


def second(case: Case, y: torch.Tensor, x: torch.Tensor, dy: torch.Tensor, should: Expected) -> str:
    """What is wrong with the gradient, or with its own derivative."""
    dy = dy.detach().requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    weights = values(case, 5, "plain")
    (ddy,) = torch.autograd.grad(dx, dy, weights)
    return wrong("dx", dx, should.back(dy)) or wrong("ddy", ddy, should.back(weights))


def wrong(what: str, found: torch.Tensor, should: np.ndarray) -> str:
    array = plain(found)
    if array.shape != should.shape or array.dtype != should.dtype:
        return f"{what} is {array.dtype}{array.shape}, not {should.dtype}{should.shape}"
    same = (array == should) | (np.isnan(array) & np.isnan(should))
    if not same.all():
        first = np.argwhere(~same)[:1].tolist()
        return f"{what} differs first at {first}"
    return ""


@pytest.mark.thread_unsafe
@pytest.mark.parametrize("batch", range(6))
@pytest.mark.parametrize("start", [SEED, FRESH], ids=["fixed", "fresh"])
def test_a_call_does_what_the_reference_does(start, batch):
    before = cpu.active()
    try:
        for number in range(BATCH * batch, BATCH * (batch + 1)):
            case = drawn(random.Random(f"{start} {number}"))
            cpu.activate(case.isa)
            found = fault(case)
            assert not found, f"{found}\ncase {number} of {start}: {case}"
    finally:
        cpu.activate(before)
