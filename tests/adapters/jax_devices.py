"""JAX on several devices, run by test_jax.py in a process that has four. Prints the names that pass."""

from __future__ import annotations

import sys

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import fastdrop.jax as fjax
from fastdrop.jax import paths

KEEP_PROB = 0.7
DEVICES = 4
MESH = Mesh(np.array(jax.devices()), ("d",))
GRID = Mesh(np.array(jax.devices()).reshape(2, 2), ("a", "b"))
X = jax.random.normal(jax.random.key(5), (8, 24))
KEYS = jax.random.split(jax.random.key(1), DEVICES)
WEIGHTS = jnp.arange(X.size, dtype="float32").reshape(X.shape)
replicated, sharded = P(), P("d")


def relu_dropout(x, key):
    return fjax.relu_dropout(x, keep_prob=KEEP_PROB, key=key)


def loss(x, key):
    """With a gradient that depends on x and differs between elements."""
    return (relu_dropout(x, key) ** 2 * WEIGHTS[: len(x)]).sum()


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


def of_its_gradient(function):
    """The gradient of the square of a gradient."""
    return jax.grad(lambda x: (jax.grad(function)(x) ** 2).sum())(X)


def check_shard_map(x_spec, key_spec, **options):
    """The result and the gradient of a sum over devices, against the same without shard_map."""

    def pick(key):
        return key[0] if key_spec == sharded else key

    def parts(x):
        return jnp.split(x, DEVICES) if x_spec == sharded else [x] * DEVICES

    keys = list(KEYS) if key_spec == sharded else [KEYS[0]] * DEVICES
    key = KEYS if key_spec == sharded else KEYS[0]
    varies = sharded in (x_spec, key_spec)
    total = on_shards(
        lambda x, key: jax.lax.psum(loss(x, pick(key)), "d"), (x_spec, key_spec), P(), **options
    )
    each = on_shards(lambda x, key: relu_dropout(x, pick(key)), (x_spec, key_spec), sharded, **options)
    if varies:
        assert equal(each(X, key), jnp.concatenate(list(map(relu_dropout, parts(X), keys))))


    def summed(x):
        return sum(map(loss, parts(x), keys))

    wanted = jax.grad(summed)(X)
    for wrap in (lambda function: function, jax.jit):
        assert close(wrap(jax.grad(total))(X, key), wanted)
    if jax.__version_info__ >= (0, 8):  # older ones add the gradients of the bits, which there are none of
        assert close(of_its_gradient(lambda x: total(x, key)), of_its_gradient(summed))


def test_shard_map_of_a_replicated_x_and_sharded_keys():
    check_shard_map(replicated, sharded)


def test_shard_map_of_a_sharded_x_and_sharded_keys():
    check_shard_map(sharded, sharded)


def test_shard_map_of_a_sharded_x_and_one_key():
    check_shard_map(sharded, replicated)


def test_shard_map_of_a_replicated_x_and_one_key():
    check_shard_map(replicated, replicated)


def test_shard_map_without_its_check():
    if hasattr(jax, "shard_map"):
        check_shard_map(sharded, sharded, check_vma=False)
        check_shard_map(replicated, sharded, check_vma=False)


def test_gradients_inside_of_shard_map():
    inside = on_shards(lambda x, key: jax.grad(loss)(x, key[0]), (sharded, sharded), sharded)
    wanted = [jax.grad(loss)(x, key) for x, key in zip(jnp.split(X, DEVICES), KEYS)]
    assert equal(inside(X, KEYS), jnp.concatenate(wanted))


def test_shard_map_with_vmap_scan_and_checkpoint():
    def steps(x, keys):
        rows = jax.vmap(relu_dropout, in_axes=(0, None))
        step = jax.checkpoint(lambda x, _: (rows(x * 1.5, keys[0]), None))
        return jax.lax.scan(step, x, length=2)[0]

    def square(x, keys):
        return (steps(x, keys) ** 2).sum()

    total = on_shards(lambda x, keys: jax.lax.psum(square(x, keys), "d"), (sharded, sharded), P())
    wanted = jax.grad(lambda x: sum(map(square, jnp.split(x, DEVICES), KEYS[:, None])))
    assert close(jax.jit(jax.grad(total))(X, KEYS), wanted(X))


def test_shard_map_over_two_axes():
    keys = jax.random.split(jax.random.key(2), 2)
    total = on_shards(
        lambda x, key: jax.lax.psum(loss(x, key[0]), ("a", "b")), (P("a"), P("b")), P(), mesh=GRID
    )
    wanted = jax.grad(lambda x: sum(loss(part, key) for part in jnp.split(x, 2) for key in keys))
    assert close(jax.jit(jax.grad(total))(X, keys), wanted(X))


def test_pmap():
    x = X.reshape(DEVICES, 2, -1)
    assert equal(jax.pmap(relu_dropout)(x, KEYS), jnp.stack(list(map(relu_dropout, x, KEYS))))
    slopes = jax.pmap(jax.grad(loss))(x, KEYS)
    assert equal(slopes, jnp.stack(list(map(jax.grad(loss), x, KEYS))))


def test_automatic_sharding():
    for mesh, spec in ((MESH, P("d")), (MESH, P(None, "d")), (GRID, P("a", "b")), (GRID, P(("a", "b")))):
        x = jax.device_put(X, NamedSharding(mesh, spec))
        assert equal(relu_dropout(x, KEYS[0]), relu_dropout(X, KEYS[0]))
        y = jax.jit(relu_dropout)(x, KEYS[0])
        assert equal(y, relu_dropout(X, KEYS[0]))
        assert equal(y * 2 + x, relu_dropout(X, KEYS[0]) * 2 + X)
        for wrap in (lambda function: function, jax.jit):
            assert equal(wrap(jax.grad(loss))(x, KEYS[0]), wrap(jax.grad(loss))(X, KEYS[0]))


def test_explicit_sharding():
    """Arrays whose sharding is part of their type, where JAX has them."""
    if not hasattr(jax.sharding, "AxisType") or not hasattr(jax, "set_mesh"):
        return
    mesh = jax.make_mesh((DEVICES,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("d")))
        for wrap in (lambda function: function, jax.jit):
            assert equal(wrap(relu_dropout)(x, KEYS[0]), relu_dropout(X, KEYS[0]))


def test_a_sharded_batch_of_keys():
    x = jax.device_put(X.reshape(DEVICES, 2, -1), NamedSharding(MESH, P("d")))
    keys = jax.device_put(KEYS, NamedSharding(MESH, P("d")))
    assert equal(jax.jit(jax.vmap(relu_dropout))(x, keys), jnp.stack(list(map(relu_dropout, x, KEYS))))


if __name__ == "__main__":
    paths.in_use()
    paths.chosen = sys.argv[1]
    assert jax.device_count() == DEVICES
    for name, test in list(globals().items()):
        if name.startswith("test_"):
            test()
            print(name)
