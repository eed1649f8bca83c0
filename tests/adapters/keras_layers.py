"""The layers of fastdrop.keras on the backend that KERAS_BACKEND names. keras_own_tests.py runs this file.

What the layers compute is compared with the NumPy calls, bit for bit, in eager and in compiled code.
"""

from __future__ import annotations

import keras
import numpy as np
import pytest
from keras import ops

import fastdrop as fd
import fastdrop.keras as fk
from fastdrop.keras.calls import WORD
from support import assert_identical

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras itself

BACKEND = keras.backend.backend()
LAYERS = {name: getattr(fk, name) for name in fk.__all__}
KINDS = ["Dropout", "ReLUDropout", "SpatialDropout1D", "GaussianDropout", "AlphaDropout"]  # one for each way of a call
FORMS = {"ReLUDropout": "relu_dropout", "GaussianDropout": "gaussian_dropout", "AlphaDropout": "alpha_dropout"}


def numbers(shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def dtype_of(tensor):
    return keras.backend.standardize_dtype(tensor.dtype)


def array(tensor):
    """Return a tensor as NumPy, bfloat16 too, with its bits."""
    if dtype_of(tensor) == "bfloat16":
        import ml_dtypes

        return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32"))).astype(ml_dtypes.bfloat16)
    return np.asarray(ops.convert_to_numpy(tensor))


def without_signed_zeros(gradient):
    """Return a gradient with +0 for -0."""
    found = array(gradient)
    return found + found.dtype.type(0)


def state(layer):
    return [int(word) for word in ops.convert_to_numpy(layer.seed_generator.state.value)]


def expected(form, x, dy, keep_prob, shared, rng):
    """Return the NumPy call's result and gradient."""
    options = {} if form == "gaussian_dropout" else {"broadcast_dims": shared}
    y, saved = getattr(fd, form)(x, keep_prob=keep_prob, rng=rng, **options)
    return y, getattr(fd, f"{form}_backward")(dy, saved)


def with_gradient(layer, x, dy):
    """Return a layer's result in training, and its gradient."""
    x, dy = (ops.convert_to_tensor(a, dtype=layer.compute_dtype) for a in (x, dy))
    if BACKEND == "torch":
        x.requires_grad_()
        y = layer(x, training=True)
        y.backward(dy)
        return y, x.grad
    if BACKEND == "jax":
        import jax

        y, back = jax.vjp(lambda x: layer(x, training=True), x)
        return y, back(dy)[0]
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    return y, tape.gradient(y, x, dy)


def compiled(layer):
    """Return the training call of a layer as a compiled function of its input and the layer's seed."""
    if BACKEND == "jax":
        import jax

        return jax.jit(lambda x, seed: layer.stateless_call([], [seed], x, training=True)[0])
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda x, seed: layer.stateless_call([], [seed], x, training=True)[0])
    return lambda x, seed: layer.stateless_call([], [seed], x, training=True)[0]


def case_drawn(case):
    """Return a layer drawn at random, and what it is: form, dtype, shape, shared axes."""
    rng = np.random.default_rng(case)
    name = list(LAYERS)[case % len(LAYERS)]
    axes = int(name[-2]) + 2 if name.startswith("Spatial") else int(rng.integers(1, 5))
    shape = tuple(map(int, rng.integers(1, 9, axes)))
    dtype = str(rng.choice(["float32", "float64", "float16", "bfloat16"]))
    rate = float(rng.choice([rng.random(), 0.5, 1.0])) if name != "GaussianDropout" else float(rng.random() * 0.9)
    options = {"seed": int(rng.integers(2**31)), "dtype": dtype}
    shared = ()
    if name.startswith("Spatial"):
        first = name != "SpatialDropout1D" and rng.random() < 0.5
        options |= {"data_format": "channels_first" if first else "channels_last"} if name[-2] != "1" else {}
        shared = tuple(range(2, axes)) if first else tuple(range(1, axes - 1))
    elif name != "GaussianDropout" and rng.random() < 0.6:
        alone = rng.random(axes) < 0.5
        lengths = [None if rng.random() < 0.5 else length for length in shape]
        options["noise_shape"] = tuple(1 if one else length for one, length in zip(alone, lengths))
        shared = tuple(int(axis) for axis in np.flatnonzero(alone))
    shared = tuple(axis for axis in shared if shape[axis] != 1)
    return LAYERS[name](rate, **options), FORMS.get(name, "dropout"), dtype, shape, shared


@pytest.mark.parametrize("case", range(14))
def test_whole_calls_drawn_at_random(case):
    layer, form, dtype, shape, shared = case_drawn(case)
    x, dy = (array(ops.convert_to_tensor(numbers(shape, seed=seed), dtype)) for seed in (0, 1))
    before = state(layer)
    y, dx = with_gradient(layer, x, dy)
    assert state(layer) == [before[0], before[1] + 1]
    wanted, gradient = expected(form, x, dy, 1.0 - layer.rate, shared, fd.Stream(before[0] | before[1] << WORD))
    assert_identical(array(y), wanted, "y")
    # PyTorch's own product may carry the gradient of a small tensor, and makes -0 of a negative one that is dropped.
    assert_identical(without_signed_zeros(dx), without_signed_zeros(gradient), "dx")
    assert_identical(array(layer(x)), np.maximum(x, 0) if form == "relu_dropout" else x, "prediction")


@pytest.mark.parametrize("name", KINDS)
def test_compiled_code_gives_the_same_as_eager_code(name):
    shape = (4, *(5,) * int(name[-2]), 6) if name.startswith("Spatial") else (4, 6)
    layer = LAYERS[name](0.4, seed=3)
    x = ops.convert_to_tensor(numbers(shape))
    seed = layer.seed_generator.state.value * 1
    eager = array(layer(x, training=True))
    function = compiled(layer)
    assert_identical(array(function(x, seed)), eager)
    assert not np.array_equal(array(layer(x, training=True)), eager), "each call draws anew"


@pytest.mark.parametrize("name", KINDS)
def test_a_gradient_has_a_gradient(name):
    """The gradient is linear in dy, so its derivative for dy along v is the gradient for v."""
    shape = (3, *(4,) * int(name[-2]), 5) if name.startswith("Spatial") else (3, 5)
    x, dy, v = (ops.convert_to_tensor(numbers(shape, seed=seed)) for seed in range(3))
    first, second = LAYERS[name](0.4, seed=3), LAYERS[name](0.4, seed=3)
    _, wanted = with_gradient(first, array(x), array(v))
    if BACKEND == "torch":
        import torch

        x.requires_grad_()
        dy.requires_grad_()
        (dx,) = torch.autograd.grad(second(x, training=True), x, dy, create_graph=True)
        (along,) = torch.autograd.grad(dx, dy, v)
    elif BACKEND == "jax":
        import jax

        _, back = jax.vjp(lambda x: second(x, training=True), x)
        (along,) = jax.vjp(lambda dy: back(dy)[0], dy)[1](v)
    else:
        import tensorflow as tf

        with tf.GradientTape() as outer:
            outer.watch(dy)
            with tf.GradientTape() as inner:
                inner.watch(x)
                y = second(x, training=True)
            dx = inner.gradient(y, x, dy)
        along = outer.gradient(dx, dy, v)
    assert_identical(without_signed_zeros(along), without_signed_zeros(wanted))


# --- Keras's manners --------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYERS)
def test_a_configuration_makes_the_same_layer(name):
    layer = LAYERS[name](0.3, seed=7, name="mine")
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(restored) is LAYERS[name]
    assert isinstance(layer, getattr(keras.layers, "Dropout" if name == "ReLUDropout" else name))


@pytest.mark.parametrize("training", [False, None])
def test_prediction_is_the_default(training):
    x = numbers((4, 6))
    assert_identical(array(fk.Dropout(0.5, seed=1)(x, training=training)), x)
    assert_identical(array(fk.ReLUDropout(0.5, seed=1)(x, training=training)), np.maximum(x, 0))


@pytest.mark.parametrize("seed", [0, 2**31 - 1])  # Keras takes no larger one on PyTorch
def test_a_seed_gives_the_same_decisions_on_each_backend(seed):
    """The numbers are the stream's, whose seed is the layer's, and the count of its calls times 2**64."""
    x = np.ones((40, 50), "float32")
    layer = fk.Dropout(0.5, seed=seed)
    for count in range(3):
        wanted, _ = fd.dropout(x, keep_prob=0.5, rng=fd.Stream(seed | count << WORD))
        assert_identical(array(layer(x, training=True)), wanted, str(count))


def test_a_mask_of_time_steps_passes_on():
    masks = []
    for kind in (fk.Dropout, keras.layers.Dropout):
        y = keras.layers.Masking()(np.array([[[1.0], [0.0]]], "float32"))
        y = kind(0.5, seed=1)(y, training=True)
        masks.append(array(y._keras_mask).tolist())
    assert masks == [[[True, False]]] * 2


class OfOnesOwn(keras.Model):
    """A model as users write it in a class."""

    def __init__(self):
        super().__init__()
        self.dense, self.drop = keras.layers.Dense(4), fk.Dropout(0.5, seed=3)

    def call(self, x, training=False):
        return self.drop(self.dense(x), training=training)


def test_a_model_of_ones_own_draws_anew_in_each_step():
    model = OfOnesOwn()
    model.compile("sgd", "mse")
    model.fit(numbers((6, 8)), numbers((6, 4)), batch_size=3, epochs=2, verbose=0)
    assert state(model.drop) == [3, 4]


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has these transforms")
def test_each_step_of_a_scan_and_each_example_of_vmap_draws_from_its_seed():
    import jax

    for name in ("Dropout", "AlphaDropout"):
        layer, xs = LAYERS[name](0.5, seed=3), jax.numpy.ones((3, 4, 50), "float32")
        layer.build((4, 50))
        seed = layer.seed_generator.state.value

        def step(seed, x, layer=layer):
            y, [seed] = layer.stateless_call([], [seed], x, training=True)
            return seed, y

        last, ys = jax.jit(lambda seed, step=step, xs=xs: jax.lax.scan(step, seed, xs))(seed)
        assert last.tolist() == [3, 3]
        seeds = jax.numpy.array([[3, 0], [3, 1], [3, 2]], "uint32")
        assert_identical(array(jax.vmap(step)(seeds, xs)[1]), array(ys))
        assert_identical(np.stack([array(layer(x, training=True)) for x in xs]), array(ys))


@pytest.mark.skipif(BACKEND != "jax", reason="only JAX has these transforms")
@pytest.mark.parametrize("name", ["ReLUDropout", "GaussianDropout", "AlphaDropout"])
def test_shards_have_the_gradients_of_their_calls(name):
    """Whatever differs between two devices: the input, the seed or both."""
    import jax
    from jax.sharding import PartitionSpec

    if not hasattr(jax, "shard_map"):
        pytest.skip("JAX before 0.6 has shard_map elsewhere, and does not know what varies")
    if jax.device_count() < 2:
        pytest.skip("XLA_FLAGS=--xla_force_host_platform_device_count=2 gives the devices, as test_keras.py does")
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:2]), ("d",))
    layer = LAYERS[name](0.5, seed=3)
    layer.build((4, 50))
    x, seeds = jax.numpy.asarray(numbers((4, 50))), jax.numpy.array([[3, 0], [3, 1]], "uint32")
    differs, same = PartitionSpec("d"), PartitionSpec()

    def called(x, seed):
        return layer.stateless_call([], [seed[0]], x, training=True)[0]

    for of_x, of_seed in ((differs, differs), (same, differs), (differs, same)):
        function = jax.shard_map(called, mesh=mesh, in_specs=(of_x, of_seed), out_specs=differs)

        def one_by_one(x, of_x=of_x, of_seed=of_seed):
            xs = (x[:2], x[2:]) if of_x == differs else (x, x)
            words = (seeds[:1], seeds[1:]) if of_seed == differs else (seeds, seeds)
            return jax.numpy.concatenate([called(*given) for given in zip(xs, words)])

        wanted, gradient = jax.vjp(one_by_one, x)
        y, pull = jax.vjp(lambda x, function=function: function(x, seeds), x)
        assert_identical(array(y), array(wanted))
        assert_identical(array(pull(y)[0]), array(gradient(y)[0]))


@pytest.mark.skipif(not hasattr(keras, "RematScope"), reason="Keras before 3.9 recomputes nothing")
def test_recomputation_never_has_the_gradient_of_other_decisions():
    """A layer is not recomputed alone. On PyTorch a function around it is refused, unless it holds the seed."""
    ones = np.ones((6, 8), "float32")
    with keras.RematScope(mode="full"):
        layer = fk.Dropout(0.5, seed=3)
    y, dx = with_gradient(layer, ones, ones)
    assert_identical(without_signed_zeros(dx), array(y.detach() if BACKEND == "torch" else y))
    assert state(layer) == [3, 1]
    if BACKEND == "torch":
        import torch

        x = torch.ones((6, 8), requires_grad=True)
        again = keras.remat(lambda x: ops.sin(layer(x, training=True)))(x)
        with pytest.raises(RuntimeError, match="a dropout layer was called in a backward pass"):
            again.sum().backward()
        seed = layer.seed_generator.state.value * 1
        again = keras.remat(lambda x: layer.stateless_call([], [seed], x, training=True)[0] * 3)(x)
        again.sum().backward()
        assert_identical(array(x.grad), array(again.detach()))


@pytest.mark.parametrize("rate", [np.float32(0.25), np.array(0.5), 1, True])
def test_a_rate_may_be_any_number(rate):
    x = np.ones((4, 50), "float32")
    for name in ("Dropout", "AlphaDropout"):
        y = array(LAYERS[name](rate, seed=1)(x, training=True))
        wanted, _ = getattr(fd, FORMS.get(name, "dropout"))(x, keep_prob=1.0 - float(rate), rng=1)
        assert_identical(y, wanted)


def network():
    return keras.Sequential([
        keras.Input((8,)), keras.layers.Dense(16), fk.ReLUDropout(0.3, seed=1),
        keras.layers.Dense(16, activation="selu"), fk.AlphaDropout(0.1, seed=2), fk.GaussianDropout(0.1, seed=3),
        keras.layers.Dense(2), fk.Dropout(0.1, noise_shape=(None, 1), seed=4),
    ])  # fmt: skip


def test_a_model_learns_and_a_saved_one_goes_on_as_the_first_would(tmp_path):
    """A file of Keras has no states of seeds, so they are carried over here. Both then draw the same."""
    keras.utils.set_random_seed(0)
    x, wanted = numbers((64, 8)), numbers((64, 2), seed=1)
    model = network()
    model.compile("sgd", "mse")
    model.fit(x, wanted, epochs=2, batch_size=16, shuffle=False, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_identical(again.predict(x, verbose=0), model.predict(x, verbose=0))
    for first, second in zip(model.layers, again.layers, strict=True):
        assert type(first) is type(second)
        if hasattr(first, "seed_generator"):
            assert state(second)[1] == 0
            second.seed_generator.state.assign(first.seed_generator.state.value * 1)
    weights = []
    for one in (model, again):
        one.compile("sgd", "mse")
        one.fit(x, wanted, epochs=1, batch_size=16, shuffle=False, verbose=0)
        weights.append([array(weight.value) for weight in one.weights])
    for first, second in zip(*weights, strict=True):
        assert_identical(second, first)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("name", ["Dropout", "ReLUDropout", "GaussianDropout", "AlphaDropout"])
def test_mixed_precision_and_specifications(name, policy):
    layer = LAYERS[name](0.4, seed=3, dtype=policy)
    half = policy.removeprefix("mixed_")
    spec = layer.compute_output_spec(keras.KerasTensor((None, 6), dtype="float32"), training=True)
    assert spec.shape == (None, 6)
    assert spec.dtype == half
    y = layer(numbers((4, 6)), training=True)
    assert dtype_of(y) == half
    assert y.shape == (4, 6)


def test_integers_go_to_keras_s_own_layer():
    x = np.ones((40, 50), "int32")
    ours, keras_s = (kind(0.5, seed=1)(x, training=False) for kind in (fk.Dropout, keras.layers.Dropout))
    assert np.array_equal(array(ours), array(keras_s))


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="`rate`"):
        fk.ReLUDropout(1.5)
    with pytest.raises(ValueError, match="rate must be below 1 for noise of finite variance, got 1"):
        fk.GaussianDropout(1.0)
    for layer in (fk.Dropout(0.5, noise_shape=(2, 3)), fk.AlphaDropout(0.5, noise_shape=(1, 1, 4))):
        with pytest.raises(ValueError, match="noise_shape must have None, 1 or the input's length"):
            layer(numbers((4, 6)), training=True)


def test_a_noise_shape_with_fewer_axes_is_for_the_last_axes():
    y = array(fk.Dropout(0.5, noise_shape=(50,), seed=1)(np.ones((4, 50), "float32"), training=True))
    assert (y == y[:1]).all()
    assert 0 < (y == 0).mean() < 1


def test_another_backend_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "numpy")
    with pytest.raises(ImportError, match="needs Keras with the backend torch, jax or tensorflow, got numpy"):
        fk.layers.backend_in_use()
