"""The competitors that are timed side by side: this package, a copy, NumPy and PyTorch.

Each competitor has its best honest form. Its arrays are created and converted before the timing. It
writes results to an existing array if its library can do that. Its random state advances at each call,
because the branch predictor would learn a repeated mask.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fastdrop as fd
from fastdrop import cpu
from fastdrop.commands.bench import timing
from fastdrop.commands.bench.timing import Trial

OPERATIONS = ("forward", "backward", "predict", "mask")
SEED = 20140614
PAGE, PLACES = 4096, 4  # bytes; places that a copy is tried at


@dataclass(frozen=True)
class Case:
    """What is computed: an operation of ReLU plus dropout, and the number of elements."""

    operation: str = "forward"
    size: int = 2**18
    dtype: str = "float32"
    keep_prob: float = 0.9


class Task:
    """A case with its arrays, which all competitors share. They are those of `like`, if it is given."""

    def __init__(self, case: Case, like: Task | None = None) -> None:
        self.case = case
        self.keep_prob = case.keep_prob
        self.dtype = np.dtype(case.dtype)
        self.rate = 1 - case.keep_prob  # the probability to drop, as in most frameworks
        self.scale = self.dtype.type(1 / case.keep_prob)
        if like is None:
            self.x = np.random.default_rng(SEED).standard_normal(case.size, self.dtype)
            self.out = np.zeros_like(self.x)
        else:
            self.x, self.out = like.x, like.out

    @cached_property
    def uniforms(self) -> NDArray[Any]:
        """Room for one number per element."""
        return np.zeros_like(self.x)

    @cached_property
    def flags(self) -> NDArray[np.bool_]:
        """Room for one decision per element."""
        return np.zeros(self.x.shape, np.bool_)


class Competitor:
    """A competitor. It has a method for each operation that it offers, which turns a task into a call.

    The call returns the array that it computed, or the mask.
    """

    name: str
    needs: tuple[str, ...] = ()  # modules that have to be importable

    def missing(self) -> str:
        """Return why this competitor cannot take part, or an empty string."""
        for module in self.needs:
            try:
                import_module(module)
            except (ImportError, OSError) as reason:  # a shared library that does not load raises OSError
                return f"{module}: {type(reason).__name__}: {reason}".splitlines()[0]
        return ""

    def offers(self, case: Case) -> bool:
        return hasattr(self, case.operation)

    def enter(self) -> None:
        """Set what has to be set before its calls."""

    def trial(self, task: Task) -> Trial:
        return Trial(getattr(self, task.case.operation)(task), self.enter)


class Fastdrop(Competitor):
    """This package with one instruction set."""

    def __init__(self, isa: str, threads: int = 1, *, out: bool = True, mask: bool = True) -> None:
        self.isa = isa
        self.threads, self.out, self.mask_too = threads, out, mask
        self.name = f"fastdrop {self.isa}"

    def enter(self) -> None:
        cpu.activate(self.isa)
        fd.set_num_threads(self.threads)

    def _out(self, task: Task) -> NDArray[Any] | None:
        return task.out if self.out else None

    def forward(self, task: Task) -> Callable[[], Any]:
        return partial(
            fd.relu_dropout, task.x, keep_prob=task.keep_prob,
            rng=fd.Stream(SEED), out=self._out(task), return_mask=self.mask_too,
        )  # fmt: skip

    def backward(self, task: Task) -> Callable[[], Any]:
        _, mask = fd.relu_dropout(task.x, keep_prob=task.keep_prob, rng=SEED, out=task.out)
        return partial(fd.relu_dropout_backward, task.x, mask, out=self._out(task))

    def predict(self, task: Task) -> Callable[[], Any]:
        return partial(fd.relu_dropout_predict, task.x, keep_prob=task.keep_prob, out=self._out(task))

    def mask(self, task: Task) -> Callable[[], Any]:
        return partial(fd.keep_mask, task.x.shape, keep_prob=task.keep_prob, rng=fd.Stream(SEED))


class Copy(Competitor):
    """The limit that memory sets: it reads and writes as many bytes, and computes nothing.

    On some CPUs a copy takes many times as long where both arrays begin at the same offset in a page, because
    a load is taken for one that has to wait for a store. So this is the quickest copy of several offsets.
    """

    name = "copy"

    def forward(self, task: Task) -> Callable[[], Any]:
        copies = [partial(np.copyto, place, task.x) for place in places_for(task.x)]
        return min(copies, key=timing.quickest)

    backward = predict = mask = forward


def places_for(x: NDArray[Any]) -> list[NDArray[Any]]:
    """Return arrays like `x` that begin at the same offset in a page, or a part of a page after it."""
    room = np.empty(x.nbytes + 2 * PAGE, np.uint8)
    same = (x.ctypes.data - room.ctypes.data) % PAGE
    starts = range(same, same + PAGE, PAGE // PLACES)
    return [room[start : start + x.nbytes].view(x.dtype) for start in starts]


class Maximum(Competitor):
    """The ReLU alone."""

    name = "np.maximum"

    def forward(self, task: Task) -> Callable[[], Any]:
        return partial(np.maximum, task.x, 0, out=task.out)

    predict = forward


class TextbookNumpy(Competitor):
    """NumPy as courses teach it: cs231n's `U = (np.random.rand(*H.shape) < p) / p`."""

    name = "NumPy, textbook"

    def forward(self, task: Task) -> Callable[[], Any]:
        x, p = task.x, task.keep_prob

        def call() -> NDArray[Any]:
            h = np.maximum(0, x)
            u = (np.random.rand(*h.shape) < p) / p  # noqa: NPY002
            h *= u
            return h

        return call

    def backward(self, task: Task) -> Callable[[], Any]:
        x, p = task.x, task.keep_prob
        u = ((np.random.rand(*x.shape) < p) / p).astype(x.dtype)  # noqa: NPY002
        h = np.maximum(0, x)

        def call() -> NDArray[Any]:
            dh = x * u
            dh[h <= 0] = 0
            return dh

        return call

    def predict(self, task: Task) -> Callable[[], Any]:
        return partial(np.maximum, 0, task.x)

    def mask(self, task: Task) -> Callable[[], Any]:
        return lambda: np.random.rand(*task.x.shape) < task.keep_prob  # noqa: NPY002


class BestNumpy(Competitor):
    """The best NumPy code that uses NumPy's own uniforms: its fastest generator, and no temporaries.

    Parts that fit in the first-level cache were slower, at 16 Ki, 256 Ki and 16 Mi elements.
    """

    name = "NumPy, best"

    def draw(self, task: Task) -> Callable[[], NDArray[np.bool_]]:
        random, u, kept = np.random.Generator(np.random.SFC64(SEED)).random, task.uniforms, task.flags
        p = task.dtype.type(task.keep_prob)

        def call() -> NDArray[np.bool_]:
            random(out=u, dtype=u.dtype)
            return np.less(u, p, out=kept)

        return call

    def forward(self, task: Task) -> Callable[[], Any]:
        x, out, scale, draw = task.x, task.out, task.scale, self.draw(task)

        def call() -> NDArray[Any]:
            kept = draw()
            np.maximum(x, 0, out=out)
            np.multiply(out, scale, out=out)
            return np.multiply(out, kept, out=out)

        return call

    def backward(self, task: Task) -> Callable[[], Any]:
        factors = (self.draw(task)() & (task.x > 0)) * task.scale
        return partial(np.multiply, task.x, factors, out=task.out)

    def predict(self, task: Task) -> Callable[[], Any]:
        return partial(np.maximum, task.x, 0, out=task.out)

    def mask(self, task: Task) -> Callable[[], Any]:
        return self.draw(task)


class TorchEager(Competitor):
    """PyTorch: `dropout(relu(x))`, one operator at a time."""

    name = "PyTorch eager"
    needs = ("torch",)

    def enter(self) -> None:
        import torch

        torch.set_num_threads(1)

    def step(self) -> Callable[[Any, float], Any]:
        import torch.nn.functional as F

        return lambda x, rate: F.dropout(F.relu(x), rate)

    def forward(self, task: Task) -> Callable[[], Any]:
        import torch

        self.enter()
        step, x, rate = self.step(), torch.from_numpy(task.x), task.rate

        def call() -> Any:
            with torch.no_grad():
                return step(x, rate)

        return call

    def backward(self, task: Task) -> Callable[[], Any]:
        import torch

        self.enter()
        x = torch.from_numpy(task.x).requires_grad_()
        dy = torch.from_numpy(task.x)
        y = self.step()(x, task.rate)
        return lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0]

    def predict(self, task: Task) -> Callable[[], Any]:
        import torch

        x, out = torch.from_numpy(task.x), torch.from_numpy(task.out)
        return lambda: torch.clamp_min(x, 0, out=out)

    def mask(self, task: Task) -> Callable[[], Any]:
        import torch

        kept, p = torch.from_numpy(task.flags), task.keep_prob
        return lambda: kept.bernoulli_(p)


def as_array(result: Any) -> NDArray[Any]:
    """Return the result of a call as a NumPy array."""
    if isinstance(result, tuple):
        result = result[0]
    return result.to_array() if isinstance(result, fd.Mask) else np.asarray(result)


def present(competitors: list[Competitor]) -> tuple[list[Competitor], list[str]]:
    """Return the competitors that can take part, and why the others cannot."""
    reasons = {competitor.name: competitor.missing() for competitor in competitors}
    absent = [f"{name} is skipped: {reason}" for name, reason in reasons.items() if reason]
    return [competitor for competitor in competitors if not reasons[competitor.name]], absent


def entered(competitors: list[Competitor], task: Task) -> dict[str, Trial]:
    """Return the calls of those competitors that offer the operation of the task."""
    trials = {}
    for competitor in competitors:
        if competitor.offers(task.case):
            competitor.enter()
            trials[competitor.name] = competitor.trial(task)
    return trials


