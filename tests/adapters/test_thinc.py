"""The Thinc adapter takes the arguments of Thinc's layers and gives the bits of the calls."""

from __future__ import annotations

import os
import re
import sys
from importlib import metadata

import numpy as np
import pytest
from packaging.requirements import Requirement

thinc = pytest.importorskip("thinc.api", reason="Thinc is an optional dependency")

from thinc.types import Padded, Ragged  # noqa: E402
from thinc.util import fix_random_seed  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.thinc as ft  # noqa: E402
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


CONFIG = """
[nlp]
lang = "en"
pipeline = ["textcat"]

[components]

[components.textcat]
factory = "textcat"

[components.textcat.model]
@layers = "chain.v1"

[components.textcat.model.*.embed]
@architectures = "spacy.HashEmbedCNN.v2"
pretrained_vectors = null
width = 32
depth = 1
embed_size = 200
window_size = 1
maxout_pieces = 2
subword_features = true

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


@pytest.mark.filterwarnings("ignore")  # spaCy's and its dependencies'
def test_a_spacy_classifier_learns_through_it():
    spacy = pytest.importorskip("spacy", reason="spaCy is an optional dependency")
    needed = next(each for each in map(Requirement, metadata.requires("spacy")) if each.name == "thinc")
    if not needed.specifier.contains(metadata.version("thinc")):
        pytest.skip(f"spaCy {metadata.version('spacy')} needs {needed}")
    from spacy.training import Example

    fix_random_seed(0)
    nlp = spacy.util.load_model_from_config(thinc.Config().from_str(CONFIG), auto_fill=True)
    good, bad = ("good", "lovely", "great", "fine"), ("bad", "awful", "poor", "dull")
    things = ("film", "book", "meal", "walk", "song")
    sentences = [(f"a {word} {thing}", word in good) for word in good + bad for thing in things]
    examples = [
        Example.from_dict(nlp.make_doc(text), {"cats": {"GOOD": float(y), "BAD": float(not y)}})
        for text, y in sentences
    ]
    optimizer = nlp.initialize(lambda: examples)
    for _ in range(15):
        nlp.update(examples, sgd=optimizer, drop=0.2)
    names = [layer.name for layer in nlp.get_pipe("textcat").model.walk()]
    assert "relu_dropout" in names
    assert sum((nlp(text).cats["GOOD"] > 0.5) == y for text, y in sentences) >= 36
