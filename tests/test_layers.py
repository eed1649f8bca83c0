"""The layers make the calls, keep the mask, and have a stream that advances."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import fastdrop as fd
from fastdrop import reference
from fastdrop.layers import AlphaDropout, DropConnect, Dropout, DropoutAdd, GaussianDropout, ReLUDropout
from support import assert_identical, sample

FORMS = [
    (Dropout, "dropout", {"mode": "inverted"}),
    (Dropout, "dropout", {"mode": "vanilla", "broadcast_dims": (1,)}),
    (ReLUDropout, "relu_dropout", {"mode": "inverted", "broadcast_dims": 0}),
    (ReLUDropout, "relu_dropout", {"mode": "vanilla"}),
    (DropoutAdd, "dropout_add", {"mode": "vanilla"}),
    (AlphaDropout, "alpha_dropout", {"broadcast_dims": 1}),
    (GaussianDropout, "gaussian_dropout", {}),
]
layers = pytest.mark.parametrize("layer_type", [Dropout, ReLUDropout])


@pytest.mark.parametrize(("layer_type", "call", "settings"), FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_is_the_reference_s_calls(layer_type, call, settings, dtype):
    layer, stream = layer_type(keep_prob=0.7, rng=5, **settings), fd.Stream(5)
    backward = getattr(reference, f"{call}_backward")
    residual = (np.ones((27, 37), dtype),) if layer_type is DropoutAdd else ()
    for step in range(3):
        x, dy = (sample(999, dtype, seed=seed + step).reshape(27, 37) for seed in (0, 10))
        y, saved = getattr(reference, call)(x, *residual, keep_prob=0.7, rng=stream, **settings)
        assert_identical(layer(x, *residual), y)
        assert (layer.noise if layer_type is GaussianDropout else layer.mask) == saved
        assert_identical(layer.backward(dy), backward(dy, saved))
        assert layer.rng.offset == stream.offset
    predict = getattr(reference, f"{call}_predict", None)
    expected = predict(x, *residual, keep_prob=0.7, mode=settings["mode"]) if predict else x
    assert_identical(layer.eval()(x, *residual), expected)
    assert layer.rng.offset == stream.offset, "a prediction draws nothing"


@layers
def test_out_is_where_the_result_goes(layer_type):
    x = sample(100)
    expected, expected_dx = layer_type(keep_prob=0.5, rng=1)(x), sample(100, seed=1)
    layer, out, dx = layer_type(keep_prob=0.5, rng=1), x.copy(), expected_dx.copy()
    assert layer(out, out=out) is out
    assert_identical(out, expected)
    expected_dx = layer.backward(expected_dx)
    assert layer.backward(dx, out=dx) is dx
    assert_identical(dx, expected_dx)


@pytest.mark.parametrize("layer_type", [Dropout, ReLUDropout, GaussianDropout])
def test_backward_needs_a_call_in_training(layer_type):
    layer, x = layer_type(keep_prob=0.5, rng=1), sample(10)
    with pytest.raises(RuntimeError, match=f"call the {layer_type.__name__} in training first"):
        layer.backward(x)
    layer(x)
    layer.eval()(x)
    with pytest.raises(RuntimeError, match=f"call the {layer_type.__name__} in training first"):
        layer.backward(x)


@layers
def test_train_and_eval_set_training_and_return_the_layer(layer_type):
    layer = layer_type(keep_prob=0.5)
    assert layer.training
    assert layer.eval() is layer
    assert not layer.training
    assert layer.train() is layer
    assert layer.training


@layers
def test_a_bad_setting_is_refused_and_the_old_one_stays(layer_type):
    layer = layer_type(keep_prob=0.5, rng=3)
    with pytest.raises(ValueError, match=r"keep_prob must be in \[0, 1\], got 1.5"):
        layer.keep_prob = 1.5
    with pytest.raises(ValueError, match="mode must be 'inverted' or 'vanilla', got 'upscale'"):
        layer.mode = "upscale"
    with pytest.raises(TypeError, match="rng must be"):
        layer.rng = "seed"
    assert (layer.keep_prob, layer.mode, layer.rng.seed) == (0.5, "inverted", 3)
    with pytest.raises(ValueError, match="keep_prob"):
        layer_type(keep_prob=float("nan"))


@layers
def test_a_call_that_raises_changes_neither_the_stream_nor_the_mask(layer_type):
    layer, x = layer_type(keep_prob=0.5, rng=1), sample(10)
    layer(x)
    mask = layer.mask
    with pytest.raises(TypeError, match="x must have dtype"):
        layer(np.arange(10))
    assert layer.mask is mask
    assert layer.rng.offset == 10


def test_backward_uses_what_the_forward_call_was_made_with():
    layer = Dropout(keep_prob=0.5, rng=1)
    kept = layer(np.ones(100)) != 0
    layer.keep_prob = 0.1
    assert_identical(layer.backward(np.ones(100)), np.where(kept, 2.0, 0.0))


def test_layers_share_a_stream_without_sharing_positions():
    stream = fd.Stream(9)
    first, second = Dropout(keep_prob=0.5, rng=stream), Dropout(keep_prob=0.5, rng=stream)
    assert first.rng is second.rng is stream
    together = np.concatenate([first(np.ones(100)), second(np.ones(100))])
    assert_identical(together, Dropout(keep_prob=0.5, rng=9)(np.ones(200)))


def test_repr_shows_what_is_dropped():
    """The text shows the rate, so a rate that was passed as keep_prob is noticed."""
    assert repr(ReLUDropout(keep_prob=0.1, mode="vanilla", rng=3)) == (
        "ReLUDropout(keep_prob=0.1, mode='vanilla', rng=Stream(seed=3, offset=0), training, 90 % dropped)"
    )
    assert repr(Dropout(keep_prob=1.0).eval()).endswith("evaluation, 0 % dropped)")


# --- Gaussian dropout -------------------------------------------------------------------------


def test_gaussian_dropout_s_settings():
    layer = GaussianDropout(keep_prob=0.5, rng=3)
    assert repr(layer) == "GaussianDropout(keep_prob=0.5, rng=Stream(seed=3, offset=0), training)"
    with pytest.raises(ValueError, match=r"keep_prob must be in \[2\*\*-126, 1\]"):
        layer.keep_prob = 0
    assert layer.keep_prob == 0.5
    with pytest.raises(TypeError, match="mode"):
        GaussianDropout(keep_prob=0.5, mode="vanilla")


# --- DropConnect ------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["inverted", "vanilla"])
@pytest.mark.parametrize("shape", [(5, 30), (2, 4, 30), (30,)])
def test_dropconnect_is_a_product_with_dropped_weights(mode, shape):
    generator = np.random.default_rng(0)
    weights, bias, x = generator.normal(size=(30, 7)), generator.normal(size=7), generator.normal(size=shape)
    dy = generator.normal(size=(*shape[:-1], 7))
    layer, stream = DropConnect(weights, keep_prob=0.6, bias=bias, mode=mode, rng=1), fd.Stream(1)
    for _ in range(2):
        dropped, mask = reference.dropout(weights, keep_prob=0.6, mode=mode, rng=stream)
        assert_identical(layer(x), x @ dropped + bias)
        assert_identical(layer.mask, mask)
        assert_identical(layer.backward(dy), dy @ dropped.T)
        gradient = x.reshape(-1, 30).T @ dy.reshape(-1, 7)
        assert_identical(layer.weights_gradient, reference.dropout_backward(gradient, mask))
        assert_identical(layer.bias_gradient, dy.reshape(-1, 7).sum(axis=0))
        assert layer.rng.offset == stream.offset
    expected = x @ reference.dropout_predict(weights, keep_prob=0.6, mode=mode) + bias
    assert_identical(layer.eval()(x), expected)
    with pytest.raises(RuntimeError, match=r"call the DropConnect in training first \(train\(\)"):
        layer.backward(dy)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", ml_dtypes.bfloat16])
def test_dropconnect_keeps_the_dtype_of_its_input_and_weights(dtype):
    weights, x, dy = np.ones((4, 2), dtype), np.ones((3, 4), dtype), np.ones((3, 2), dtype)
    for bias in (None, np.ones(2, dtype)):
        layer = DropConnect(weights, keep_prob=0.5, bias=bias, rng=1)
        out = np.empty((3, 2), dtype)
        assert layer(x, out=out) is out
        results = [layer(x), layer.backward(dy), layer.weights_gradient, layer.eval()(x)]
        assert {result.dtype for result in results} == {weights.dtype}


def test_dropconnect_s_gradients_by_finite_differences():
    generator = np.random.default_rng(1)
    weights, x, loss_weights = (generator.normal(size=shape) for shape in ((6, 3), (4, 6), (4, 3)))
    layer = DropConnect(weights, keep_prob=0.5, rng=1)

    def loss():
        layer.rng.offset = 0
        return np.sum(layer(x) * loss_weights)

    loss()
    dx = layer.backward(loss_weights)
    for parameter, gradient in ((weights, layer.weights_gradient), (x, dx)):
        for place in np.ndindex(parameter.shape):
            value, step = parameter[place], 2.0**-10
            parameter[place] = value + step
            above = loss()
            parameter[place] = value - step
            below = loss()
            parameter[place] = value
            assert (above - below) / (2 * step) == pytest.approx(gradient[place], abs=1e-9)


def test_dropconnect_uses_the_weights_it_was_given():
    weights = np.ones((2, 2), np.float32)
    layer = DropConnect(weights, keep_prob=1.0)
    weights *= 3
    assert layer(np.ones((1, 2), np.float32)).tolist() == [[6, 6]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DropConnect(np.ones(3), keep_prob=0.5), ValueError, r"weights must have shape.*got \(3,\)"),
        (lambda: DropConnect(np.ones((3, 2), int), keep_prob=0.5), TypeError, "weights must have dtype .* got int64"),
        (lambda: DropConnect(np.ones((3, 2)), keep_prob=2), ValueError, r"keep_prob must be in \[0, 1\], got 2"),
        (lambda: DropConnect(np.ones((3, 2)), keep_prob=0.5)(np.ones((4, 2))), ValueError, "x must have shape"),
    ],
)
def test_dropconnect_s_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_dropconnect_wants_a_gradient_of_its_output():
    layer = DropConnect(np.ones((3, 2)), keep_prob=0.5)
    layer(np.ones((4, 3)))
    with pytest.raises(ValueError, match=r"dy must have shape \(4, 2\), got \(4, 3\)"):
        layer.backward(np.ones((4, 3)))


# --- settings that mean nothing do not exist --------------------------------------------------

WEIGHTS = np.ones((3, 2))
ALL_LAYERS = {
    Dropout: (lambda **settings: Dropout(keep_prob=0.5, **settings), {"mode", "broadcast_dims"}),
    ReLUDropout: (lambda **settings: ReLUDropout(keep_prob=0.5, **settings), {"mode", "broadcast_dims"}),
    DropoutAdd: (lambda **settings: DropoutAdd(keep_prob=0.5, **settings), {"mode", "broadcast_dims"}),
    AlphaDropout: (lambda **settings: AlphaDropout(keep_prob=0.5, **settings), {"broadcast_dims"}),
    GaussianDropout: (lambda **settings: GaussianDropout(keep_prob=0.5, **settings), set()),
    DropConnect: (lambda **settings: DropConnect(WEIGHTS, keep_prob=0.5, **settings), {"mode", "bias"}),
}
every_layer = pytest.mark.parametrize("layer_type", ALL_LAYERS)
SETTINGS = {"mode": "vanilla", "broadcast_dims": 1, "bias": np.ones(2), "rate": 0.5, "p": 0.5, "scale": 2}


@every_layer
@pytest.mark.parametrize("name", SETTINGS)
def test_a_layer_has_the_settings_that_mean_something(layer_type, name):
    make, settings = ALL_LAYERS[layer_type]
    layer = make(rng=1)
    if name in settings:
        assert np.array_equal(getattr(make(**{name: SETTINGS[name]}), name), SETTINGS[name])
        setattr(layer, name, SETTINGS[name])
        return
    with pytest.raises(TypeError, match=name):
        make(**{name: SETTINGS[name]})
    with pytest.raises(AttributeError):
        setattr(layer, name, SETTINGS[name])
    assert not hasattr(layer, name)


@every_layer
@pytest.mark.parametrize("protocol", [None, *range(6)])
def test_every_layer_is_copied_with_its_settings(layer_type, protocol):
    make, settings = ALL_LAYERS[layer_type]
    layer = make(rng=3, **{name: SETTINGS[name] for name in settings})
    x = (np.ones((4, 3)), np.ones((4, 3)))[: 2 if layer_type is DropoutAdd else 1]
    dy = layer(*x)
    other = copy.deepcopy(layer) if protocol is None else pickle.loads(pickle.dumps(layer, protocol))
    assert repr(other) == repr(layer)
    assert_identical(other.backward(dy), layer.backward(dy))
    assert_identical(other(*x), layer(*x))
    assert_identical(other.eval()(*x), layer.eval()(*x))


def test_the_state_of_a_layer_is_checked():
    layer = Dropout(keep_prob=0.5, rng=1)
    for bad in ({"_keep_prob": 2.0}, {"_mode": "half"}, {"_rng": "x"}, {"_broadcast_dims": 0.5}):
        with pytest.raises((TypeError, ValueError)):
            layer.__setstate__({**layer.__getstate__(), **bad})
    with pytest.raises(AttributeError):
        AlphaDropout(keep_prob=0.5).__setstate__({"_mode": "vanilla"})
    layer.__setstate__({"_mask": 3})
    with pytest.raises(TypeError, match="mask must be a Mask"):
        layer.backward(np.ones(3))


@pytest.mark.parametrize("layer_type", [Dropout, ReLUDropout, DropoutAdd, AlphaDropout])
def test_axes_that_no_array_has_are_refused(layer_type):
    layer = layer_type(keep_prob=0.5, broadcast_dims=[1, 2])
    axes = layer.broadcast_dims
    for bad in (1.5, "1", (0, None), 64, (-65,)):
        with pytest.raises((TypeError, ValueError), match="broadcast_dims"):
            layer.broadcast_dims = bad
        with pytest.raises((TypeError, ValueError), match="broadcast_dims"):
            layer_type(keep_prob=0.5, broadcast_dims=bad)
    assert layer.broadcast_dims == axes == (1, 2)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"x": np.ones((4, 5))}, ValueError),
        ({"x": np.full((4, 3), "a")}, TypeError),
        ({"out": np.ones((3, 2))}, ValueError),
        ({"out": np.ones((4, 2), int)}, TypeError),
        ({"out": [0]}, TypeError),
        ({"out": np.broadcast_to(1.0, (4, 2))}, ValueError),
    ],
)
def test_a_call_of_dropconnect_that_raises_changes_nothing(values, error):
    layer = DropConnect(WEIGHTS, keep_prob=0.5, rng=1, bias=np.ones(2))
    layer(np.ones((4, 3)))
    mask, before = layer.mask, layer.backward(np.ones((4, 2)))
    with pytest.raises(error):
        layer(**{"x": np.full((4, 3), 2.0), **values})
    layer.bias = np.ones(5)
    with pytest.raises(ValueError):
        layer(np.full((4, 3), 2.0))
    assert layer.mask is mask
    assert layer.rng.offset == 6
    assert_identical(layer.backward(np.ones((4, 2))), before)


@pytest.mark.parametrize("shift", [0, 2])
def test_a_result_over_the_input_or_the_bias_of_dropconnect(shift):
    """The gradient needs the input and the result needs the bias before they are overwritten."""
    weights, memory = sample(16, "float64", seed=1).reshape(4, 4), np.arange(40.0).reshape(10, 4)
    weights = np.where(np.isfinite(weights), weights, 1.0)
    layers = [DropConnect(weights, keep_prob=0.5, rng=1, bias=bias) for bias in (np.ones(4), memory[9])]
    apart = layers[0]
    apart(memory[:6].copy())
    apart.backward(np.ones((6, 4)))
    over = DropConnect(weights, keep_prob=0.5, rng=1)
    over(memory[:6], out=memory[shift : 6 + shift])
    over.backward(np.ones((6, 4)))
    assert_identical(over.weights_gradient, apart.weights_gradient)
    x, bias = np.ones((1, 4)), memory[9].copy()
    expected = DropConnect(weights, keep_prob=0.5, rng=1, bias=bias)(x)
    assert_identical(layers[1](x, out=memory[9:10]), expected)


@pytest.mark.parametrize("bias", [np.ones((0, 4)), np.ones(3), np.ma.ones(4)])
def test_a_bias_of_dropconnect_that_does_not_fit_changes_nothing(bias):
    layer, out = DropConnect(np.ones((4, 4)), keep_prob=0.5, rng=1, bias=bias), np.zeros((3, 4))
    with pytest.raises((TypeError, ValueError), match="bias must"):
        layer(np.ones((3, 4)), out=out)
    assert layer.rng.offset == 0
    assert not out.any()


@pytest.mark.parametrize("shape", [(4, 0), (0, 4)])
def test_dropconnect_without_inputs_or_outputs(shape):
    layer = DropConnect(np.ones(shape), keep_prob=0.5, rng=1)
    y = layer(np.ones((3, shape[0])))
    assert layer.backward(np.ones(y.shape)).shape == (3, shape[0])


@pytest.mark.parametrize(("dtype", "rows"), [("float16", 5000), ("bfloat16", 300), ("float32", 1000)])
def test_the_gradient_of_a_bias_of_dropconnect_does_not_stall(dtype, rows):
    """A sum in 16 bits stops growing at 2,048, or at 256, because adding 1 no longer changes it."""
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    layer = DropConnect(np.ones((4, 3), dtype), keep_prob=1.0, rng=1, bias=np.ones(3, dtype))
    layer(np.ones((rows, 4), dtype))
    layer.backward(np.ones((rows, 3), dtype))
    assert np.array_equal(layer.bias_gradient, np.full(3, rows).astype(dtype))


@pytest.mark.parametrize(
    ("out", "error", "message"),
    [
        (np.empty((3, 2)).tolist(), TypeError, "out must be a numpy.ndarray, got list"),
        (np.empty((2, 3)), ValueError, r"out must have shape \(3, 2\), got \(2, 3\)"),
        (np.broadcast_to(1.0, (3, 2)), ValueError, "out must be writable, got a read-only array"),
    ],
)
@pytest.mark.parametrize("training", [True, False])
def test_dropconnect_says_what_is_wrong_with_out(training, out, error, message):
    layer = DropConnect(np.ones((4, 2)), keep_prob=0.5, rng=1)
    layer.training = training
    with pytest.raises(error, match=message):
        layer(np.ones((3, 4)), out=out)


@pytest.mark.parametrize("call", ["forward", "backward"])
def test_dropconnect_writes_only_where_each_element_has_a_place(call):
    layer = DropConnect(np.ones((2, 2)), keep_prob=0.5, rng=1)
    x = np.ones((3, 2))
    layer(x)
    offset = layer.rng.offset
    write = layer if call == "forward" else layer.backward
    shared = np.lib.stride_tricks.as_strided(np.zeros(9), (3, 2), (8, 8))
    with pytest.raises(ValueError, match="out must have a place of its own for every element"):
        write(x, out=shared)
    with pytest.raises(TypeError, match="out"):
        write(x, out=np.ma.zeros((3, 2)))
    assert layer.rng.offset == offset
    out = np.zeros((3, 2))
    assert write(x, out=out) is out


def test_dropconnect_says_which_parameter_does_not_fit():
    layer, x = DropConnect(np.ones((2, 3)), keep_prob=0.5, rng=1), np.ones((4, 2))
    for name, value, error, text in (
        ("weights", np.ones(3), ValueError, r"weights must have shape \(inputs, outputs\), got \(3,\)"),
        ("weights", np.ones((2, 3), int), TypeError, "weights must have dtype"),
        ("bias", np.ones(5), ValueError, r"bias must have shape \(3,\), got \(5,\)"),
        ("bias", np.ones(3, int), TypeError, "bias must have dtype"),
    ):
        wrong = copy.copy(layer)
        setattr(wrong, name, value)
        with pytest.raises(error, match=text):
            wrong(x)
    with pytest.raises(TypeError, match="x must have dtype"):
        layer(x.astype(int))


@pytest.mark.parametrize("layer", [AlphaDropout, GaussianDropout])
def test_a_probability_that_a_call_would_refuse_is_refused_at_once(layer):
    with pytest.raises(ValueError, match="keep_prob must be"):
        layer(keep_prob=1e-80, rng=1)
    kept = layer(keep_prob=0.5, rng=1)
    with pytest.raises(ValueError, match="keep_prob must be"):
        kept.keep_prob = 1e-80
    assert kept.keep_prob == 0.5
