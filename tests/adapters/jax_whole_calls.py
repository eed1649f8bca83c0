"""Compare whole calls of fastdrop.jax, drawn at random across JAX's transformations, with the reference.

    XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/adapters/jax_whole_calls.py
        [--cases N] [--seconds N] [--seed N] [--case N]

A case wraps a call in axes. Each axis is run by vmap, scan, shard_map or pmap, and gives another x, another key
or both to every index. The result, the gradient and the gradient of the gradient have to equal the reference in
every bit. The first fault ends the run with the numbers that repeat it. test_jax.py runs a few cases.
"""

from __future__ import annotations

import argparse
import random
import time
from contextlib import ExitStack
from typing import NamedTuple

import jax
import numpy as np
from jax import numpy as jnp
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import fastdrop.jax as fjax
from fastdrop import reference
from fastdrop.jax import paths

DEVICES = 4
EXACT = (0.5, 0.25, 1.0)  # sums of a few gradients are exact for these values of keep_prob
PROBABILITIES = (*EXACT, 0.9, 0.1, 2.0**-32, 1 - 2.0**-32, 0.0)
DTYPES = ("float32", "float16", "bfloat16", "float64")
SMALL = ((), (1,), (7,), (64,), (129,), (3, 5), (4, 33), (2, 3, 4, 5))
EMPTY = ((0,), (2, 0, 3))
LARGE = ((4097,), (40_000,))
ON_DEVICES = ("shard_map", "pmap")
WAYS = ("ffi", "callback") if jax.__version_info__ >= (0, 6) else ("ffi",)  # buffer_callback is as old
# jaxlib before 0.7 ends the process when it differentiates some programs with shard_map.
RUNS = ("vmap", "vmap", "scan", "pmap", *(["shard_map"] if jax.__version_info__ >= (0, 7) else []))
KNOWS_SECOND_GRADIENTS_OF_SHARDS = jax.__version_info__ >= (0, 8)


class Axis(NamedTuple):
    """A transformation around the call, and the indices that it runs the call for."""

    runs: str
    maps: str  # what differs between the indices: "both", "x" or "key"
    size: int
    last: bool  # whether vmap gets it as the last axis of x
    checked: bool  # whether shard_map checks what varies over devices

    @property
    def maps_x(self):
        return self.maps != "key"

    @property
    def maps_key(self):
        return self.maps != "x"


class Case(NamedTuple):
    """A call with its axes, the outermost first, and the settings of JAX."""

    path: str
    form: str
    dtype: str
    core: tuple[int, ...]  # the shape of x in one call
    keep_prob: float
    axes: tuple[Axis, ...]
    jit: bool
    remat: bool
    typed: bool  # whether the key is typed
    partitionable: bool
    implementation: str
    sharded: bool  # whether x lies on several devices

    @property
    def of_x(self):
        return tuple(axis.size for axis in self.axes if axis.maps_x)

    @property
    def of_key(self):
        return tuple(axis.size for axis in self.axes if axis.maps_key)

    @property
    def of_y(self):
        return tuple(axis.size for axis in self.axes)

    @property
    def sums(self):
        """Whether the gradient of x is a sum over several calls."""
        return len(self.of_x) < len(self.axes)


# --- what is drawn ----------------------------------------------------------------------------


def drawn(rng):
    """Return a case. It keeps to what JAX's own functions can do in its version."""

    def one(*choices):
        return choices[rng.integers(len(choices))]

    axes = axes_drawn(one)
    on_devices = any(axis.runs in ON_DEVICES for axis in axes)
    sums = not all(axis.maps_x for axis in axes)
    # JAX cannot show an empty result of shard_map outside of jit.
    cores = SMALL + (() if on_devices else EMPTY) + (() if axes else LARGE)
    return Case(
        path=one(*WAYS),
        form=one("dropout", "relu_dropout"),
        dtype=one(*DTYPES),
        core=one(*cores),
        keep_prob=one(*(EXACT if sums else (*PROBABILITIES, rng.random()))),
        axes=axes,
        jit=one(True, True, False),
        remat=one(True, False),
        # jit of pmap takes no typed keys before JAX 0.7.
        typed=one(True, False) and (jax.__version_info__ >= (0, 7) or not on_devices),
        partitionable=one(True, False),
        implementation=one("threefry2x32", "threefry2x32", "rbg", "unsafe_rbg"),
        sharded=one(True, False) and not on_devices,
    )


def axes_drawn(one):
    """Return up to three axes, of which one at most is on several devices. pmap can only be the outermost."""
    axes, on_devices = [], False
    for depth in range(one(0, 1, 1, 2, 3)):
        runs = one(*RUNS)
        if runs in ON_DEVICES and (on_devices or (runs == "pmap" and depth)):
            runs = "vmap"
        on_devices |= runs in ON_DEVICES
        size = DEVICES if runs in ON_DEVICES else one(1, 2, 3)
        axes.append(Axis(runs, one("both", "both", "x", "key"), size, one(True, False), one(True, True, False)))
    return tuple(axes)


# --- as JAX runs it ---------------------------------------------------------------------------


def program(case):
    """Return the function that gives the result, the gradient of x for dy, and the gradient of dy for c."""

    def call(x, key):
        return getattr(fjax, case.form)(x, keep_prob=case.keep_prob, key=key)

    function = wrapped(jax.checkpoint(call) if case.remat else call, case.axes)
    once = any(axis.runs == "shard_map" for axis in case.axes) and not KNOWS_SECOND_GRADIENTS_OF_SHARDS

    def run(x, key, dy, c):
        y, pull = jax.vjp(lambda x: function(x, key), x)
        dx = pull(dy)[0]
        return (y, dx) if once else (y, dx, jax.vjp(lambda dy: pull(dy)[0], dy)[1](c)[0])

    return jax.jit(run) if case.jit else run


def wrapped(function, axes):
    """Return `function` of x and key, over the axes."""
    for axis in reversed(axes):
        function = {"vmap": by_vmap, "scan": by_scan, "shard_map": by_shard_map, "pmap": by_pmap}[axis.runs](
            function, axis
        )
    return function


def by_vmap(inner, axis):
    place = -1 if axis.last else 0
    in_axes = (place if axis.maps_x else None, 0 if axis.maps_key else None)
    rows = jax.vmap(inner, in_axes=in_axes, out_axes=place)
    return lambda x, key: jnp.moveaxis(rows(jnp.moveaxis(x, 0, place) if axis.maps_x else x, key), place, 0)


def by_pmap(inner, axis):
    return jax.pmap(inner, in_axes=(0 if axis.maps_x else None, 0 if axis.maps_key else None))


def by_scan(inner, axis):
    def scanned(x, key):
        def step(_, given):
            return None, inner(given[0] if axis.maps_x else x, given[1] if axis.maps_key else key)

        given = (x if axis.maps_x else None, key if axis.maps_key else None)
        return jax.lax.scan(step, None, given, length=axis.size)[1]

    return scanned


def by_shard_map(inner, axis):
    def on_device(x, key):
        return inner(x[0] if axis.maps_x else x, key[0] if axis.maps_key else key)[None]

    specs = (P("d") if axis.maps_x else P(), P("d") if axis.maps_key else P())
    options = {} if axis.checked else {"check_vma": False}
    return jax.shard_map(on_device, mesh=mesh(), in_specs=specs, out_specs=P("d"), **options)


def mesh():
    return Mesh(np.array(jax.devices()), ("d",))


# --- as the reference computes it -------------------------------------------------------------


def wanted(case, x, seeds, dy, c):
    y, dx, ddy = np.empty_like(dy), np.zeros_like(x), np.empty_like(dy)
    backward = getattr(reference, f"{case.form}_backward")
    for index in np.ndindex(*case.of_y):
        at_x = tuple(i for i, axis in zip(index, case.axes) if axis.maps_x)
        at_key = tuple(i for i, axis in zip(index, case.axes) if axis.maps_key)
        y[index], mask = getattr(reference, case.form)(x[at_x], keep_prob=case.keep_prob, rng=seeds[at_key])
        part = backward(dy[index], mask)
        dx[at_x] = dx[at_x] + part if case.sums else part
        ddy[index] = backward(c[at_x], mask)
    return y, dx, ddy


def seeds_of(keys):
    """Return an array of the seeds of these keys, each drawn from its key alone."""
    seeds = np.empty(keys.shape, object)
    for index in np.ndindex(*keys.shape):
        words = jax.random.bits(keys[index], (4,), "uint32")
        seeds[index] = sum(int(word) << 32 * i for i, word in enumerate(np.asarray(words)))
    return seeds


# --- the comparison ---------------------------------------------------------------------------


def check(case, rng):
    """Compare a case with the reference."""
    dtype = jnp.dtype(case.dtype)
    x, c = (rng.standard_normal(case.of_x + case.core).astype(dtype) for _ in range(2))
    dy = rng.integers(-1, 2, case.of_y + case.core).astype(dtype)
    with ExitStack() as settings:
        settings.enter_context(x64(case.dtype == "float64"))
        settings.enter_context(jax.threefry_partitionable(case.partitionable))
        settings.enter_context(jax.default_prng_impl(case.implementation))
        key = jax.random.key(int(rng.integers(2**31)))
        keys = jax.random.split(key, case.of_key) if case.of_key else key
        right = wanted(case, x, seeds_of(keys), dy, c)
        paths.chosen = case.path
        given = keys if case.typed else jax.random.key_data(keys)
        found = program(case)(placed(jnp.asarray(x), case.sharded), given, jnp.asarray(dy), jnp.asarray(c))
        for name, array, other in zip(("y", "dx", "ddy"), map(np.asarray, found), right):
            assert (array.dtype, array.shape) == (other.dtype, other.shape), name
            same = np.array_equal if case.sums and name == "dx" else same_bytes  # a sum with -0 may be +0
            assert same(array, other), f"{name}\n{array}\n{other}"


def same_bytes(array, other):
    return array.tobytes() == other.tobytes()


def x64(on):
    return jax.enable_x64(on) if callable(getattr(jax, "enable_x64", None)) else jax.experimental.enable_x64(on)


def placed(x, sharded):
    """Return x on several devices, along its first axis that can be divided among them."""
    axis = next((i for i, size in enumerate(x.shape) if size and size % DEVICES == 0), None)
    if not sharded or axis is None:
        return x
    return jax.device_put(x, NamedSharding(mesh(), P(*(None,) * axis, "d")))


def run(seed, number):
    """Run one case, which its seed and number make."""
    rng = np.random.default_rng((seed, number))
    case = drawn(rng)
    try:
        check(case, rng)
    except Exception as error:
        raise RuntimeError(f"--seed {seed} --case {number}: {case}") from error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no case after this time")
    parser.add_argument("--seed", type=int, default=None, help="another one at each run, unless it is given")
    parser.add_argument("--case", type=int, default=None, help="run this case alone")
    options = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if options.seed is None else options.seed
    paths.in_use()  # it registers the handlers, and each case then chooses its way
    assert jax.device_count() == DEVICES
    end, done = time.monotonic() + options.seconds, 0
    for number in range(options.cases) if options.case is None else [options.case]:
        if time.monotonic() > end:
            break
        run(seed, number)
        done += 1
    print(f"seed {seed}: {done} cases equal the reference")


if __name__ == "__main__":
    main()
