"""The ways in which the demo trains a network: no dropout, ours, the usual NumPy code, and the reference."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdrop import reference
from fastdrop.formulas import MODES
from fastdrop.layers import ReLUDropout
from fastdrop.stream import Stream

NO_DROPOUT = "no dropout"
TEXTBOOK = "inverted, plain NumPy"
ON_REFERENCE = ", reference"
WAYS = (NO_DROPOUT, "vanilla", "inverted", TEXTBOOK)
REFERENCES = tuple(mode + ON_REFERENCE for mode in MODES)

class TextbookReLUDropout:
    """Inverted dropout as it is usually written in NumPy."""

    def __init__(self, keep_prob: float, rng: np.random.Generator) -> None:
        self.keep_prob, self.rng = keep_prob, rng
        self.training = True

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        h = np.maximum(x, 0)
        if self.training:
            self.passed = x > 0
            self.scaled_mask = (self.rng.random(h.shape) < self.keep_prob) / self.keep_prob
            h *= self.scaled_mask
        return h

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        dx = dy * self.passed
        dx *= self.scaled_mask
        return dx


class ReferenceReLUDropout(ReLUDropout):
    """The layer, with the calls of the NumPy reference."""

    _forward: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout_backward)
    _predict: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout_predict)


class Timed:
    """An activation, and the time spent in it since `taken` was last called."""

    def __init__(self, activation: Any) -> None:
        self.activation = activation
        self.seconds = 0.0

    @property
    def training(self) -> bool:
        return bool(self.activation.training)

    @training.setter
    def training(self, training: bool) -> None:
        self.activation.training = training

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._timed(self.activation, x)

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        return self._timed(self.activation.backward, dy)

    def _timed(self, call: Callable[[NDArray[Any]], NDArray[Any]], x: NDArray[Any]) -> NDArray[Any]:
        start = perf_counter()
        y = call(x)
        self.seconds += perf_counter() - start
        return y

    def taken(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def activations_of(way: str, keep_prob: float, seed: int) -> list[Timed]:
    """Return the two activations of a network, for one of the `WAYS` or for the reference."""
    streams = Stream(seed).spawn(2)
    if way == NO_DROPOUT:
        return [Timed(ReLUDropout(keep_prob=1.0, rng=stream)) for stream in streams]
    if way == TEXTBOOK:
        generator = np.random.default_rng(seed)
        return [Timed(TextbookReLUDropout(keep_prob, generator)) for _ in streams]
    layer = ReferenceReLUDropout if way.endswith(ON_REFERENCE) else ReLUDropout
    mode: Any = way.removesuffix(ON_REFERENCE)
    return [Timed(layer(keep_prob=keep_prob, mode=mode, rng=stream)) for stream in streams]
