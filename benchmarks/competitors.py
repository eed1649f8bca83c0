"""The competitors that the suite times: those of the bench command, and more libraries.

To add one, write one class here. It has a method for each operation that its library offers, which
takes a task and returns a call. The call returns what it computed.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastdrop as fd
from fastdrop import cpu
from fastdrop.commands.bench import timing
from fastdrop.commands.bench.competitors import (
    SEED,
    BestNumpy,
    Case,
    Competitor,
    Copy,
    Fastdrop,
    Maximum,
    Task,
    TextbookNumpy,
    TorchEager,
)


class Numpy16Bit(BestNumpy):
    """NumPy with 16 raw bits per element. It is faster, and the probability is off by up to 2**-16.

    It works on parts that fit in the first-level cache, because raw bits always come in a new array.
    """

    name = "NumPy, 16-bit uniforms"
    PIECE = 2**13

    def draw(self, task: Task) -> Callable[[], NDArray[np.bool_]]:
        each = self.pieces(task, lambda piece, kept: None)
        return lambda: (each(), task.flags)[1]

    def forward(self, task: Task) -> Callable[[], Any]:
        x, out, scale = task.x, task.out, task.scale
        factors = np.empty(min(self.PIECE, x.size), x.dtype)

        def apply(piece: slice, kept: NDArray[np.bool_]) -> None:
            y, u = out[piece], factors[: kept.size]
            np.multiply(kept, scale, out=u)
            np.maximum(x[piece], 0, out=y)
            np.multiply(y, u, out=y)

        each = self.pieces(task, apply)
        return lambda: (each(), out)[1]

    def pieces(
        self, task: Task, use: Callable[[slice, NDArray[np.bool_]], None]
    ) -> Callable[[], None]:
        random_raw, flags, size = np.random.SFC64(SEED).random_raw, task.flags, task.x.size
        threshold = np.uint16(round(task.keep_prob * 2**16))

        def call() -> None:
            for start in range(0, size, self.PIECE):
                piece = slice(start, min(start + self.PIECE, size))
                kept = flags[piece]
                words = random_raw((kept.size + 3) // 4).view(np.uint16)
                use(piece, np.less(words[: kept.size], threshold, out=kept))

        return call


class NumpyMkl(BestNumpy):
    """NumPy with the Bernoulli numbers of Intel's MKL, whose library is called by its C interface.

    PyTorch's builds with MKL draw by the same function. The generator is SFMT19937, the fastest one here.
    """

    name = "NumPy, MKL Bernoulli"

    def missing(self) -> str:
        return "" if mkl() else "MKL was not found: pip install mkl"

    def draw(self, task: Task) -> Callable[[], NDArray[np.bool_]]:
        kept, p, stream = np.empty(task.x.size, np.int32), task.keep_prob, ctypes.c_void_p()
        library = mkl()
        assert library is not None  # otherwise the competitor is missing
        if library.vslNewStream(ctypes.byref(stream), SFMT19937, SEED):
            raise MemoryError("MKL made no stream")
        call = partial(library.viRngBernoulli, 0, stream, kept.size, kept.ctypes.data_as(ctypes.c_void_p),
                       ctypes.c_double(p))  # fmt: skip
        return lambda: (call(), np.not_equal(kept, 0, out=task.flags))[1]


SFMT19937 = 13 << 20  # VSL_BRNG_SFMT19937 of mkl_vsl_defines.h


@cache
def mkl() -> ctypes.CDLL | None:
    """Return MKL with one thread, from the package `mkl` or the system, or None."""
    for folder in (Path(sys.prefix, "lib"), Path(sys.prefix, "Library", "bin")):
        for path in sorted(folder.glob("*mkl_rt*")):
            library = ctypes.CDLL(str(path))
            library.MKL_Set_Num_Threads(1)
            return library
    return None


class TorchCompiled(TorchEager):
    """PyTorch: the same two lines with `torch.compile` (one compilation for all sizes)."""

    name = "PyTorch compiled"

    def missing(self) -> str:
        return super().missing() or self.fails_to_compile()

    @cache  # noqa: B019  # one instance lives as long as the process
    def fails_to_compile(self) -> str:
        import torch

        self.enter()
        try:
            with torch.no_grad():
                self.step()(torch.ones(8, 8).flatten(), 0.5)
        except Exception as reason:  # the compiler may raise anything
            return f"torch.compile: {type(reason).__name__}"
        return ""

    @cache  # noqa: B019
    def step(self) -> Callable[[Any, float], Any]:
        import torch
        from torch._functorch import config

        config.donated_buffer = False  # one forward pass may be followed by many backward passes
        return torch.compile(super().step(), dynamic=True)


class Jax(Competitor):
    """JAX under jit. Each result replaces the one before, whose buffer is donated."""

    needs = ("jax",)

    def __init__(self, generator: str) -> None:
        self.generator = generator
        self.name = {"threefry2x32": "JAX jit, threefry"}.get(generator, f"JAX jit, {generator}")

    def enter(self) -> None:
        jax_on_one_core()

    def state(self, task: Task) -> list[Any]:
        import jax
        import jax.numpy as jnp

        self.enter()
        return [jax.random.key(SEED, impl=self.generator), jnp.zeros_like(task.x)]

    def moving_on(self, step: Callable[..., Any], state: list[Any], *arrays: Any) -> Callable[[], Any]:
        import jax

        step = jax.jit(step, donate_argnums=(0, 1), keep_unused=True)

        def call() -> Any:
            state[:] = step(*state, *arrays)
            return state[1].block_until_ready()

        return call

    def forward(self, task: Task) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        p = task.dtype.type(task.keep_prob)

        def step(key: Any, old: Any, x: Any) -> tuple[Any, Any]:
            key, now = jax.random.split(key)
            kept = jax.random.bernoulli(now, p, x.shape)
            return key, jnp.where(kept, jax.nn.relu(x) / p, jnp.zeros_like(x))

        return self.moving_on(step, self.state(task), jnp.asarray(task.x))

    def backward(self, task: Task) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        state, x = self.state(task), jnp.asarray(task.x)
        scale = task.scale
        passed = jax.random.bernoulli(state[0], task.keep_prob, x.shape) & (x > 0)

        def step(key: Any, old: Any, dy: Any, passed: Any) -> tuple[Any, Any]:
            return key, jnp.where(passed, dy * scale, jnp.zeros_like(dy))

        return self.moving_on(step, state, x, passed)

    def predict(self, task: Task) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        return self.moving_on(
            lambda key, old, x: (key, jax.nn.relu(x)), self.state(task), jnp.asarray(task.x)
        )

    def mask(self, task: Task) -> Callable[[], Any]:
        import jax
        import jax.numpy as jnp

        state = self.state(task)
        state[1] = jnp.zeros(task.x.shape, bool)

        def step(key: Any, old: Any) -> tuple[Any, Any]:
            key, now = jax.random.split(key)
            return key, jax.random.bernoulli(now, task.keep_prob, old.shape)

        return self.moving_on(step, state)


@cache
def jax_on_one_core() -> None:
    """Make JAX use one thread, by creating its pool while it may use one core, and no queue."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    with one_core():
        jax.numpy.zeros(8).block_until_ready()


@contextmanager
def one_core() -> Iterator[None]:
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


class NumbaFused(Competitor):
    """Numba: one loop, with the generator of Numba's own `np.random`."""

    name = "Numba fused"
    needs = ("numba",)

    def forward(self, task: Task) -> Callable[[], Any]:
        return partial(
            numba_loops()["forward"], task.x, task.out, task.flags, task.keep_prob, task.scale
        )

    def backward(self, task: Task) -> Callable[[], Any]:
        self.forward(task)()
        dx = np.zeros_like(task.x)
        return partial(numba_loops()["backward"], task.x, dx, task.flags.copy(), task.scale)

    def predict(self, task: Task) -> Callable[[], Any]:
        return partial(numba_loops()["predict"], task.x, task.out)


class NumbaSplitMix(NumbaFused):
    """Numba: one loop that computes SplitMix64 of the index, which LLVM vectorises.

    SplitMix64 is Steele, Lea and Flood, "Fast splittable pseudorandom number generators",
    OOPSLA 2014. Nobody writes dropout like this, but it is possible.
    """

    name = "Numba, SplitMix64 by hand"

    def forward(self, task: Task) -> Callable[[], Any]:
        loop, x, out, flags = numba_loops()["splitmix"], task.x, task.out, task.flags
        threshold, scale = np.uint64(int(task.keep_prob * 2**64)), task.scale
        position = 0

        def call() -> NDArray[Any]:
            nonlocal position
            position += x.size
            return loop(x, out, flags, threshold, scale, np.uint64(position))

        return call


@cache
def numba_loops() -> dict[str, Callable[..., Any]]:
    """Return the loops. Numba compiles each of them at its first call."""
    from numba import njit

    def forward(x, y, flags, keep_prob, scale):  # type: ignore[no-untyped-def]
        zero = x.dtype.type(0)
        for i in range(x.size):
            kept = (np.random.random() < keep_prob) & (x[i] > zero)  # noqa: NPY002
            flags[i] = kept
            y[i] = x[i] * scale if kept else zero
        return y

    def splitmix(x, y, flags, threshold, scale, position):  # type: ignore[no-untyped-def]
        zero = x.dtype.type(0)
        for i in range(x.size):
            z = (np.uint64(i) + position) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            kept = ((z ^ (z >> np.uint64(31))) < threshold) & (x[i] > zero)
            flags[i] = kept
            y[i] = x[i] * scale if kept else zero
        return y

    def backward(dy, dx, flags, scale):  # type: ignore[no-untyped-def]
        zero = dy.dtype.type(0)
        for i in range(dy.size):
            dx[i] = dy[i] * scale if flags[i] else zero
        return dx

    def predict(x, y):  # type: ignore[no-untyped-def]
        zero = x.dtype.type(0)
        for i in range(x.size):
            y[i] = x[i] if x[i] > zero else zero
        return y

    return {loop.__name__: njit(loop) for loop in (forward, splitmix, backward, predict)}


class Thinc(Competitor):
    """Thinc, the library that spaCy is built on: the ReLU of its operations, and its Dropout layer."""

    name = "Thinc"
    needs = ("thinc.api",)

    def forward(self, task: Task) -> Callable[[], Any]:
        from thinc.api import Dropout, NumpyOps

        ops, layer, x = NumpyOps(), Dropout(task.rate).initialize(), task.x
        return lambda: layer(ops.relu(x), is_train=True)[0]

    def backward(self, task: Task) -> Callable[[], Any]:
        from thinc.api import Dropout, NumpyOps

        ops, x = NumpyOps(), task.x
        h = ops.relu(x)
        _, back = Dropout(task.rate).initialize()(h, is_train=True)
        return lambda: ops.backprop_relu(back(x), h)

    def predict(self, task: Task) -> Callable[[], Any]:
        from thinc.api import NumpyOps

        return partial(NumpyOps().relu, task.x)

    def mask(self, task: Task) -> Callable[[], Any]:
        from thinc.api import NumpyOps

        return partial(NumpyOps().get_dropout_mask, task.x.shape, task.rate)


class CopyPastCache(Competitor):
    """The limit for arrays that are larger than the caches: a copy whose stores do not read what they overwrite.

    The C library's `memmove` does so for large arrays on many systems, and ours does so with keep_prob 1. This is
    the quicker of both.
    """

    name = "copy past the cache"
    LEAST = 2**26  # bytes; a smaller array may stay in a cache

    def offers(self, case: Case) -> bool:
        return super().offers(case) and case.size * np.dtype(case.dtype).itemsize >= self.LEAST

    def forward(self, task: Task) -> Callable[[], Any]:
        x, out = task.x, task.out

        def move() -> NDArray[Any]:
            ctypes.memmove(out.ctypes.data, x.ctypes.data, x.nbytes)
            return out

        ours = partial(fd.dropout_predict, x, keep_prob=1.0, out=out)
        return min((move, ours), key=timing.quickest)

    backward = predict = forward


class CopyInThreads(Competitor):
    """A copy in which each thread has a part: it shows how much threads can gain if memory is the limit."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.name = f"copy, {threads} threads"
        self.pool = ThreadPoolExecutor(threads)

    def forward(self, task: Task) -> Callable[[], Any]:
        parts = list(zip(np.array_split(task.out, self.threads), np.array_split(task.x, self.threads)))

        def call() -> NDArray[Any]:
            list(self.pool.map(lambda part: np.copyto(*part), parts))
            return task.out

        return call


def ours() -> list[Competitor]:
    """Return this package with every instruction set of this machine, best first."""
    return [Fastdrop(isa) for isa in cpu.available()]


def others() -> list[Competitor]:
    """Return all other competitors, installed or not."""
    return [
        Copy(), CopyPastCache(), Maximum(), TextbookNumpy(), BestNumpy(), Numpy16Bit(), NumpyMkl(),
        TorchEager(), TorchCompiled(), Jax("threefry2x32"), Jax("rbg"), NumbaFused(), NumbaSplitMix(), Thinc(),
    ]  # fmt: skip
