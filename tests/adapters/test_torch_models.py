"""PyTorch's modules and models: swapped, patched and put back."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

import copy  # noqa: E402
import os  # noqa: E402
import pickle  # noqa: E402

from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch_support import generator, values  # noqa: E402

import fastdrop.torch as ft  # noqa: E402
from fastdrop.torch import functional, models, patches  # noqa: E402
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


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), copy.copy], ids=str)
def test_copies_know_what_they_were(copied):
    fast = model()
    ft.accelerate(fast)
    twin = copied(fast)
    assert same(run(fast, values(3, 6)), run(twin, values(3, 6)))
    ft.restore(twin)
    assert type(twin) is nn.Sequential
    assert type(twin[2]) is nn.Dropout


# --- a ReLU and a dropout in one pass ---------------------------------------------------------

# What can happen to a model after `accelerate`, each by a function that does it to one. What comes after is a plain
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
    assert str(graphs[0].graph) == str(graphs[1].graph)
    assert torch.equal(graphs[1].eval()(values(3, 6)), plain.eval()(values(3, 6)))
    assert isinstance(graphs[1].get_submodule("2"), ft.Dropout)


@pytest.mark.filterwarnings("ignore:`torch.jit.*:DeprecationWarning", "ignore:Trace had nondeterministic")
@pytest.mark.parametrize("program", [torch.jit.script, lambda m: torch.jit.trace(m, values(3, 6), check_trace=False)],
                         ids=["script", "trace"])  # fmt: skip
def test_programs_of_torchscript_hold_pytorchs_own(program, tmp_path):
    plain, fast = model(), model()
    ft.accelerate(fast)
    torch.jit.save(program(fast), tmp_path / "program.pt")
    loaded = torch.jit.load(tmp_path / "program.pt")
    names = {node.kind() for node in loaded.inlined_graph.nodes()}
    assert {"aten::relu", "aten::dropout"} <= names
    assert not any("fastdrop" in name for name in names)
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
        Own(), SpatialDropout(), own_forward, nn.LSTM(2, 2, 2, dropout=0.1), nn.GRU(2, 2), nn.MultiheadAttention(2, 1, 0.1),  # noqa: E501
        nn.FeatureAlphaDropout(),
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


def test_nothing_to_replace_says_so():
    class Calls(nn.Module):
        def forward(self, x):
            return F.dropout(x)

    assert str(ft.accelerate(Calls())) == (
        "nothing to replace: this model has no module of dropout. If it calls torch.nn.functional.dropout itself, "
        "use patched()"
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
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.2))  # noqa: E501
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
