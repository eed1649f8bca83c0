"""Layers: dropout that remembers its mask between a forward and a backward call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from numpy.typing import ArrayLike, NDArray

from fastdrop import arguments, functional
from fastdrop.arguments import Mode
from fastdrop.mask import Mask
from fastdrop.stream import RNG, Stream, as_stream

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


class Dropout:
    """Dropout as a layer of a network.

    Called in training, it drops elements and remembers which, at one bit an element, for
    `backward`; called in evaluation, it predicts.

    Parameters
    ----------
    keep_prob : float
        The probability that an element is **kept**, in [0, 1]: one minus what Keras and PyTorch
        call the rate.
    mode : {"inverted", "vanilla"}, default "inverted"
        Whether kept elements are scaled by ``1 / keep_prob`` in training, or all elements by
        ``keep_prob`` at prediction.
    rng : None, int, SeedSequence, Generator or Stream, optional
        Where the randomness comes from. Whatever it is, the layer makes one `Stream` of it, which
        goes on from call to call. Layers with the same integer drop the same elements, so give
        the layers of a network one shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, mode, rng
        As above; each may be set between calls, and a bad value is refused there and then.
    training : bool
        Whether a call drops elements; true at first. `train` and `eval` set it.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import Dropout
    >>> layer = Dropout(keep_prob=0.5, rng=42)
    >>> layer(np.ones(4))
    array([2., 0., 2., 2.])
    >>> layer.backward(np.ones(4))
    array([2., 0., 2., 2.])
    >>> layer.eval()(np.ones(4))
    array([1., 1., 1., 1.])
    >>> layer
    Dropout(keep_prob=0.5, mode='inverted', rng=Stream(seed=42, offset=4), evaluation, 50 % dropped)

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.
    """

    # The three calls that the layer is made of.
    _forward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_backward)
    _predict: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_predict)

    def __init__(self, keep_prob: float, *, mode: Mode = "inverted", rng: RNG = None) -> None:
        self.keep_prob = keep_prob
        self.mode = mode
        self.rng = rng  # type: ignore[assignment]  # the setter makes a Stream of it
        self.training = True
        self._mask: Mask | None = None

    @property
    def keep_prob(self) -> float:
        """The probability that an element is kept."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float) -> None:
        self._keep_prob = arguments.keep_probability(value)

    @property
    def mode(self) -> Mode:
        """``"inverted"`` or ``"vanilla"``."""
        return self._mode

    @mode.setter
    def mode(self, value: Mode) -> None:
        self._mode = arguments.dropout_mode(value)

    @property
    def rng(self) -> Stream:
        """The stream that the next training call goes on with."""
        return self._rng

    @rng.setter
    def rng(self, value: RNG) -> None:
        self._rng = as_stream(value)

    @property
    def mask(self) -> Mask | None:
        """What the last training call kept; None before it, and after a prediction."""
        return self._mask

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Dropout of `x` in training, its prediction in evaluation.

        Parameters
        ----------
        x : array_like of float32 or float64
            The input, of any shape.
        out : ndarray, optional
            Where to put the result; `x` itself is fine.

        Returns
        -------
        ndarray
            Of the shape and dtype of `x`.
        """
        if self.training:
            y, self._mask = self._forward(x, self.keep_prob, mode=self.mode, rng=self.rng, out=out)
        else:
            y = self._predict(x, self.keep_prob, mode=self.mode, out=out)
            self._mask = None  # a gradient with the mask of an older call would be wrong in silence
        return y

    def backward(self, dy: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The gradient with respect to the input of the last training call.

        Parameters
        ----------
        dy : array_like of float32 or float64
            The gradient with respect to its output.
        out : ndarray, optional
            Where to put the result; `dy` itself is fine.

        Returns
        -------
        ndarray
            Of the shape and dtype of `dy`.

        Raises
        ------
        RuntimeError
            If the layer has not been called yet, or was last called in evaluation.
        """
        if self._mask is None:
            raise RuntimeError(
                f"backward needs the mask of a call in training, got none: call {type(self).__name__} "
                "with training=True first, and predict with it only after the backward call"
            )
        return self._backward(dy, self._mask, out=out)

    def train(self, training: bool = True) -> Self:
        """Drop from now on (or not, with False); returns the layer."""
        self.training = bool(training)
        return self

    def eval(self) -> Self:
        """Predict from now on; returns the layer."""
        return self.train(False)

    def __repr__(self) -> str:
        # The share that is dropped shows a rate passed as keep_prob, which no check can.
        return (
            f"{type(self).__name__}(keep_prob={self.keep_prob}, mode={self.mode!r}, rng={self.rng!r}, "
            f"{'training' if self.training else 'evaluation'}, {100 * (1 - self.keep_prob):.3g} % dropped)"
        )


class ReLUDropout(Dropout):
    """ReLU, then dropout, as one layer in one pass; everything else is as in `Dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import ReLUDropout
    >>> layer = ReLUDropout(keep_prob=0.5, rng=42)
    >>> layer(np.array([-1.0, 1.0, 2.0, 3.0]))
    array([0., 0., 4., 6.])
    >>> layer.backward(np.ones(4))
    array([0., 0., 2., 2.])
    """

    _forward: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout_backward)
    _predict: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout_predict)
