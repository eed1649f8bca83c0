"""JAX on several devices, run by test_jax.py in a process that has four. Prints what passes, way by way.

What is wanted comes from the calls for NumPy, so that nothing but the adapter is compiled.
"""

from __future__ import annotations

import sys
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import fastdrop as fd
import fastdrop.jax as fjax
from fastdrop.jax import paths

KEEP_PROB = 0.7
DEVICES = 4
MESH = Mesh(np.array(jax.devices()), ("d",))
GRID = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
X = np.random.default_rng(5).standard_normal((8, 24), np.float32)
PARTS = np.split(X, DEVICES)
WEIGHTS = np.arange(X.size, dtype=np.float32).reshape(X.shape)
KEYS = jax.random.split(jax.random.key(1), DEVICES)
SEEDS = {  # by the data of a key, which can be hashed
    tuple(data): sum(int(word) << 32 * i for i, word in enumerate(words))
    for data, words in zip(
        np.asarray(jax.random.key_data(KEYS)).tolist(),
        np.asarray(jax.vmap(lambda key: jax.random.bits(key, (4,)))(KEYS)),
    )
}
replicated, sharded = P(), P("d")


def relu_dropout(x, key):
    return fjax.relu_dropout(x, keep_prob=KEEP_PROB, key=key)


def loss(x, key):
    """With a gradient that depends on x and differs between elements."""
    return (relu_dropout(x, key) ** 2 * WEIGHTS[: len(x)]).sum()


def called(x, key):
    return fd.relu_dropout(x, keep_prob=KEEP_PROB, rng=SEEDS[tuple(np.asarray(jax.random.key_data(key)).tolist())])


def result(x, key):
    """The same as `relu_dropout`, by NumPy."""
    return called(x, key)[0]


def gradient(x, key):
    """The gradient of `loss`, rounded as JAX rounds it."""
    y, mask = called(x, key)
    return fd.relu_dropout_backward(WEIGHTS[: len(x)] * (2 * y), mask)


def on_shards(function, in_specs, out_specs, mesh=MESH, **options):
    if hasattr(jax, "shard_map"):
        return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, **options)
    from jax.experimental.shard_map import shard_map  # JAX before 0.6, whose check knows few primitives

    return shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_rep=False)


def equal(array, other):
    return np.array_equal(np.asarray(array), np.asarray(other))


def close(array, other):
    """Sums over devices may be in another order."""
    return np.allclose(array, other, rtol=1e-5, atol=1e-5) and np.any(array)


def check_shard_map(x_spec, key_spec, eagerly=False, **options):
    """The result, and the first and second gradient of a sum over devices, in one program."""

    def pick(key):
        return key[0] if key_spec == sharded else key

    total = on_shards(
        lambda x, key: jax.lax.psum(loss(x, pick(key)), "d"), (x_spec, key_spec), P(), **options
    )
    varies = sharded in (x_spec, key_spec)
    each = on_shards(
        lambda x, key: relu_dropout(x, pick(key)),
        (x_spec, key_spec), sharded if varies else replicated, **options,
    )  # fmt: skip
    slope = jax.grad(total)

    def program(x, key):
        second = jax.grad(lambda x: (slope(x, key) ** 2).sum()) if knows_second_gradients else slope_of_none
        return each(x, key), slope(x, key), second(x)

    key = KEYS if key_spec == sharded else KEYS[0]
    of_each = list(zip(PARTS if x_spec == sharded else [X] * DEVICES,
                       KEYS if key_spec == sharded else [KEYS[0]] * DEVICES))  # fmt: skip
    join = np.concatenate if x_spec == sharded else partial(np.sum, axis=0)
    wanted = join([gradient(*one) for one in of_each])
    y, first, second = jax.jit(program)(X, key)
    assert equal(y, np.concatenate([result(*one) for one in of_each]) if varies else result(X, key))
    assert close(first, wanted)
    assert not eagerly or close(slope(X, key), wanted)
    if knows_second_gradients:  # the gradient is linear in x wherever it is not zero
        assert close(second, 2 * wanted * (wanted / X))


# Older ones add the gradients of the bits, which there are none of.
knows_second_gradients = jax.__version_info__ >= (0, 8)


def slope_of_none(x):
    return x


def test_shard_map_of_a_replicated_x_and_sharded_keys():
    check_shard_map(replicated, sharded, eagerly=True)


def test_shard_map_of_a_sharded_x_and_sharded_keys():
    check_shard_map(sharded, sharded, eagerly=True)


def test_shard_map_of_a_sharded_x_and_one_key():
    check_shard_map(sharded, replicated, eagerly=True)


def test_shard_map_of_a_replicated_x_and_one_key():
    check_shard_map(replicated, replicated)


def test_shard_map_without_its_check():
    if hasattr(jax, "shard_map"):
        check_shard_map(sharded, sharded, check_vma=False)
        check_shard_map(replicated, sharded, check_vma=False)


def test_gradients_inside_of_shard_map():
    inside = on_shards(lambda x, key: jax.grad(loss)(x, key[0]), (sharded, sharded), sharded)
    wanted = np.concatenate(list(map(gradient, PARTS, KEYS)))
    assert equal(inside(X, KEYS), wanted)


def test_shard_map_with_vmap_scan_and_checkpoint():
    def square(x, keys):
        rows = jax.vmap(relu_dropout, in_axes=(0, None))
        step = jax.checkpoint(lambda x, _: (rows(x * 1.5, keys[0]), None))
        return (jax.lax.scan(step, x, length=2)[0] ** 2).sum()

    def wanted(x, key):
        rows = np.stack([result(row, key) for row in x])
        return 2 * x * (1.5 * rows / x) ** 4

    total = on_shards(lambda x, keys: jax.lax.psum(square(x, keys), "d"), (sharded, sharded), P())
    assert close(jax.jit(jax.grad(total))(X, KEYS), np.concatenate(list(map(wanted, PARTS, KEYS))))


def test_shard_map_over_two_axes():
    keys = KEYS[:2]
    total = on_shards(
        lambda x, key: jax.lax.psum(loss(x, key[0]), ("a", "b")), (P("a"), P("b")), P(), mesh=GRID
    )
    wanted = [sum(gradient(half, key) for key in keys) for half in np.split(X, 2)]
    assert close(jax.jit(jax.grad(total))(X, keys), np.concatenate(wanted))


def test_pmap():
    x = np.stack(PARTS)
    assert equal(jax.pmap(relu_dropout)(x, KEYS), np.stack(list(map(result, x, KEYS))))
    assert equal(jax.pmap(jax.grad(loss))(x, KEYS), np.stack(list(map(gradient, x, KEYS))))


def test_automatic_sharding():
    key = KEYS[0]
    (y, mask), dx = called(X, key), gradient(X, key)
    for mesh, spec in ((MESH, P("d")), (MESH, P(None, "d")), (GRID, P("a", "b")), (GRID, P(("a", "b")))):
        x = jax.device_put(X, NamedSharding(mesh, spec))
        given, pull = jax.vjp(lambda x: relu_dropout(x, key), x)
        assert equal(given, y)
        assert equal(given + x, y + X)
        assert equal(pull(given)[0], fd.relu_dropout_backward(y, mask))
        both = jax.jit(lambda x, key: (relu_dropout(x, key), jax.grad(loss)(x, key)))
        assert all(map(equal, both(x, key), (y, dx)))


def test_explicit_sharding():
    """Arrays whose sharding is part of their type, where JAX has them."""
    if not hasattr(jax.sharding, "AxisType") or not hasattr(jax, "set_mesh"):
        return
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("d")))
        for wrap in (lambda function: function, jax.jit):
            y, slope = wrap(relu_dropout)(x, KEYS[0]), wrap(jax.grad(loss))(x, KEYS[0])
            assert equal(y, result(X, KEYS[0])) and equal(slope, gradient(X, KEYS[0]))
            assert jax.typeof(y) == jax.typeof(slope) == jax.typeof(x)


def test_a_sharded_batch_of_keys():
    x = jax.device_put(np.stack(PARTS), NamedSharding(MESH, P("d")))
    keys = jax.device_put(KEYS, NamedSharding(MESH, P("d")))
    assert equal(jax.jit(jax.vmap(relu_dropout))(x, keys), np.stack(list(map(result, PARTS, KEYS))))


if __name__ == "__main__":
    paths.in_use()
    assert jax.device_count() == DEVICES
    for paths.chosen in sys.argv[1:]:
        jax.clear_caches()  # the way is compiled into a call
        for name, test in list(globals().items()):
            if name.startswith("test_"):
                test()
                print(paths.chosen, name)
