"""What is timed side by side: the calls of this package, a copy, NumPy and PyTorch.

Each contender is given its best honest form: arrays made and converted beforehand, results
written to an array that is already there wherever its library can do that, and a random state
that moves on at every call (a repeated mask is learnt by the branch predictor).
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
from fastdrop.commands.bench.timing import Contender

OPERATIONS = ("forward", "backward", "predict", "mask")
SEED = 20140614


@dataclass(frozen=True)
class Case:
    """What is computed: an operation of ReLU + dropout, on how many elements."""

    operation: str = "forward"
    size: int = 2**18
    dtype: str = "float32"
    keep_prob: float = 0.9


class Task:
    """A case with its arrays, which all contenders share; those of `like`, where one is given."""

    def __init__(self, case: Case, like: Task | None = None) -> None:
        self.case = case
        self.keep_prob = case.keep_prob
        self.dtype = np.dtype(case.dtype)
        self.rate = 1 - case.keep_prob  # of what is dropped, as most frameworks count
        self.scale = self.dtype.type(1 / case.keep_prob)
        if like is None:
            self.x = np.random.default_rng(SEED).standard_normal(case.size, self.dtype)
            self.out = np.zeros_like(self.x)
        else:
            self.x, self.out = like.x, like.out

    @cached_property
    def uniforms(self) -> NDArray[Any]:
        """Room for a number an element."""
        return np.zeros_like(self.x)

    @cached_property
    def flags(self) -> NDArray[np.bool_]:
        """Room for a decision an element."""
        return np.zeros(self.x.shape, np.bool_)


class Peer:
    """A contender: a method for each operation that it offers, from a task to a call.

    A call returns the array that it computed, or the mask.
    """

    name: str
    needs: tuple[str, ...] = ()  # modules

    def missing(self) -> str:
        """Why this peer cannot take part, or nothing."""
        for module in self.needs:
            try:
                import_module(module)
            except (ImportError, OSError) as reason:  # a library that does not load is an OSError
                return f"{module}: {type(reason).__name__}: {reason}".splitlines()[0]
        return ""

    def offers(self, case: Case) -> bool:
        return hasattr(self, case.operation)

    def enter(self) -> None:
        """What has to be set before its calls."""

    def contender(self, task: Task) -> Contender:
        return Contender(getattr(self, task.case.operation)(task), self.enter)


class Fastdrop(Peer):
    """This package, with one instruction set."""

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
            fd.relu_dropout, task.x, task.keep_prob,
            rng=fd.Stream(SEED), out=self._out(task), return_mask=self.mask_too,
        )  # fmt: skip

    def backward(self, task: Task) -> Callable[[], Any]:
        _, mask = fd.relu_dropout(task.x, task.keep_prob, rng=SEED, out=task.out)
        return partial(fd.relu_dropout_backward, task.x, mask, out=self._out(task))

    def predict(self, task: Task) -> Callable[[], Any]:
        return partial(fd.relu_dropout_predict, task.x, task.keep_prob, out=self._out(task))

    def mask(self, task: Task) -> Callable[[], Any]:
        return partial(fd.keep_mask, task.x.shape, task.keep_prob, rng=fd.Stream(SEED))


class Copy(Peer):
    """The limit that memory sets: as many bytes read and written, nothing computed."""

    name = "copy"

    def forward(self, task: Task) -> Callable[[], Any]:
        return partial(np.copyto, task.out, task.x)

    backward = predict = mask = forward


class Maximum(Peer):
    """The ReLU alone."""

    name = "np.maximum"

    def forward(self, task: Task) -> Callable[[], Any]:
        return partial(np.maximum, task.x, 0, out=task.out)

    predict = forward


class TextbookNumpy(Peer):
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


class BestNumpy(Peer):
    """The best NumPy that keeps NumPy's own uniforms: its fastest generator, and no temporary.

    Cutting the arrays into pieces that fit the first-level cache was slower, at 16 Ki, 256 Ki
    and 16 Mi elements.
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


class TorchEager(Peer):
    """PyTorch: `dropout(relu(x))`, op by op."""

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
    """What a call returned, as a NumPy array."""
    if isinstance(result, tuple):
        result = result[0]
    return result.to_array() if isinstance(result, fd.Mask) else np.asarray(result)


def present(peers: list[Peer]) -> tuple[list[Peer], list[str]]:
    """Those that can take part, and why the others cannot."""
    reasons = {peer.name: peer.missing() for peer in peers}
    absent = [f"{name} is left out: {reason}" for name, reason in reasons.items() if reason]
    return [peer for peer in peers if not reasons[peer.name]], absent


def entered(peers: list[Peer], task: Task) -> dict[str, Contender]:
    """The contenders of those peers that offer the task's operation."""
    contenders = {}
    for peer in peers:
        if peer.offers(task.case):
            peer.enter()
            contenders[peer.name] = peer.contender(task)
    return contenders


