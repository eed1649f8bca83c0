"""The JAX adapter gives the bits of the calls, also inside JAX's transformations."""

from __future__ import annotations

import doctest
import os
import re
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is an optional dependency")

from jax import numpy as jnp  # noqa: E402
from jax.test_util import check_grads  # noqa: E402

import fastdrop as fd  # noqa: E402
import fastdrop.jax as fjax  # noqa: E402
from fastdrop import reference  # noqa: E402
from fastdrop.jax import functional, paths  # noqa: E402
from support import printed_by  # noqa: E402

DEVICES = Path(__file__).parent / "jax_devices.py"
WHOLE_CALLS = Path(__file__).parent / "jax_whole_calls.py"
FOUR_DEVICES = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
FORMS = ["dropout", "relu_dropout"]
DTYPES = ["float32", "float16", "bfloat16"]
KEEP_PROB = 0.7
EVERY_WAY = ["ffi", "callback"][: 2 if jax.__version_info__ >= (0, 6) else 1]  # buffer_callback is as old


@pytest.fixture(params=EVERY_WAY, autouse=True)
def path(request, monkeypatch):
    """The way from JAX to the kernels. It is compiled into a call, so no call goes another way than this."""
    if request.param == "ffi":
        assert paths.in_use() == "ffi"
    monkeypatch.setattr(paths, "chosen", request.param)
    return request.param


def values(*shape, dtype="float32"):
    """From NumPy, because JAX would compile a program for each shape and dtype."""
    return jnp.asarray(np.random.default_rng(5).standard_normal(shape).astype(jnp.dtype(dtype)))


def seed(key):
    return sum(int(word) << 32 * i for i, word in enumerate(jax.random.bits(key, (4,), "uint32")))


def expected(form, x, key, keep_prob=KEEP_PROB):
    """The result and the mask of the reference."""
    return getattr(reference, form)(np.asarray(x), keep_prob=keep_prob, rng=seed(key))


def call(form, keep_prob=KEEP_PROB):
    """A function of x and the key."""
    return lambda x, key: getattr(fjax, form)(x, keep_prob=keep_prob, key=key)


def same(array, other):
    """Whether the arrays have equal dtypes, shapes and bytes."""
    array, other = np.asarray(array), np.asarray(other)
    return (array.dtype, array.shape, array.tobytes()) == (other.dtype, other.shape, other.tobytes())


# --- the bits ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_are_those_of_the_reference(form, dtype):
    x, key = values(7, 33, dtype=dtype), jax.random.key(1)
    y, pull = jax.vjp(lambda x: call(form)(x, key), x)
    result, mask = expected(form, x, key)
    assert same(y, result)
    assert same(pull(x)[0], getattr(reference, f"{form}_backward")(np.asarray(x), mask))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("keep_prob", [0.0, 2.0**-32, 0.5, 1 - 2.0**-32, 1.0, 1, np.float32(0.25)])
def test_every_probability(form, keep_prob):
    x, key = values(1000), jax.random.key(1)
    y, pull = jax.vjp(lambda x: call(form, keep_prob)(x, key), x)
    result, mask = expected(form, x, key, keep_prob)
    assert same(y, result)
    assert same(pull(x)[0], getattr(reference, f"{form}_backward")(np.asarray(x), mask))


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,), (2, 3, 4, 5)])
def test_every_shape(shape):
    x, key = values(*shape), jax.random.key(1)
    y, pull = jax.vjp(lambda x: call("relu_dropout")(x, key), x)
    result, mask = expected("relu_dropout", x, key)
    assert same(y, result)
    assert same(pull(x)[0], reference.relu_dropout_backward(np.asarray(x), mask))


@pytest.mark.parametrize("shape", [(200_003,), (3, 70_001), (50, 4099), (3000, 33), (40_000, 1)])
def test_work_in_parts_on_the_threads_of_xla(shape):
    """Rows longer and shorter than a part, some of them with bits that end within a byte."""
    rows, size = (1, *shape)[-2:]
    x, keys = values(rows, size), jax.random.split(jax.random.key(1), rows)
    y, pull = jax.vjp(lambda x: jax.vmap(call("relu_dropout"))(x, keys), x)
    dx = pull(x)[0]
    for row in sorted({0, rows // 2, rows - 1}):
        result, mask = fd.relu_dropout(np.asarray(x[row]), keep_prob=KEEP_PROB, rng=seed(keys[row]))
        assert same(y[row], result)
        assert same(dx[row], fd.relu_dropout_backward(np.asarray(x[row]), mask))


def test_float64_under_x64():
    with jax.experimental.enable_x64() if not hasattr(jax, "enable_x64") else jax.enable_x64(True):
        x, key = jnp.arange(50.0) - 20, jax.random.key(1)
        assert x.dtype == "float64"
        assert same(call("relu_dropout")(x, key), expected("relu_dropout", x, key)[0])
        slope = jax.grad(lambda x: call("relu_dropout")(x, key).sum())(x)
        assert same(slope, np.asarray(slope != 0) / KEEP_PROB)


@pytest.mark.parametrize(
    ("implementation", "partitionable", "bits"),
    [
        ("threefry2x32", True, "b5cfeceebf8eb7b6aebf41bf"),
        ("threefry2x32", False, "d0edfb7dddf4bf9b77d367ff"),
        ("rbg", True, "8fe5def534f2f73ffaf9767f"),
        ("unsafe_rbg", True, "8fe5def534f2f73ffaf9767f"),
    ],
)
def test_the_masks_of_a_key_never_change(implementation, partitionable, bits):
    """They are those of the first version, which drew the words of the seed by jax.random.bits."""
    with jax.threefry_partitionable(partitionable), jax.default_prng_impl(implementation):
        for key in (jax.random.key(1), jax.random.PRNGKey(1)):
            for function in (call("dropout"), jax.jit(call("dropout"))):
                kept = np.asarray(function(jnp.ones(96), key)) != 0
                assert np.packbits(kept, bitorder="little").tobytes().hex() == bits


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_under_vmap_each_key_of_any_generator_draws_its_own_mask(implementation):
    """JAX's own random numbers of these generators come from the first key of a batch alone."""
    keys = jax.random.split(jax.random.key(1, impl=implementation), 3)
    x = values(3, 200)
    wanted = jnp.stack([call("dropout")(*row) for row in zip(x, keys)])
    for function in (jax.vmap(call("dropout")), jax.jit(jax.vmap(call("dropout")))):
        assert same(function(x, keys), wanted)


@pytest.mark.parametrize("partitionable", [True, False])
def test_a_seed_is_what_jax_draws_from_its_key(partitionable):
    with jax.threefry_partitionable(partitionable):
        for number in (0, 1, 2**31 - 1):
            key = jax.random.fold_in(jax.random.key(number), 7)
            assert same(call("dropout")(values(100), key), expected("dropout", values(100), key)[0])


def test_equal_keys_give_equal_masks_and_others_do_not():
    x = jnp.ones(500)
    first, second = (call("dropout")(x, jax.random.key(n)) for n in (0, 1))
    assert same(first, call("dropout")(x, jax.random.key(0)))
    assert not same(first, second)


def test_a_dropped_element_is_zero_whatever_it_was():
    x, key = jnp.full(64, jnp.nan), jax.random.key(1)
    y = np.asarray(call("dropout")(x, key))
    kept = fd.keep_mask(64, keep_prob=KEEP_PROB, rng=seed(key)).to_array()
    assert np.isnan(y[kept]).all()
    assert (y[~kept] == 0).all()


# --- transformations --------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_jit_and_grad_change_nothing(form):
    x, key, function = values(300), jax.random.key(1), call(form)
    assert same(jax.jit(function)(x, key), function(x, key))
    slope = jax.grad(lambda x: function(x, key).sum())
    assert same(jax.jit(slope)(x), slope(x))


def test_keep_prob_is_a_static_argument():
    x, key = values(300), jax.random.key(1)
    function = jax.jit(fjax.dropout, static_argnames="keep_prob")
    assert same(function(x, keep_prob=0.5, key=key), expected("dropout", x, key, 0.5)[0])


@pytest.mark.parametrize("form", FORMS)
def test_vmap_over_keys_and_examples(form):
    x, keys = values(4, 201), jax.random.split(jax.random.key(2), 4)
    one_by_one = np.stack([call(form)(row, key) for row, key in zip(x, keys)])
    assert same(jax.vmap(call(form))(x, keys), one_by_one)
    slope = jax.grad(lambda x, key: call(form)(x, key).sum())
    assert same(jax.vmap(slope)(x, keys), np.stack([slope(row, key) for row, key in zip(x, keys)]))
    second = jax.grad(lambda x, keys: (jax.vmap(call(form))(x, keys) ** 2).sum())
    assert same(second(x, keys), 2 * one_by_one * (jax.vmap(slope)(x, keys)))


def test_vmap_over_examples_alone_draws_one_mask_for_all():
    x, key = values(4, 201), jax.random.key(2)
    batch = jax.vmap(call("dropout"), in_axes=(0, None))(x, key)
    assert same(batch, np.stack([call("dropout")(row, key) for row in x]))


def test_vmap_over_keys_alone_draws_a_mask_for_each():
    x, keys = values(201), jax.random.split(jax.random.key(2), 4)
    batch = jax.vmap(call("dropout"), in_axes=(None, 0))(x, keys)
    assert same(batch, np.stack([call("dropout")(x, key) for key in keys]))


def test_vmap_of_vmap_along_other_axes():
    x, keys = values(5, 3, 2, 7), jax.random.split(jax.random.key(2), (2, 3))
    twice = jax.vmap(jax.vmap(call("dropout"), in_axes=(1, 0), out_axes=1), in_axes=(2, 0), out_axes=2)
    result = np.asarray(twice(x, keys))
    for i in range(2):
        for j in range(3):
            assert same(result[:, j, i], expected("dropout", x[:, j, i], keys[i, j])[0])


def test_a_batch_is_one_call():
    """And not a loop over its examples."""
    x, keys = values(4, 200), jax.random.split(jax.random.key(2), 4)
    text = str(jax.make_jaxpr(jax.vmap(call("dropout")))(x, keys))
    assert len(re.findall("= (?:ffi_call|buffer_callback)", text)) == 1
    assert "scan" not in text


def test_scan_and_checkpoint():
    x, keys = values(50), jax.random.split(jax.random.key(2), 3)

    def loss(x, wrap):
        step = wrap(lambda x, key: (call("relu_dropout")(x * 1.5, key), None))
        return (jax.lax.scan(step, x, keys)[0] ** 2).sum()

    def unrolled(x):
        for i in range(3):
            x = call("relu_dropout")(x * 1.5, keys[i])
        return (x**2).sum()

    slope = jax.jit(jax.grad(unrolled))(x)
    assert np.any(slope)
    for wrap in (jax.checkpoint, lambda step: step):
        assert np.array_equal(jax.jit(jax.grad(loss), static_argnums=1)(x, wrap), slope)


@pytest.mark.parametrize("form", FORMS)
def test_jax_finds_the_gradients_right(form):
    x, key = values(40), jax.random.key(1)
    check_grads(lambda x: call(form)(x, key), (x,), order=2, modes=["rev"])


def test_gradients_of_gradients():
    x, key = values(100), jax.random.key(1)
    slope = jax.grad(lambda x: (call("dropout")(x, key) ** 2).sum())
    kept = call("dropout")(jnp.ones_like(x), key)
    assert same(jax.grad(lambda x: slope(x).sum())(x), 2 * kept**2)


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_donated_input_may_be_overwritten():
    x, key = values(1000), jax.random.key(1)
    result, _ = expected("relu_dropout", x, key)
    assert same(jax.jit(call("relu_dropout"), donate_argnums=0)(x + 0, key), result)


def test_an_input_that_lives_on_is_not_overwritten():
    x, key = values(1000), jax.random.key(1)
    before = np.array(x)
    y, kept_x = jax.jit(lambda x, key: (call("relu_dropout")(x, key), x + 0))(x, key)
    assert same(kept_x, before)
    assert same(x, before)
    assert same(y, expected("relu_dropout", before, key)[0])


def test_nans_are_looked_for_where_they_pass():
    key = jax.random.key(1)
    kept = fd.keep_mask(64, keep_prob=KEEP_PROB, rng=seed(key)).to_array()
    with jax.debug_nans(True):
        assert np.isfinite(call("dropout")(jnp.ones(64), key)).all()
        assert np.isfinite(jax.grad(lambda x: call("dropout")(x, key).sum())(jnp.ones(64))).all()
        with pytest.raises(FloatingPointError):
            jax.block_until_ready(call("dropout")(jnp.where(kept, jnp.nan, 1.0), key))
        assert np.isfinite(call("dropout")(jax.device_put(np.where(kept, 1, np.nan)), key)).all()


def test_without_jit():
    x, key = values(100), jax.random.key(1)
    with jax.disable_jit():
        assert same(call("dropout")(x, key), expected("dropout", x, key)[0])
        assert same(jax.grad(lambda x: call("dropout")(x, key).sum())(x) != 0, call("dropout")(x, key) != 0)


def test_an_eager_call_is_compiled_once():
    call("dropout", 0.625)(values(100), jax.random.key(1))
    compiled = functional.compiled._cache_size()
    for number in range(3):
        call("dropout", 0.625)(values(100), jax.random.key(number))
    assert functional.compiled._cache_size() == compiled


def test_an_exported_program_runs(path):
    if path == "callback":
        pytest.skip("JAX exports no callback")
    from jax import export

    x, key = values(100), jax.random.key(1)
    checks = [export.DisabledSafetyCheck.custom_call(name) for name in fjax.targets()]
    for function in (call("relu_dropout"), jax.grad(lambda x, key: call("relu_dropout")(x, key).sum())):
        exported = export.export(jax.jit(function), disabled_checks=checks)(x, key)
        assert same(exported.call(x, key), function(x, key))
        if find_spec("flatbuffers"):  # JAX needs it to write a program
            assert same(export.deserialize(exported.serialize()).call(x, key), function(x, key))


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"keep_prob": 1.5}, ValueError, "keep_prob must be in"),
        ({"keep_prob": float("nan")}, ValueError, "keep_prob must be in"),
        ({"keep_prob": "half"}, TypeError, "keep_prob must be a real number"),
        ({"x": jnp.ones(3, int)}, TypeError, "x must have dtype float32"),
        ({"x": jnp.ones(3, "complex64")}, TypeError, "x must have dtype float32"),
        ({"key": 3}, TypeError, "key must be a key of jax.random"),
        ({"key": None}, TypeError, "key must be a key of jax.random"),
        ({"key": jnp.ones(2)}, TypeError, "key must be a key of jax.random"),
        ({"key": jax.random.split(jax.random.key(0), 3)}, ValueError, "key must be one key"),
        ({"key": jax.random.split(jax.random.PRNGKey(0), 3)}, ValueError, "key must be one key"),
        ({"rate": 0.5}, TypeError, "no argument 'rate': pass keep_prob, the probability that an element is kept"),
        ({"rng": 0}, TypeError, "no argument 'rng': pass key, a key of jax.random"),
        ({"training": False}, TypeError, "call dropout in training, and use x itself at prediction"),
    ],
)
def test_errors(changed, error, says):
    given = {"x": jnp.ones(3), "keep_prob": 0.5, "key": jax.random.key(0)} | changed
    with pytest.raises(error, match=says):
        fjax.dropout(given.pop("x"), **given)


@pytest.mark.parametrize("form", ["dropout", "relu_dropout"])
def test_keep_prob_and_key_are_passed_by_keyword(form):
    x, key = jnp.ones(3), jax.random.key(0)
    says = rf"such as {form}\(x, keep_prob=0.9, key=jax.random.key\(0\)\)"
    for arguments in ((x, 0.9), (x, 0.9, key)):
        with pytest.raises(TypeError, match=says):
            getattr(fjax, form)(*arguments)
    with pytest.raises(TypeError, match=rf"{form}\(\) needs keep_prob and key"):
        jax.jit(getattr(fjax, form))(x)


def test_a_traced_probability_is_refused():
    function = jax.jit(lambda p: fjax.dropout(values(3), keep_prob=p, key=jax.random.key(0)))
    with pytest.raises(TypeError, match="keep_prob must be a Python number, got a traced value"):
        function(0.5)


# --- in processes of their own ----------------------------------------------------------------


ON_ONE_CPU = """
import os, sys
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import jax
from fastdrop.jax import dropout, paths
x, key = jax.numpy.ones((1000, 1000)), jax.random.key(0)
assert paths.in_use() == "ffi"
for paths.chosen in sys.argv[1:]:
    y = x
    for i in range(10):
        y = dropout(y, keep_prob=0.9, key=jax.random.fold_in(key, i)) @ y / 1000
    print(paths.chosen, y.block_until_ready().shape)
"""


@pytest.fixture(scope="module")
def said_by_devices():
    """What the program says that runs on several devices, the ways one after the other."""
    return printed_by(DEVICES, *EVERY_WAY, **FOUR_DEVICES)


@pytest.mark.parametrize("name", re.findall(r"^def (test_\w+)", DEVICES.read_text("utf-8"), re.MULTILINE))
def test_on_several_devices(path, name, said_by_devices):
    assert f"{path} {name}" in said_by_devices.splitlines()


@pytest.mark.parametrize("path", ["ffi"], indirect=True)  # the program draws the way
@pytest.mark.parametrize("seed", [("--seed", "0"), ()], ids=["fixed", "fresh"])
def test_whole_calls_drawn_at_random(path, seed):
    """When a case fails, the program names the seed, which is another one at each run."""
    said = printed_by(WHOLE_CALLS, "--cases", "6", *seed, **FOUR_DEVICES)
    assert said.endswith("6 cases equal the reference")


@pytest.fixture(scope="module")
def said_by_one_cpu():
    return printed_by(ON_ONE_CPU, *EVERY_WAY)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system sets no affinity")
def test_it_ends_on_one_cpu(path, said_by_one_cpu):
    """`pure_callback` does not: it waits for a value, on the thread that would compute it."""
    assert f"{path} (1000, 1000)" in said_by_one_cpu.splitlines()


REFUSED = """
import jax
def refuse(*arguments, **options):
    raise RuntimeError("unsupported version")
jax.ffi.register_ffi_target = refuse
import fastdrop.jax
from fastdrop.commands.info import facts
y = fastdrop.jax.dropout(jax.numpy.ones(96), keep_prob=0.7, key=jax.random.key(1))
print(facts()["jax"])
print(int((y != 0).sum()))
"""


def test_handlers_that_xla_refuses_break_nothing(path):
    if path == "callback":
        how, kept = printed_by(REFUSED).splitlines()
        assert "callback" in how
        assert "unsupported version" in how
        assert int(kept) == bin(int("b5cfeceebf8eb7b6aebf41bf", 16)).count("1")


def test_info_says_which_path_is_in_use(path):
    from fastdrop.commands.info import facts

    assert {"ffi": "foreign function interface", "callback": "callback"}[path] in facts()["jax"]


def test_the_examples_of_the_docstrings(monkeypatch):
    monkeypatch.setattr(paths, "chosen", "ffi")  # one of them exports a program
    for name in fjax.__all__:
        for test in doctest.DocTestFinder().find(getattr(fjax, name), name, globs={}):
            assert test.examples
            assert doctest.DocTestRunner().run(test).failed == 0
