"""PyTorch's modules and models: swapped, patched and put back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import contextlib  # noqa: E402
import copy  # noqa: E402
import inspect  # noqa: E402
import os  # noqa: E402
import pickle  # noqa: E402
import threading  # noqa: E402

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.utils.checkpoint import checkpoint, checkpoint_sequential  # noqa: E402
from torch_support import generator, values  # noqa: E402

import fastdrop.torch as ft  # noqa: E402
from fastdrop.torch import attention, functional, models, patches  # noqa: E402
from support import printed_by  # noqa: E402

# PyTorch itself calls what it has deprecated, under categories that differ between versions.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit", "ignore:.torch.cpu.amp", "ignore:Converting a tensor"
)


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


def run(model, x, seed=1):
    """Result and gradients of one step, with the draws of that seed."""
    torch.manual_seed(seed)
    x = x.detach().clone().requires_grad_()
    y = model(x * 1)
    model.zero_grad()
    y.sum().backward()
    return [y.detach(), x.grad, *(parameter.grad.clone() for parameter in model.parameters())]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


class Fused:
    """Counts the pairs that run in one pass."""

    def __init__(self, monkeypatch):
        self.count, real = 0, models.in_one_pass

        def counted(*args):
            y = real(*args)
            self.count += y is not None
            return y

        monkeypatch.setattr(models, "in_one_pass", counted)

    def of(self, model, x):
        self.count = 0
        model(x)
        return self.count


def test_accelerate_and_restore():
    plain, fast = model(), model()
    seen = []
    fast[4].register_forward_hook(lambda *_: seen.append(1))
    report = ft.accelerate(fast)
    assert (report.replaced, report.fused, report.left) == ({"2": "Dropout", "4": "Dropout"}, {"2": "1"}, {})
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert repr(fast) == repr(plain)
    fast(values(3, 6))
    assert seen == [1]
    assert torch.equal(fast.eval()(values(3, 6)), plain.eval()(values(3, 6)))
    assert not fast[2].training
    ft.restore(fast)
    assert [type(module) for module in fast.modules()] == [type(module) for module in plain.modules()]


def test_classes_are_still_what_tools_look_for():
    fast = nn.Sequential(nn.ReLU(), nn.Dropout(), nn.AlphaDropout(), nn.FeatureAlphaDropout(), nn.Dropout1d(),
                         nn.Dropout2d(), nn.Dropout3d())  # fmt: skip
    kinds = [type(module) for module in fast.modules()]
    ft.accelerate(fast)
    for module, kind in zip(fast.modules(), kinds):
        assert isinstance(module, kind)
        assert type(module).__name__ == kind.__name__
    assert type(fast[0]) is nn.ReLU


def test_restore_leaves_what_the_user_made():
    mine = nn.Sequential(ft.ReLUDropout(0.5), ft.Dropout(0.5), nn.ReLU(), ft.Dropout(0.5), nn.Dropout(0.5))
    kinds = [type(module) for module in mine.modules()]
    report = ft.accelerate(mine)
    assert report.left == dict.fromkeys("013", "it is fastdrop's already")
    assert report.replaced == {"4": "Dropout"}
    assert report.fused == {"3": "2"}
    ft.restore(mine)
    assert [type(module) for module in mine.modules()] == kinds


def test_a_second_time_changes_nothing():
    fast = model()
    ft.accelerate(fast)
    report = ft.accelerate(fast)
    assert report.replaced == {}
    assert str(report).startswith("nothing to replace\n2: left alone, it is fastdrop's already")
    ft.restore(fast)
    assert type(fast) is nn.Sequential


COPIES = {"deep": copy.deepcopy, "pickle": lambda m: pickle.loads(pickle.dumps(m)), "shallow": copy.copy}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_copies_know_what_they_were(copied):
    fast = model()
    ft.accelerate(fast)
    twin = copied(fast)
    assert same(run(fast, values(3, 6)), run(twin, values(3, 6)))
    ft.restore(twin)
    assert type(twin) is nn.Sequential
    assert type(twin[2]) is nn.Dropout


# --- a ReLU and a dropout in one pass ---------------------------------------------------------

# What can happen to a model after `accelerate`, each by a function that does it to one. The judge is a plain
# Sequential of the same modules, which knows no pair.
LATER = {
    "nothing": lambda m: None,
    "a hook behind the ReLU": lambda m: m[1].register_forward_hook(lambda *_: None),
    "a hook before the dropout": lambda m: m[2].register_forward_pre_hook(lambda *_: None),
    "a hook that changes": lambda m: m[1].register_forward_hook(lambda module, args, y: y + 1),
    "a backward hook": lambda m: m[1].register_full_backward_hook(lambda module, dx, dy: (dx[0] * 2,)),
    "a backward hook of the dropout": lambda m: m[2].register_full_backward_hook(lambda *_: None),
    "a forward of its own": lambda m: setattr(m[1], "forward", torch.tanh),
    "a dropout with a forward of its own": lambda m: setattr(m[2], "forward", lambda x: x * 3),
    "another dropout": lambda m: m.__setitem__(2, nn.Dropout(0.9)),
    "no dropout": lambda m: m.__delitem__(2),
    "no ReLU": lambda m: m.__delitem__(1),
    "another activation": lambda m: m.__setitem__(1, nn.GELU()),
    "a module in between": lambda m: m.insert(2, nn.Tanh()),
    "the ReLU once more": lambda m: m.append(m[1]),
    "the dropout once more": lambda m: m.append(m[2]),
    "another rate": lambda m: setattr(m[2], "p", 0.75),
    "rate 0": lambda m: setattr(m[2], "p", 0.0),
    "rate 1": lambda m: setattr(m[2], "p", 1.0),
    "a ReLU in place": lambda m: setattr(m[1], "inplace", True),
    "prediction": lambda m: m.eval(),
    "a dropout that predicts": lambda m: m[2].eval(),
    "a sequence that predicts": lambda m: setattr(m, "training", False),
    "another class": lambda m: setattr(m[1], "__class__", nn.Tanh),
    "other hooks taken off": lambda m: m[1].register_forward_hook(lambda *_: None).remove(),
}


@pytest.mark.parametrize("later", LATER)
def test_whatever_happens_later_the_results_are_those_of_single_modules(later):
    fast = model()
    ft.accelerate(fast)
    LATER[later](fast)
    assert same(run(fast, values(3, 6)), run(nn.Sequential(*fast), values(3, 6)))


def test_what_is_called_alone_is_pytorchs():
    fast, x = model(), values(3, 64)
    ft.accelerate(fast)
    assert torch.equal(fast[1](x), torch.relu(x))
    assert torch.equal(fast[:2](values(3, 6)), torch.relu(fast[0](values(3, 6))))
    torch.manual_seed(0)
    y = fast[2](x)
    torch.manual_seed(0)
    assert torch.equal(y, ft.dropout(x, 0.5))


@pytest.mark.parametrize(("inplace", "count"), [((False, False), 1), ((True, False), 0), ((False, True), 0)])
@pytest.mark.parametrize("training", [True, False])
def test_a_tensor_that_others_hold_is_written_where_pytorch_writes_it(monkeypatch, inplace, count, training):
    pair = nn.Sequential(nn.ReLU(inplace[0]), nn.Dropout(1e-12, inplace[1])).train(training)
    fast = copy.deepcopy(pair)
    ft.accelerate(fast)
    x, other = values(2, 5), values(2, 5)
    assert torch.equal(pair(x) + x, fast(other) + other)
    assert torch.equal(x, other)
    assert Fused(monkeypatch).of(fast, values(2, 5)) == (count if training else 0)


def test_a_relu_in_place_runs_in_one_pass_behind_what_makes_a_new_tensor(monkeypatch):
    fused, results = Fused(monkeypatch), []
    for inplace in (False, True):
        torch.manual_seed(0)
        fast = nn.Sequential(nn.Linear(6, 64), nn.ReLU(inplace), nn.Dropout(0.5))
        ft.accelerate(fast)
        assert fused.of(fast, values(3, 6)) == 1
        results.append(run(fast, values(3, 6)))
    assert same(*results)
    kept = []
    fast[0].register_forward_hook(lambda module, args, y: kept.append(y))
    assert fused.of(fast, values(3, 6)) == 0
    assert (kept[0] >= 0).all()


def test_modes_tracers_and_others_see_two_calls(monkeypatch):
    fast, fused, x = model(), Fused(monkeypatch), values(3, 6)
    ft.accelerate(fast)
    assert fused.of(fast, x) == 1

    class Calls(torch.overrides.TorchFunctionMode):
        def __init__(self):
            super().__init__()
            self.seen = []

        def __torch_function__(self, function, types, args=(), kwargs=None):
            self.seen.append(getattr(function, "__name__", ""))
            return function(*args, **(kwargs or {}))

    with Calls() as calls:
        assert fused.of(fast, x) == 0
    assert "relu" in calls.seen
    hook = nn.modules.module.register_module_forward_hook(lambda *_: None)
    assert fused.of(fast, x) == 0
    hook.remove()
    for holder, name in ((nn.Module, "__call__"), (nn.ReLU, "forward"), (F, "relu")):
        with monkeypatch.context() as patch:
            original = getattr(holder, name)
            patch.setattr(holder, name, lambda *args, original=original, **kwargs: original(*args, **kwargs))
            assert fused.of(fast, x) == 0
    assert fused.of(fast, x) == 1


def test_traced_by_fx_it_is_the_graph_of_modules():
    plain, fast = model(), model()
    ft.accelerate(fast)
    graphs = [torch.fx.symbolic_trace(m) for m in (plain, fast)]
    nodes = [[(node.op, node.target, str(node.args)) for node in graph.graph.nodes] for graph in graphs]
    assert nodes[0] == nodes[1]
    assert torch.equal(graphs[1].eval()(values(3, 6)), plain.eval()(values(3, 6)))
    assert isinstance(graphs[1].get_submodule("2"), ft.Dropout)


PROGRAMS = {
    "script": torch.jit.script,
    "trace": lambda model: torch.jit.trace(model, values(3, 6), check_trace=False),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_programs_of_torchscript_hold_pytorchs_own(program, tmp_path):
    plain, fast = model(), model()
    ft.accelerate(fast)
    torch.jit.save(program(fast), tmp_path / "program.pt")
    loaded = torch.jit.load(tmp_path / "program.pt")
    graph = str(loaded.inlined_graph)
    assert "aten::relu(" in graph
    assert "aten::dropout(" in graph
    assert "fastdrop::" not in graph
    torch.manual_seed(0)
    y = loaded(values(3, 6))
    torch.manual_seed(0)
    assert torch.equal(y, plain(values(3, 6)))


def test_compiled_code_runs_the_pair_in_one_pass():
    fast = model()
    ft.accelerate(fast)
    expected = run(fast, values(3, 6))
    operators = []

    def backend(graph, inputs):
        operators.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    compiled = torch.compile(fast, fullgraph=True, backend=backend)
    torch.manual_seed(1)
    assert torch.equal(compiled(values(3, 6)), expected[0])
    assert not any("relu" in operator for operator in operators if "fastdrop" not in operator)
    fast.eval()
    assert torch.equal(compiled(values(3, 6)), fast(values(3, 6)))


def test_checkpointed_pairs_and_functional_calls():
    fast, x = model(), values(3, 6)
    ft.accelerate(fast)
    expected = run(fast, x)
    for reentrant in (True, False):
        checkpointed = copy.deepcopy(fast)
        checkpointed.forward = lambda x, m=fast, r=reentrant: torch.utils.checkpoint.checkpoint(
            lambda x: type(m).forward(m, x), x, use_reentrant=r
        )
        fast.zero_grad()
        torch.manual_seed(1)
        y = checkpointed(x.clone().requires_grad_())
        y.sum().backward()
        assert same(expected[2:], [p.grad for p in fast.parameters()])
    torch.manual_seed(1)
    assert torch.equal(torch.func.functional_call(fast, dict(fast.named_parameters()), (x,)), expected[0])


# --- the report -------------------------------------------------------------------------------


def test_what_is_left_is_reported_with_its_reason():
    class Own(nn.Dropout):
        pass

    class SpatialDropout(nn.Module):
        pass

    own_forward = nn.Dropout()
    own_forward.forward = torch.tanh
    mixed = nn.ModuleList([
        Own(), SpatialDropout(), own_forward, nn.LSTM(2, 2, 2, dropout=0.1), nn.GRU(2, 2),
        nn.MultiheadAttention(2, 1, 0.1), nn.FeatureAlphaDropout(),
    ])  # fmt: skip
    report = ft.accelerate(mixed)
    assert report.replaced == {"6": "FeatureAlphaDropout"}
    assert report.left == {
        "0": "Own is a class of its own",
        "1": "SpatialDropout is a class of its own",
        "2": "it has a forward of its own",
        "3": "dropout=0.1 is applied between the layers inside of PyTorch's own loop",
        "5": "if dropout=0.1 is applied by a function of torch.nn.functional, use patched()",
    }
    assert "0: left alone, Own is a class of its own" in str(report)
    assert type(own_forward) is nn.Dropout


@pytest.mark.parametrize("kind", [nn.AlphaDropout, nn.FeatureAlphaDropout])
def test_the_alpha_forms_are_never_in_place(kind):
    module, x = kind(0.5, inplace=True), values(2, 4, 6)
    ft.accelerate(module)
    before = x.clone()
    module(x)
    module(values(2, 4, 6).requires_grad_())
    assert torch.equal(x, before)


@pytest.mark.parametrize("function", [ft.accelerate, ft.restore])
def test_a_model_is_a_module(function):
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got NoneType"):
        function(None)


@pytest.mark.filterwarnings("ignore:The TorchScript type system:UserWarning")
def test_the_graph_of_a_sequential_can_be_scripted():
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.5)).eval()
    x = values(2, 8)
    expected = model(x)
    ft.accelerate(model)
    assert torch.equal(torch.jit.script(torch.fx.symbolic_trace(model))(x), expected)


def test_a_dropout_in_place_is_not_said_to_run_with_its_relu():
    report = ft.accelerate(nn.Sequential(nn.ReLU(), nn.Dropout(0.2, inplace=True)))
    assert (report.replaced, report.fused) == ({"1": "Dropout"}, {})


def test_nothing_to_replace_says_so():
    class Calls(nn.Module):
        def forward(self, x):
            return F.dropout(x)

    assert str(ft.accelerate(Calls())) == (
        "nothing to replace: this model has no module of dropout. "
        "If it calls torch.nn.functional.dropout itself, use patched()"
    )
    assert str(ft.accelerate(nn.Dropout())) == "the model itself: now fastdrop.torch.Dropout"


# --- models of the kinds that people train ----------------------------------------------------


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.lstm = nn.LSTM(8, 8, 2, dropout=0.2, batch_first=True)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 2))

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0][:, -1])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        norm = nn.BatchNorm2d(4)
        first = nn.Conv2d(1, 4, 3, padding=1)
        self.first = nn.Sequential(first, norm, nn.ReLU(inplace=True), nn.Dropout2d(0.2))
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(0.2))
        self.skip = nn.Sequential(nn.ReLU(inplace=True), nn.Dropout(0.2))

    def forward(self, images):
        x = self.first(images)
        x = self.block(x) + x
        return (self.skip(x) + x).mean((2, 3))


class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.2, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x):
        return self.encoder(x)[:, 0]


KINDS = {
    Recurrent: lambda: torch.randint(20, (16, 5), generator=generator(3)),
    Residual: lambda: values(16, 1, 6, 6),
    Transformer: lambda: values(16, 5, 8),
}


@pytest.fixture
def one_thread():
    """Models this small are faster so, by far where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("kind", KINDS)
def test_models_predict_the_same_and_learn_alike(kind):
    torch.manual_seed(0)
    plain = kind()
    fast, x = copy.deepcopy(plain), KINDS[kind]()
    ft.accelerate(fast)

    def learn(model):
        torch.manual_seed(2)
        optimizer = torch.optim.Adam(model.parameters(), 0.01)
        target, losses = torch.arange(16) % 2, []
        for _ in range(40):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x.clone()), target)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        return sum(losses[-10:]) / 10

    expected = plain.eval()(x.clone())
    assert torch.equal(fast.eval()(x.clone()), expected)
    with ft.patched():
        assert torch.equal(plain(x.clone()), expected)
        losses = [learn(copy.deepcopy(fast).train())]
    losses.append(learn(fast.train()))
    theirs = learn(plain.train())
    assert all(abs(loss - theirs) < 0.35 for loss in losses), (losses, theirs)


# --- patched ----------------------------------------------------------------------------------


def test_contexts_that_overlap_are_undone_by_the_last():
    theirs, first, second = F.dropout, ft.patched(), ft.patched()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert F.dropout is patches.REPLACEMENTS[F, "dropout"]
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
other = threading.Thread(target=patches.hold, args=(Slow({(F, "dropout"): ft.dropout}), True), daemon=True)
other.start()
inside.wait()
child = os.fork()
if child == 0:
    with ft.patched():
        os._exit(0 if F.dropout is ft.dropout else 3)  # what the other thread put there
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert printed_by(code) == "0"


@pytest.mark.parametrize(
    "name", ["dropout", "alpha_dropout", "feature_alpha_dropout", "dropout1d", "dropout2d", "dropout3d"]
)
def test_what_is_patched_has_the_signature_of_pytorchs_own(name):
    theirs = getattr(F, name)
    with ft.patched():
        ours = getattr(F, name)
        assert ours is not theirs
        assert inspect.signature(ours) == inspect.signature(theirs)
        assert (ours.__module__, ours.__qualname__) == (theirs.__module__, theirs.__qualname__)


@pytest.mark.parametrize("name", ["dropout", "alpha_dropout", "feature_alpha_dropout"])
def test_patched_covers_the_functions_of_torch_and_of_its_nn(name):
    x, theirs = torch.ones(10, 10, 2), getattr(torch, name)
    results = []
    with ft.patched():
        for function, options in (
            (getattr(torch, name), {"train": True}), (getattr(F, name), {"training": True}),
        ):  # fmt: skip
            torch.manual_seed(0)
            results.append(function(x, p=0.5, **options))
    torch.manual_seed(0)
    results.append(getattr(ft, name)(x, 0.5, True))
    assert same(results, [results[-1]] * 3)
    assert getattr(torch, name) is theirs


def test_patched_covers_a_transformer(monkeypatch):
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.5, batch_first=True)
    drawn = []
    for name in ("dropout", "attention"):
        ours = getattr(patches, name)

        def counted(*args, ours=ours, name=name, **options):
            drawn.append(name)
            return ours(*args, **options)

        monkeypatch.setitem(
            patches.REPLACEMENTS, (F, patches.SDPA if name == "attention" else name),
            patches.instead(counted, functional.TORCH[patches.SDPA if name == "attention" else name]),
        )  # fmt: skip
    with ft.patched():
        y = layer(values(2, 5, 16))
    assert sorted(drawn) == ["attention", "dropout", "dropout", "dropout"]
    y.sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


def drops_between(x):
    return F.dropout(x * 2, 0.5) * x


CHECKPOINTS = {
    "reentrant": lambda x: checkpoint(drops_between, x, use_reentrant=True),
    "not reentrant": lambda x: checkpoint(drops_between, x, use_reentrant=False),
    "one inside of the other": lambda x: checkpoint(
        lambda x: checkpoint(drops_between, x, use_reentrant=True), x, use_reentrant=True
    ),
    "in a sequence": lambda x: checkpoint_sequential([drops_between], 1, x, use_reentrant=False),
}


@pytest.mark.parametrize("backward_inside", [False, True])
@pytest.mark.parametrize("forward_inside", [False, True])
@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_what_is_computed_again_is_what_was_computed(kind, forward_inside, backward_inside):
    """Whether or not a context is open in the backward pass."""

    def context(inside):
        return ft.patched() if inside else contextlib.nullcontext()

    def gradient(function):
        torch.manual_seed(0)
        x = values(4, 16).requires_grad_()
        with context(forward_inside):
            y = function(x)
        with context(backward_inside):
            y.sum().backward()
        return [y.detach(), x.grad]

    assert same(gradient(CHECKPOINTS[kind]), gradient(drops_between))
    assert F.dropout is functional.TORCH["dropout"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_context_that_a_checkpointed_function_opens_is_opened_again(reentrant):
    x, weight = values(5, 8).requires_grad_(), values(8, 8).requires_grad_()

    def block(x):
        with ft.patched():
            return F.dropout(x @ weight, 0.5)

    gradients = []
    for run in (block, lambda x: checkpoint(block, x, use_reentrant=reentrant)):
        torch.manual_seed(0)
        gradients.append(torch.autograd.grad(run(x).sum(), weight)[0] if not reentrant else backward_of(run(x), weight))
    assert torch.equal(*gradients)


def backward_of(y, leaf):
    """Return the gradient of a leaf by `backward`, which is all that reentrant checkpointing takes."""
    leaf.grad = None
    y.sum().backward()
    return leaf.grad


def test_a_recomputation_in_another_thread_changes_nothing_here():
    x, inside, asked = values(4, 16).requires_grad_(), threading.Event(), threading.Event()

    def waits(x):
        if inside.is_set():  # it is the second time
            asked.set()
            assert done.wait(60)
        inside.set()
        return F.dropout(x * 2, 0.5)

    done = threading.Event()
    with ft.patched():
        y = checkpoint(waits, x, use_reentrant=True)
    other = threading.Thread(target=y.sum().backward)
    other.start()
    assert asked.wait(60)
    torch.manual_seed(0)
    mine = F.dropout(values(4, 16), 0.5)
    done.set()
    other.join()
    torch.manual_seed(0)
    assert torch.equal(mine, F.dropout(values(4, 16), 0.5))
    assert F.dropout is functional.TORCH["dropout"]


def test_programs_of_torchscript_made_under_patched_hold_pytorchs_own():
    class Calls(nn.Module):
        def forward(self, x):
            x = torch.dropout(F.dropout(x, 0.5, True), 0.5, True)
            return F.scaled_dot_product_attention(x, x, x, None, 0.5)

    with ft.patched():
        program = torch.jit.script(Calls())
    assert "fastdrop::" not in str(program.inlined_graph)
    assert program(values(3, 4)).shape == (3, 4)


# --- attention, argument by argument ----------------------------------------------------------

ALMOST_NOTHING = 1e-12  # a rate so small that nothing is dropped, and yet the kernels draw


def mask_of(kind, *shape):
    return values(*shape) > -0.5 if kind is torch.bool else values(*shape, dtype=kind)


# By what each is for: shapes of query, key and value, and the options.
GOOD = {
    "plain": ((2, 3, 5, 8), {}),
    "two axes": ((5, 8), {}),
    "three axes": ((3, 5, 8), {}),
    "five axes": ((2, 1, 3, 5, 8), {}),
    "causal": ((2, 3, 5, 8), {"is_causal": True}),
    "causal, fewer keys": (((2, 3, 5, 8), (2, 3, 4, 8), (2, 3, 4, 8)), {"is_causal": True}),
    "causal, more keys": (((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)), {"is_causal": True}),
    "scale": ((2, 3, 5, 8), {"scale": 0.5}),
    "negative scale": ((2, 3, 5, 8), {"scale": -0.5}),
    "scale 0": ((2, 3, 5, 8), {"scale": 0.0}),
    "bool mask": ((2, 3, 5, 8), {"attn_mask": (torch.bool, (5, 5))}),
    "bool mask of batch and heads": ((2, 3, 5, 8), {"attn_mask": (torch.bool, (2, 3, 5, 5))}),
    "mask for all queries": ((2, 3, 5, 8), {"attn_mask": (torch.bool, (2, 1, 1, 5))}),
    "float mask": ((2, 3, 5, 8), {"attn_mask": (torch.float32, (2, 1, 5, 5))}),
    "other value size": (((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4)), {}),
    "one head for all": (((2, 3, 5, 8), (2, 1, 5, 8), (2, 1, 5, 8)), {}),
    "no query": (((2, 3, 0, 8), (2, 3, 5, 8), (2, 3, 5, 8)), {}),
    "no batch": ((0, 3, 5, 8), {}),
    "no key": (((2, 3, 5, 8), (2, 3, 0, 8), (2, 3, 0, 8)), {}),
    "head size 0": (((2, 3, 5, 0), (2, 3, 5, 0), (2, 3, 5, 4)), {}),
    "value size 0": (((2, 3, 5, 8), (2, 3, 5, 8), (2, 3, 5, 0)), {}),
}


def arguments(shapes, options, dtype=torch.float32):
    shapes = shapes if isinstance(shapes[0], tuple) else (shapes,) * 3
    options = dict(options)
    if isinstance(options.get("attn_mask"), tuple):
        kind, shape = options["attn_mask"]
        options["attn_mask"] = mask_of(kind if kind == torch.bool else dtype, *shape)
    tensors = [(values(*shape, dtype=dtype) * n).requires_grad_() for n, shape in enumerate(shapes, 1)]
    return tensors, options


def outcome(function, tensors, options):
    """The result and the gradients, or the class of the error."""
    tensors = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    try:
        y = function(*tensors, **options)
    except Exception as error:
        return type(error)
    y.sum().backward()
    return [y, *(tensor.grad for tensor in tensors)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("case", GOOD)
def test_attention_is_pytorchs_but_for_the_draw(case, dtype):
    tensors, options = arguments(*GOOD[case], dtype)
    mask, is_causal = options.get("attn_mask"), options.get("is_causal", False)
    assert attention.drops_here(*tensors, mask, 0.5, is_causal, None, False)
    ours = outcome(attention.attention, tensors, options | {"dropout_p": ALMOST_NOTHING})
    if dtype not in attention.HALVES:
        theirs = outcome(F.scaled_dot_product_attention, tensors, options | {"dropout_p": ALMOST_NOTHING})
        return torch.testing.assert_close(ours, theirs)
    # In halves before 2.5 PyTorch itself is far from the exact results.
    if mask is not None and mask.dtype == dtype:
        options["attn_mask"] = mask.float()
    theirs = outcome(F.scaled_dot_product_attention, [tensor.float() for tensor in tensors], options)
    assert {tensor.dtype for tensor in ours} == {dtype}
    return torch.testing.assert_close(
        [tensor.float() for tensor in ours], theirs, rtol=2**-6, atol=2**-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_attention_in_half_precision_is_at_least_as_exact_as_pytorchs(dtype):
    tensors = [values(2, 4, 32, 64, dtype=dtype) * n for n in (1, 2, 3)]
    exact = F.scaled_dot_product_attention(*(tensor.double() for tensor in tensors))
    errors = [
        (function(*tensors, dropout_p=ALMOST_NOTHING).double() - exact).abs().mean()
        for function in (attention.attention, F.scaled_dot_product_attention)
    ]
    assert errors[0] <= errors[1] * 1.001
    large = [torch.full((1, 1, 4, 64), 350.0, dtype=dtype)] * 3
    assert attention.attention(*large, dropout_p=ALMOST_NOTHING).eq(350).all()


def test_attention_under_autocasting_is_pytorchs():
    tensors, options = arguments(*GOOD["float mask"])
    with torch.autocast("cpu", torch.bfloat16):
        ours = outcome(attention.attention, tensors, options | {"dropout_p": ALMOST_NOTHING})
        theirs = outcome(F.scaled_dot_product_attention, tensors, options | {"dropout_p": ALMOST_NOTHING})
    assert ours[0].dtype == theirs[0].dtype == torch.bfloat16
    torch.testing.assert_close(ours[0], theirs[0], rtol=0.1, atol=0.1)  # before 2.5 PyTorch's is in bfloat16


@pytest.mark.parametrize("case", ["plain", "causal", "bool mask"])
def test_the_weights_of_attention_are_dropped_at_its_rate(case):
    tensors, options = arguments(*GOOD[case])
    expected = F.scaled_dot_product_attention(*tensors, **options)
    torch.manual_seed(1)
    dropped = [attention.attention(*tensors, dropout_p=0.5, **options).detach() for _ in range(1000)]
    assert (torch.stack(dropped).mean(0) - expected).abs().max() < 0.1 * expected.abs().max() + 0.2
    assert attention.attention(*tensors, dropout_p=1.0, **options).eq(0).all()


# Arguments that PyTorch refuses, or takes for what we do not look at; each has to end as it ends there.
OTHERS = {
    "a mask of integers": {"attn_mask": torch.ones(5, 5, dtype=torch.int64)},
    "a mask of another dtype": {"attn_mask": torch.ones(5, 5, dtype=torch.float64)},
    "a mask that does not fit": {"attn_mask": torch.ones(4, 4, dtype=torch.bool)},
    "a mask with more axes": {"attn_mask": torch.zeros(4, 2, 3, 5, 5)},
    "a mask with one more axis of length 1": {"attn_mask": torch.zeros(1, 2, 3, 5, 5)},
    "a mask that is a number": {"attn_mask": 1.0},
    "a mask and causal": {"attn_mask": torch.ones(5, 5, dtype=torch.bool), "is_causal": True},
    "a rate above 1": {"dropout_p": 1.5},
    "a rate below 0": {"dropout_p": -0.5},
    "a rate that is no number": {"dropout_p": float("nan")},
    "a rate that is a word": {"dropout_p": "half"},
    "a scale that is a word": {"scale": "half"},
    "a causal that is a word": {"is_causal": "yes"},
    "groups that are a number": {"enable_gqa": 1},
    "groups that are None": {"enable_gqa": None},
    "an argument that is none": {"training": True},
    "no dropout": {"dropout_p": 0.0},
}


@pytest.mark.parametrize("case", OTHERS)
def test_all_other_arguments_of_attention_end_as_in_pytorch(case):
    tensors, _ = arguments(*GOOD["plain"])
    options = {"dropout_p": ALMOST_NOTHING} | OTHERS[case]
    ours, theirs = (outcome(f, tensors, options) for f in (attention.attention, F.scaled_dot_product_attention))
    assert isinstance(ours, list) == isinstance(theirs, list), (ours, theirs)
    if isinstance(ours, list):
        torch.testing.assert_close(ours, theirs)
    else:
        assert ours is theirs


@pytest.mark.parametrize(
    "shapes",
    [
        ((5, 8), (5, 4), (5, 8)),
        ((5, 8), (4, 8), (5, 8)),
        ((8,), (8,), (8,)),
        ((5, 8), (8,), (5, 8)),
        ((5, 8), (5, 8), (8,)),
        ((2, 5, 8), (3, 5, 8), (3, 5, 8)),
    ],
    ids=str,
)
def test_shapes_that_do_not_fit_are_refused_as_in_pytorch(shapes):
    tensors, options = arguments(shapes, {"dropout_p": ALMOST_NOTHING})
    assert outcome(attention.attention, tensors, options) is RuntimeError
    assert outcome(F.scaled_dot_product_attention, tensors, options) is RuntimeError


def test_other_tensors_and_heads_in_groups_are_pytorchs():
    half, whole = values(2, 3, 5, 8, dtype=torch.float16), values(2, 3, 5, 8)
    assert outcome(attention.attention, [half, whole, whole], {"dropout_p": 0.5}) is RuntimeError
    if "enable_gqa" in F.scaled_dot_product_attention.__doc__:
        groups = [values(2, 4, 5, 8), values(2, 2, 5, 8), values(2, 2, 5, 8)]
        options = {"dropout_p": ALMOST_NOTHING, "enable_gqa": True}
        ours = outcome(attention.attention, groups, options)
        theirs = outcome(F.scaled_dot_product_attention, groups, options)
        torch.testing.assert_close(ours, theirs)


def test_attention_inside_of_vmap():
    tensors = [values(4, 2, 5, 8) * n for n in (1, 2, 3)]
    mask = values(4, 5, 5) > -0.5

    def each(query, key, value, mask):
        return attention.attention(query, key, value, mask, ALMOST_NOTHING)

    y = torch.vmap(each, randomness="different")(*tensors, mask)
    torch.testing.assert_close(y, torch.stack([each(*row) for row in zip(*tensors, mask)]))


@pytest.mark.parametrize("kind", [bool, float])
def test_attention_that_may_see_nothing_is_zero(kind):
    q, k, v = (values(1, 2, 4, 8).requires_grad_() for _ in range(3))
    mask = torch.ones(4, 4, dtype=torch.bool)
    mask[1] = False
    if kind is float:
        mask = torch.zeros(4, 4).masked_fill(~mask, -torch.inf)
    y = attention.attention(q, k, v, mask, dropout_p=1e-12)
    # Before 2.5 PyTorch's has NaN there.
    torch.testing.assert_close(y, F.scaled_dot_product_attention(q, k, v, mask).nan_to_num(0.0))
    y.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in (q, k, v))
    assert (y[..., 1, :] == 0).all()


def test_attention_overflows_no_earlier_than_pytorchs():
    q, k, v = torch.full((1, 2, 64), 1e19), torch.full((1, 2, 64), 4e18), torch.ones(1, 2, 1)
    assert attention.attention(q, k, v, dropout_p=ALMOST_NOTHING).eq(1).all()
    assert attention.attention(q * 10, k * 2.5, v, dropout_p=ALMOST_NOTHING, scale=1e-12).eq(1).all()


def test_attention_follows_pytorchs_choice_of_a_kernel():
    tensors, _ = arguments(*GOOD["plain"])
    with nn.attention.sdpa_kernel(nn.attention.SDPBackend.EFFICIENT_ATTENTION):
        theirs = outcome(F.scaled_dot_product_attention, tensors, {"dropout_p": 0.5})
        assert outcome(attention.attention, tensors, {"dropout_p": 0.5}) is theirs


# --- PyTorch's own samples --------------------------------------------------------------------

def infos():
    """Those of modules that drop, by name; they need a package that PyTorch's tests need."""
    try:
        from torch.testing._internal.common_modules import module_db
    except ImportError:
        return {}
    parts = "Dropout", "Transformer", "Multihead"
    found = {info.module_cls.__name__: info for info in module_db}
    return {name: info for name, info in found.items() if any(part in name for part in parts)}


INFOS = infos()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", INFOS)
def test_pytorchs_samples_of_modules(name, training):
    """The same errors, shapes, strides and dtypes; the same values at prediction."""
    options = {"device": "cpu", "dtype": torch.float32, "requires_grad": True, "training": training}
    for sample in INFOS[name].module_inputs_func(INFOS[name], **options):
        made = sample.constructor_input
        torch.manual_seed(0)
        plain = INFOS[name].module_cls(*made.args, **made.kwargs).train(training)
        fast, given = copy.deepcopy(plain), sample.forward_input
        ft.accelerate(fast)
        theirs = result_of(plain, given)
        with ft.patched():
            ours = result_of(fast, given)
        if isinstance(theirs, type) or isinstance(ours, type):
            assert ours is theirs
            continue
        assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)
        assert training or torch.equal(ours, theirs)


def result_of(module, given):
    """The result, the first one if there are two, or the class of the error."""
    try:
        y = module(*given.args, **given.kwargs)
    except Exception as error:
        return type(error)
    return y[0] if isinstance(y, tuple) else y
