"""The Thinc adapter takes the arguments of Thinc's layers and gives the bits of the calls."""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import re
import sys
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest
from packaging.requirements import Requirement

thinc = pytest.importorskip("thinc.api", reason="Thinc is an optional dependency")

from thinc.types import Padded, Ragged  # noqa: E402
from thinc.util import fix_random_seed  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.thinc as ft  # noqa: E402
from extras import TABLES  # noqa: E402
from support import DATA, PACKAGE, environment, output_of  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Thinc's own dependencies


def seed(n=0):
    """Return the seed that a call draws after `fix_random_seed(n)`."""
    fix_random_seed(n)
    return ft.new_seed()


def values(*shape):
    return np.random.default_rng(3).standard_normal(shape, dtype=np.float32)


FORMS = {"dropout": ft.Dropout, "relu_dropout": ft.ReluDropout}


@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_are_those_of_the_calls(form):
    x, dy = values(9, 31), values(9, 31) + 1
    expected, mask = getattr(fd, form)(x, keep_prob=0.75, rng=seed())
    fix_random_seed(0)
    y, back = FORMS[form](0.25)(x, is_train=True)
    assert np.array_equal(y, expected)
    assert np.array_equal(back(dy), getattr(fd, f"{form}_backward")(dy, mask))


@pytest.mark.parametrize("form", FORMS)
def test_prediction_drops_nothing(form):
    x = values(9, 31)
    model = FORMS[form](0.25)
    assert np.array_equal(model.predict(x), np.maximum(x, 0) if form == "relu_dropout" else x)
    model.attrs["is_enabled"] = False
    y, back = model(x, is_train=True)
    assert np.array_equal(y, model.predict(x))
    assert np.array_equal(back(np.ones_like(x)), x > 0 if form == "relu_dropout" else np.ones_like(x))


@pytest.mark.parametrize("form", FORMS)
def test_ragged_padded_and_lists(form):
    model, x = FORMS[form](0.5), values(6, 8)
    ragged = Ragged(x, np.array([2, 4], "i"))
    y, back = model(ragged, is_train=True)
    assert y.dataXd.shape == x.shape
    assert np.array_equal(back(y).dataXd != 0, y.dataXd != 0)
    y, back = model([x, x[:2]], is_train=True)
    assert [part.shape for part in back(y)] == [(6, 8), (2, 8)]
    padded = thinc.NumpyOps().list2padded([x, x[:2]])
    y, back = model(padded, is_train=True)
    assert isinstance(y, Padded)
    assert np.array_equal(back(y).data != 0, y.data != 0)


@pytest.mark.parametrize("form", FORMS)
def test_backprop_holds_no_input(form):
    x = values(5, 6)
    there = weakref.ref(x)
    _, back = FORMS[form](0.5)(x, is_train=True)
    del x
    gc.collect()
    assert there() is None
    assert back(values(5, 6)).dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
def test_a_name_is_its_owners_to_change(form):
    model, x = FORMS[form](0.0), values(3, 4)
    expected = model.predict(x)
    model.name = "hidden"
    assert np.array_equal(model(x, is_train=True)[0], expected)


@pytest.mark.parametrize(("rate", "kept"), [(None, 1.0), (-0.5, 1.0), (1.0, 0.0), (1.5, 0.0)])
def test_rates_are_taken_as_thinc_takes_them(rate, kept):
    x = np.ones((3, 4), np.float32)
    assert (ft.Dropout(rate)(x, is_train=True)[0] == kept).all()
    assert (thinc.Dropout(rate)(x, is_train=True)[0] == kept).all()


@pytest.mark.parametrize("make", FORMS.values())
@pytest.mark.parametrize("word", ["keep_prob", "p", "drop"])
def test_a_wrong_word_is_told_the_right_one(make, word):
    with pytest.raises(TypeError, match=f"no argument '{word}': pass rate, the probability that an element is dropped"):
        make(**{word: 0.2})


def test_set_dropout_rate_reaches_the_layer():
    model = thinc.chain(thinc.Linear(4, 4), ft.ReluDropout(0.1), ft.Dropout(0.1))
    thinc.set_dropout_rate(model, 0.7)
    assert [layer.attrs["dropout_rate"] for layer in model.layers[1:]] == [0.7, 0.7]


def test_the_mask_of_the_ops():
    expected, _ = fd.dropout(np.ones((4, 50), np.float32), keep_prob=0.8, rng=seed())
    fix_random_seed(0)
    ops = thinc.get_ops("fastdrop")
    assert isinstance(ops, ft.FastdropOps)
    assert np.array_equal(ops.get_dropout_mask((4, 50), 0.2), expected)
    assert ops.get_dropout_mask((3,), 0.0).tolist() == [1, 1, 1]
    assert ops.get_dropout_mask((3,), None).tolist() == [1, 1, 1]
    assert ops.get_dropout_mask((3,), 1.0).tolist() == [0, 0, 0]


def test_layers_take_the_operations_that_are_current_when_they_are_created():
    x = values(4, 50)
    expected, _ = fd.dropout(x, keep_prob=0.8, rng=seed())
    with thinc.use_ops("fastdrop"):
        model = thinc.Dropout(0.2)
        with thinc.use_ops("numpy"):
            assert type(thinc.Dropout(0.2).ops) is thinc.NumpyOps
        assert type(thinc.Dropout(0.2).ops) is ft.FastdropOps
    fix_random_seed(0)
    assert np.array_equal(model(x, is_train=True)[0], expected)


def test_an_accelerated_model_gets_its_masks_from_the_kernels():
    x, dy = values(4, 50), values(4, 50) + 1
    expected, mask = fd.dropout(x, keep_prob=0.8, rng=seed())
    drop = thinc.Dropout(0.2)
    model = thinc.chain(drop, thinc.residual(thinc.Linear(50, 50)))
    saved = model.to_bytes()
    assert ft.accelerate(model) is model
    assert {type(node.ops) for node in model.walk()} == {ft.FastdropOps}
    assert model.to_bytes() == saved
    fix_random_seed(0)
    y, back = drop(x, is_train=True)
    assert np.array_equal(y, expected)
    assert np.array_equal(back(dy), fd.dropout_backward(dy, mask))
    restored = pickle.loads(pickle.dumps(model)).from_bytes(saved)
    assert {type(node.ops) for node in restored.walk()} == {ft.FastdropOps}


def test_a_model_on_another_device_is_not_accelerated():
    class OtherOps(thinc.NumpyOps):
        pass

    model = thinc.chain(thinc.Linear(4, 4), thinc.Dropout(0.2))
    model.layers[0].ops = OtherOps()
    ft.accelerate(model)
    assert type(model.layers[0].ops) is OtherOps
    with pytest.raises(ValueError, match="computes on the CPU with Thinc's operations, got OtherOps"):
        ft.accelerate(model.layers[0])
    with pytest.raises(TypeError, match=r"model must be a thinc\.api\.Model or a pipeline of spaCy, got list"):
        ft.accelerate([model])


def test_the_operations_are_those_that_thinc_prefers_for_the_cpu(tmp_path):
    apple = "from thinc.api import NumpyOps, registry\n@registry.ops('AppleOps')\nclass AppleOps(NumpyOps):\n"
    (tmp_path / "thinc_apple_ops.py").write_text(f"{apple}    name = 'apple'\n")
    code = "import thinc_apple_ops, fastdrop.thinc as ft; print(ft.FastdropOps.mro()[1].__name__)"
    variables = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(PACKAGE.parent), *sys.path]))
    assert output_of([sys.executable, "-W", "ignore", "-c", code], env=variables).split()[-1] == "AppleOps"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_gradient_keeps_its_precision(form, dtype):
    x, dy = values(9, 31).astype(np.float16), (values(9, 31) * 1e6).astype(dtype)
    _, back = FORMS[form](0.25)(x, is_train=True)
    dx = back(dy)
    assert dx.dtype == dtype
    assert np.isfinite(dx).all()
    assert back(np.ones((9, 31), np.int32)).dtype == np.float16


@pytest.mark.parametrize("form", FORMS)
def test_a_gradient_belongs_to_its_result_whatever_happens_between(form):
    x, dy = values(9, 31), values(9, 31) + 1
    _, mask = getattr(fd, form)(x, keep_prob=0.75, rng=seed())
    expected = getattr(fd, f"{form}_backward")(dy, mask)
    model = FORMS[form](0.25)
    fix_random_seed(0)
    y, back = model(x, is_train=True)
    x[:], y[:] = -1, -1
    thinc.set_dropout_rate(model, 0.9)
    model(values(3, 3), is_train=True)
    assert np.array_equal(back(dy), expected)
    assert np.array_equal(back(dy.T.copy().T), expected)
    assert (dy == values(9, 31) + 1).all()


@pytest.mark.parametrize("X", [(values(2, 3), values(1, 3)), [[values(2, 3)]], {"a": 1}, np.ones((2, 3), np.int32)])
def test_without_dropout_an_input_of_any_kind_comes_back(X):
    for y, back in (ft.Dropout(0.0)(X, is_train=True), ft.Dropout(0.5)(X, is_train=False)):
        assert y is X
        assert back(X) is X


def test_copies_and_threads_take_thincs_rules():
    model = ft.accelerate(thinc.chain(ft.Dropout(0.5), thinc.Dropout(0.5)))
    assert [type(layer.ops) for layer in model.copy().layers] == [thinc.NumpyOps] * 2
    x = values(50, 40)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: model(x, is_train=True), range(8)))
    assert all(np.array_equal(back(x), y) for y, back in results)
    assert len({y.tobytes() for y, _ in results}) == 8


def test_a_config_can_name_the_layers():
    config = thinc.Config().from_str('[model]\n@layers = "fastdrop.ReluDropout.v1"\nrate = 0.25')
    model = thinc.registry.resolve(config)["model"]
    assert model.name == "relu_dropout"
    assert model.attrs["dropout_rate"] == 0.25


def test_thincs_own_tests_pass_with_our_dropout():
    names = ["layers.test_layers_api", "layers.test_linear", "layers.test_combinators", "model.test_model"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "thinc_with_fastdrop", "-p", "no:cacheprovider"]
    command += ["--pyargs", *(f"thinc.tests.{name}" for name in names)]
    paths = os.pathsep.join([str(DATA), str(PACKAGE.parent)])
    variables = environment(PYTHONPATH=paths, PYTEST_ADDOPTS="-c /dev/null")
    printed = output_of(command, cwd=DATA, env=variables)
    assert int(re.search(r"(\d+) passed", printed)[1]) > 100


EMBEDDING = """\
@architectures = "spacy.HashEmbedCNN.v2"
pretrained_vectors = null
width = 32
depth = 1
embed_size = 200
window_size = 1
maxout_pieces = 2
subword_features = true
"""
CONFIG = f"""
[nlp]
lang = "en"
pipeline = ["textcat"]

[components]

[components.textcat]
factory = "textcat"

[components.textcat.model]
@layers = "chain.v1"

[components.textcat.model.*.embed]
{EMBEDDING}
[components.textcat.model.*.ragged]
@layers = "list2ragged.v1"

[components.textcat.model.*.mean]
@layers = "reduce_mean.v1"

[components.textcat.model.*.drop]
@layers = "fastdrop.ReluDropout.v1"
rate = 0.2

[components.textcat.model.*.out]
@layers = "Softmax.v1"
"""


@pytest.fixture
def spacy():
    try:
        lines = metadata.requires("spacy")
    except metadata.PackageNotFoundError:
        pytest.skip("spaCy is an optional dependency")
    needed = next(each for each in map(Requirement, lines) if each.name == "thinc")
    if not needed.specifier.contains(metadata.version("thinc")):
        pytest.skip(f"spaCy {metadata.version('spacy')} needs {needed}")  # the import of spaCy could fail
    return importlib.import_module("spacy")


def sentences():
    """Return pairs of a text and whether it is good."""
    good, bad = ("good", "lovely", "great", "fine"), ("bad", "awful", "poor", "dull")
    things = ("film", "book", "meal", "walk", "song")
    return [(f"a {word} {thing}", word in good) for word in good + bad for thing in things]


def examples(spacy, nlp):
    """Return the sentences as spaCy's examples, for a text classifier and for a tagger."""
    return [
        spacy.training.Example.from_dict(
            nlp.make_doc(text), {"cats": {"GOOD": float(y), "BAD": float(not y)}, "tags": ["D", "J" + str(y), "N"]}
        )
        for text, y in sentences()
    ]


@pytest.mark.filterwarnings("ignore")  # spaCy's and its dependencies'
def test_a_spacy_classifier_learns_through_it(spacy):
    fix_random_seed(0)
    nlp = spacy.util.load_model_from_config(thinc.Config().from_str(CONFIG), auto_fill=True)
    batch = examples(spacy, nlp)
    optimizer = nlp.initialize(lambda: batch)
    for _ in range(15):
        nlp.update(batch, sgd=optimizer, drop=0.2)
    names = [layer.name for layer in nlp.get_pipe("textcat").model.walk()]
    assert "relu_dropout" in names
    assert sum((nlp(text).cats["GOOD"] > 0.5) == y for text, y in sentences()) >= 36


TRAINING = f"""
[nlp]
lang = "en"
pipeline = ["tok2vec", "tagger", "textcat"]

[components]

[components.tok2vec]
factory = "tok2vec"

[components.tok2vec.model]
{EMBEDDING}
[components.tagger]
factory = "tagger"

[components.tagger.model]
@architectures = "spacy.Tagger.v2"

[components.tagger.model.tok2vec]
@architectures = "spacy.Tok2VecListener.v1"
width = 32

[components.textcat]
factory = "textcat"

[corpora]

[corpora.train]
@readers = "spacy.Corpus.v1"
path = "FOLDER/train.spacy"

[corpora.dev]
@readers = "spacy.Corpus.v1"
path = "FOLDER/train.spacy"

[training]
seed = 0
gpu_allocator = null
max_steps = 40
eval_frequency = 40
dropout = 0.2
dev_corpus = "corpora.dev"
train_corpus = "corpora.train"

[initialize]

[initialize.before_init]
@callbacks = "fastdrop.accelerate.v1"
"""


def installed(folder):
    """Put the entry points of pyproject.toml into a folder, as an installation does."""
    tables = TABLES["project"]["entry-points"]
    text = "".join(
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in tables[group].items()) for group in tables
    )
    home = folder / "fastdrop_kernels-0.dist-info"
    home.mkdir()
    (home / "METADATA").write_text("Metadata-Version: 2.1\nName: fastdrop-kernels\nVersion: 0\n")
    (home / "entry_points.txt").write_text(text)


@pytest.mark.filterwarnings("ignore")
def test_every_component_of_a_spacy_pipeline_is_accelerated(spacy):
    nlp = spacy.blank("en")
    for name in ("tok2vec", "tagger", "parser", "sentencizer"):
        nlp.add_pipe(name)
    nlp.disable_pipe("tagger")
    assert ft.accelerate(nlp) is nlp
    models = [nlp.get_pipe(name).model for name in ("tok2vec", "tagger", "parser")]
    assert {type(node.ops) for model in models for node in model.walk()} == {ft.FastdropOps}
    with pytest.raises(ValueError, match="got no layers"):
        ft.accelerate(spacy.blank("en"))


@pytest.mark.filterwarnings("ignore")
def test_spacy_train_draws_its_dropout_from_the_kernels(spacy, tmp_path):
    blank = spacy.blank("en")
    docs = [example.reference for example in examples(spacy, blank)]
    spacy.tokens.DocBin(docs=docs, store_user_data=True).to_disk(tmp_path / "train.spacy")
    (tmp_path / "config.cfg").write_text(TRAINING.replace("FOLDER", tmp_path.as_posix()))
    installed(tmp_path)
    (tmp_path / "counted.py").write_text(COUNTED)
    command = [sys.executable, "-W", "ignore", "-m", "spacy", "train", "config.cfg"]
    command += ["--output", "trained", "--code", "counted.py"]
    variables = environment(PYTHONPATH=os.pathsep.join([str(tmp_path), str(PACKAGE.parent)]))
    printed = output_of(command, cwd=tmp_path, env=variables)
    assert int(re.search(r"(\d+) calls of the kernels", printed)[1]) > 40
    nlp = spacy.load(tmp_path / "trained" / "model-last")  # in this environment, where nothing names the callback
    ops = {type(node.ops) for _, pipe in nlp.pipeline for node in pipe.model.walk()}
    assert ops == {thinc.NumpyOps}
    assert sum((nlp(text).cats["GOOD"] > 0.5) == y for text, y in sentences()) >= 36
    assert all(nlp(text)[1].tag_ == "J" + str(y) for text, y in sentences())


# spaCy imports this code before it reads the config.
COUNTED = """
import atexit, sys
from fastdrop import functional

calls, dropout = [], functional.dropout
functional.dropout = lambda *arguments, **words: calls.append(1) or dropout(*arguments, **words)
atexit.register(lambda: print(len(calls), "calls of the kernels"))
"""
