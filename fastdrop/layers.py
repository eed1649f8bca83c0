"""Layers: dropout that remembers its mask between a forward and a backward call."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import checks, functional
from fastdrop.checks import Axes
from fastdrop.foreign import base_array
from fastdrop.formulas import Mode
from fastdrop.mask import Mask
from fastdrop.noise import GaussianNoise
from fastdrop.stream import RNG, Stream, StreamRows, as_lasting_source

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing from Python 3.11 on


class _Layer:
    """What every layer has: a keep probability, a stream that goes on, a memory of the last call.

    A layer has the settings that mean something to it, and no others: to set another is an error.
    """

    __slots__ = ("__weakref__", "_keep_prob", "_mask", "_rng", "training")

    # The calls at prediction and for the gradient.
    _predict: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_predict)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_backward)

    training: bool

    def __init__(self, keep_prob: float, *, rng: RNG = None) -> None:
        self.keep_prob = keep_prob
        self.rng = rng  # type: ignore[assignment]  # the setter makes a Stream of it
        self.training = True
        self._mask: Any = None

    @property
    def keep_prob(self) -> float:
        """The probability that an element is kept."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float) -> None:
        self._keep_prob = checks.keep_probability(value)

    @property
    def rng(self) -> Stream | StreamRows:
        """The stream that the next training call goes on with."""
        return self._rng

    @rng.setter
    def rng(self, value: RNG) -> None:
        self._rng = as_lasting_source(value)

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
            y, self._mask = self._train(x, out)
        else:
            y = self._evaluate(x, out)
            self._mask = None  # a gradient with the mask of an older call would be wrong in silence
        return y

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        """The result, and what `backward` needs."""
        raise NotImplementedError

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, self.keep_prob, out=out)

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

    def __getstate__(self) -> dict[str, Any]:
        names = [name for name in copyreg._slotnames(type(self)) if hasattr(self, name)]  # type: ignore[attr-defined]
        return {name: getattr(self, name) for name in names} | getattr(self, "__dict__", {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # a setting through its check
            setting = name.removeprefix("_")
            is_set = getattr(getattr(type(self), setting, None), "fset", None)
            setattr(self, setting if is_set else name, value)

    def _settings(self) -> dict[str, Any]:
        """What is shown beside the keep probability."""
        return {}

    def _dropped(self) -> str:
        """The share that is dropped: it shows a rate passed as keep_prob, which no check can."""
        return f", {100 * (1 - self.keep_prob):.3g} % dropped"

    def __repr__(self) -> str:
        settings = {"keep_prob": self.keep_prob, **self._settings(), "rng": self.rng}
        shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        state = "training" if self.training else "evaluation"
        return f"{type(self).__name__}({shown}, {state}{self._dropped()})"


class _WithMask:
    """A layer whose memory of the last call is a mask."""

    __slots__ = ()
    _mask: Any

    @property
    def mask(self) -> Mask | None:
        """What the last training call kept; None before it, and after a prediction."""
        return self._mask


class _WithMode:
    """A layer that scales either in training or at prediction."""

    __slots__ = ()
    _mode: Mode

    @property
    def mode(self) -> Mode:
        """``"inverted"`` or ``"vanilla"``."""
        return self._mode

    @mode.setter
    def mode(self, value: Mode) -> None:
        self._mode = checks.dropout_mode(value)  # type: ignore[misc]  # a slot of the whole layer


class _WithSharedAxes:
    """A layer whose elements may share a decision along some axes."""

    __slots__ = ()
    _broadcast_dims: Axes

    @property
    def broadcast_dims(self) -> Axes:
        """Axes along which elements share one draw."""
        return self._broadcast_dims

    @broadcast_dims.setter
    def broadcast_dims(self, value: Axes) -> None:
        axes = tuple(value) if isinstance(value, Iterable) else value
        checks.shared_axes(axes, checks.MOST_AXES)  # those of an input are known at a call
        self._broadcast_dims = axes  # type: ignore[misc]  # a slot of the whole layer


class Dropout(_WithMask, _WithMode, _WithSharedAxes, _Layer):
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
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one draw: ``(2, 3)`` drops whole channels of images.
    rng : None, int, SeedSequence, Generator or Stream, optional
        Where the randomness comes from. Whatever it is, the layer makes one `Stream` of it, which
        goes on from call to call. Layers with the same integer drop the same elements, so give
        the layers of a network one shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, mode, broadcast_dims, rng
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

    __slots__ = ("_broadcast_dims", "_mode")

    _forward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout)

    def __init__(
        self, keep_prob: float, *, mode: Mode = "inverted", broadcast_dims: Axes = (), rng: RNG = None
    ) -> None:
        super().__init__(keep_prob, rng=rng)
        self.mode = mode
        self.broadcast_dims = broadcast_dims

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return self._forward(
            x, self.keep_prob, mode=self.mode, broadcast_dims=self.broadcast_dims, rng=self.rng, out=out
        )

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, self.keep_prob, mode=self.mode, out=out)

    def _settings(self) -> dict[str, Any]:
        shared = {} if self.broadcast_dims == () else {"broadcast_dims": self.broadcast_dims}
        return {"mode": self.mode, **shared}


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

    __slots__ = ()

    _forward: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout_backward)
    _predict: ClassVar[Callable[..., Any]] = staticmethod(functional.relu_dropout_predict)


class DropoutAdd(Dropout):
    """Dropout, then a residual connection: ``layer(x, residual)`` in one pass.

    Everything else is as in `Dropout`; the gradient of the residual is that of the result.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import DropoutAdd
    >>> layer = DropoutAdd(keep_prob=0.5, rng=42)
    >>> layer(np.ones(4), np.full(4, 10.0))
    array([12., 10., 12., 12.])
    >>> layer.backward(np.ones(4))
    array([2., 0., 2., 2.])
    >>> layer.eval()(np.ones(4), np.full(4, 10.0))
    array([11., 11., 11., 11.])
    """

    __slots__ = ()

    def __call__(  # type: ignore[override]
        self, x: ArrayLike, residual: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """``residual`` plus dropout of `x` in training, plus its prediction in evaluation.

        Parameters
        ----------
        x, residual : array_like
            Of one shape and dtype.
        out : ndarray, optional
            Where to put the result; `x` or `residual` itself is fine.

        Returns
        -------
        ndarray
            Of the shape and dtype of `x`.
        """
        if self.training:
            y, self._mask = functional.dropout_add(
                x, residual, self.keep_prob, mode=self.mode, broadcast_dims=self.broadcast_dims,
                rng=self.rng, out=out,
            )  # fmt: skip
        else:
            y = functional.dropout_add_predict(x, residual, self.keep_prob, mode=self.mode, out=out)
            self._mask = None
        return y


class AlphaDropout(_WithMask, _WithSharedAxes, _Layer):
    """Alpha dropout as a layer, after SELU: mean and variance stay; in evaluation nothing happens.

    Parameters
    ----------
    keep_prob, broadcast_dims, rng
        As in `Dropout`. With `broadcast_dims`, whole features.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import AlphaDropout
    >>> layer = AlphaDropout(keep_prob=0.5, rng=42)
    >>> layer(np.ones(4)).round(2)
    array([ 1.67, -0.78,  1.67,  1.67])

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017.
    """

    __slots__ = ("_broadcast_dims",)

    def __init__(self, keep_prob: float, *, broadcast_dims: Axes = (), rng: RNG = None) -> None:
        super().__init__(keep_prob, rng=rng)
        self.broadcast_dims = broadcast_dims

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.alpha_dropout(
            x, self.keep_prob, broadcast_dims=self.broadcast_dims, rng=self.rng, out=out
        )

    def _settings(self) -> dict[str, Any]:
        return {} if self.broadcast_dims == () else {"broadcast_dims": self.broadcast_dims}


class GaussianDropout(_Layer):
    """Gaussian dropout as a layer: noise of mean 1 in training, nothing in evaluation.

    Parameters
    ----------
    keep_prob : float
        The noise has the variance ``(1 - keep_prob) / keep_prob``, that of dropout with this
        probability; in (0, 1].
    rng : None, int, SeedSequence, Generator or Stream, optional
        As in `Dropout`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import GaussianDropout
    >>> layer = GaussianDropout(keep_prob=0.5, rng=42)
    >>> y = layer(np.ones(4))
    >>> bool((layer.backward(np.ones(4)) == y).all())
    True
    >>> layer.eval()(np.ones(4))
    array([1., 1., 1., 1.])

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014, section 10.
    """

    __slots__ = ()

    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.gaussian_dropout_backward)

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.gaussian_dropout(x, self.keep_prob, rng=self.rng, out=out)

    @property
    def keep_prob(self) -> float:
        """The probability that dropout of the same variance would keep an element with."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float) -> None:
        self._keep_prob = checks.noise_probability(value)

    @property
    def noise(self) -> GaussianNoise | None:
        """What the last training call multiplied by; None before it, and after a prediction."""
        return self._mask

    def _dropped(self) -> str:
        return ""


class DropConnect(_WithMask, _WithMode, _Layer):
    """A linear layer, some of whose weights are dropped at every training call.

    ``y = x @ dropout(weights) + bias``. All rows of `x` see the same weights. Between the calls the
    layer keeps one bit a weight and a reference to `x`.

    Parameters
    ----------
    weights : ndarray of float32 or float64, shape (inputs, outputs)
        Used as they are, not copied, so that a training loop may update them in place.
    keep_prob : float
        The probability that a weight is kept, in [0, 1].
    bias : ndarray, shape (outputs,), optional
        Never dropped.
    mode : {"inverted", "vanilla"}, default "inverted"
        As in `Dropout`.
    rng : None, int, SeedSequence, Generator or Stream, optional
        As in `Dropout`.

    Attributes
    ----------
    weights, bias
        As above.
    weights_gradient, bias_gradient : ndarray or None
        The gradients that the last `backward` call has found.

    Notes
    -----
    Prediction uses the weights' average, as `Dropout` does; the paper samples from a normal
    distribution with the average's first two moments instead.

    References
    ----------
    L. Wan, M. Zeiler, S. Zhang, Y. LeCun, R. Fergus, "Regularization of neural networks using
    DropConnect", ICML, 2013.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import DropConnect
    >>> layer = DropConnect(np.ones((4, 2)), keep_prob=0.5, rng=42)
    >>> layer(np.ones((1, 4)))
    array([[6., 4.]])
    >>> layer.backward(np.ones((1, 2)))
    array([[2., 4., 0., 4.]])
    >>> layer.weights_gradient
    array([[2., 0.],
           [2., 2.],
           [0., 0.],
           [2., 2.]])
    >>> layer.eval()(np.ones((1, 4)))
    array([[4., 4.]])
    """

    __slots__ = ("_mode", "_x", "bias", "bias_gradient", "weights", "weights_gradient")

    def __init__(
        self,
        weights: NDArray[Any],
        keep_prob: float,
        *,
        bias: NDArray[Any] | None = None,
        mode: Mode = "inverted",
        rng: RNG = None,
    ) -> None:
        super().__init__(keep_prob, rng=rng)
        self.mode = mode
        self.weights = checks.elements("weights", weights)
        if self.weights.ndim != 2:
            raise ValueError(f"weights must have shape (inputs, outputs), got {self.weights.shape}")
        self.bias = bias
        self.weights_gradient: NDArray[Any] | None = None
        self.bias_gradient: NDArray[Any] | None = None
        self._x: NDArray[Any] | None = None

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.dropout(x, self.keep_prob, mode=self.mode, rng=self.rng, out=out)

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, self.keep_prob, mode=self.mode, out=out)

    def _settings(self) -> dict[str, Any]:
        return {"mode": self.mode}

    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """``x @ weights + bias``, with weights dropped in training.

        Parameters
        ----------
        x : array_like, shape (..., inputs)
            The input.
        out : ndarray, shape (..., outputs), optional
            Where to put the result.

        Returns
        -------
        ndarray, shape (..., outputs)
        """
        x = base_array("x", x)
        if x.ndim == 0 or x.shape[-1] != len(self.weights):
            raise ValueError(f"x must have shape (..., {len(self.weights)}), got {x.shape}")
        y = self._result(x, out)  # what can fail comes before weights are drawn
        bias = apart(y, self.bias)
        kept = apart(y, x) if self.training else None
        weights = super().__call__(self.weights)
        self._x = kept
        np.matmul(x, weights, out=y)
        if bias is not None:
            y += bias
        return y

    def _result(self, x: NDArray[Any], out: Any) -> NDArray[Any]:
        """The array to write to, if the product and the bias can be written there."""
        shape = (*x.shape[:-1], self.weights.shape[1])
        if out is not None and not isinstance(out, np.ndarray):
            raise TypeError(f"out must be a numpy.ndarray, got {type(out).__name__}")
        if out is not None and (out.shape != shape or not out.flags.writeable):
            raise ValueError(f"out must be writable and have shape {shape}, got {out.shape}")
        no_rows = None if out is None else np.empty((0, shape[-1]), out.dtype)
        no_rows = np.matmul(np.empty((0, x.shape[-1]), x.dtype), self.weights, out=no_rows)
        if self.bias is not None:
            if base_array("bias", self.bias).shape != shape[-1:]:
                raise ValueError(f"bias must have shape {shape[-1:]}, got {np.shape(self.bias)}")
            no_rows += self.bias
        return np.empty(shape, no_rows.dtype) if out is None else out

    def backward(self, dy: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """The gradient with respect to the input; those of weights and bias become attributes.

        Parameters
        ----------
        dy : array_like, shape (..., outputs)
            The gradient with respect to the output of the last training call.
        out : ndarray, shape (..., inputs), optional
            Where to put the result.

        Returns
        -------
        ndarray, shape (..., inputs)

        Raises
        ------
        RuntimeError
            If the layer has not been called yet, or was last called in evaluation.
        """
        dropped = super().backward(self.weights)  # a mask and a scale, as for a gradient
        dy, x = base_array("dy", dy), self._x
        assert x is not None
        if dy.shape != (*x.shape[:-1], dropped.shape[1]):
            raise ValueError(f"dy must have shape {(*x.shape[:-1], dropped.shape[1])}, got {dy.shape}")
        count = math.prod(dy.shape[:-1])
        rows = dy.reshape(count, dropped.shape[1])
        full = x.reshape(count, len(dropped)).T @ rows
        self.weights_gradient = super().backward(full, out=full)
        self.bias_gradient = None if self.bias is None else rows.sum(axis=0)
        return np.matmul(dy, dropped.T, out=out)


def apart(y: NDArray[Any], array: Any) -> Any:
    """`array`, or a copy of it where writing `y` may change it."""
    return np.copy(array) if array is not None and np.may_share_memory(y, array) else array
