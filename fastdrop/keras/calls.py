"""A layer's call and its derivative on NumPy arrays, for the backends that reach the kernels in Python.

Both are pure functions of their arrays and a seed. The derivative is linear in `dy` and its own transpose,
so the backends have gradients of every order with two functions.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from numpy.typing import NDArray

from fastdrop import functional
from fastdrop.mask import Mask
from fastdrop.stream import Stream

WORD = 64  # bits of each of the two words of a seed


class Call(NamedTuple):
    """What a layer computes: a form of dropout, and the axes along which elements share one decision.

    Only alpha dropout has such axes here. The others multiply by the noise of a smaller call.
    """

    form: str
    rate: float
    shared: tuple[int, ...] = ()

    @property
    def keep_prob(self) -> float:
        return 1.0 - self.rate


def stream(words: Any) -> Stream:
    """Return the stream of a call. Keras's seed has two words: the layer's seed, and how often it was used."""
    first, second = (int(word) % 2**WORD for word in words)
    return Stream(first | second << WORD)


def compute(call: Call, x: NDArray[Any], words: Any, out: NDArray[Any]) -> None:
    """Write the result for `x`."""
    options: dict[str, Any] = {"keep_prob": call.keep_prob, "rng": stream(words), "out": out}
    if call.form != "gaussian_dropout":
        options |= {"broadcast_dims": call.shared, "return_mask": False}
    getattr(functional, call.form)(x, **options)


def differentiate(
    call: Call, dy: NDArray[Any], words: Any, out: NDArray[Any], y: NDArray[Any] | None = None
) -> None:
    """Write the gradient for the input. After a ReLU it needs the output `y`."""
    if call.form == "relu_dropout":
        assert y is not None
        functional.relu_dropout_backward(dy, y, keep_prob=call.keep_prob, mode="inverted", out=out)
    elif call.form == "alpha_dropout":
        kept = functional.keep_mask(
            dy.shape, keep_prob=call.keep_prob, broadcast_dims=call.shared, rng=stream(words)
        )
        mask = Mask(kept.bits, kept.shape, keep_prob=call.keep_prob, mode="alpha")
        functional.alpha_dropout_backward(dy, mask, out=out)
    else:
        compute(call, dy, words, out)
