"""Layers: dropout that keeps its mask from a forward call to the backward call."""

from __future__ import annotations

import copyreg
import math
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastdrop import checks, functional
from fastdrop.checks import Axes
from fastdrop.core.call import explained
from fastdrop.foreign import base_array
from fastdrop.formulas import Mode
from fastdrop.mask import Mask
from fastdrop.noise import GaussianNoise
from fastdrop.stream import RNG, Stream, StreamRows, as_lasting_source

_L = TypeVar("_L", bound="_Layer")  # typing has Self from Python 3.11 on


__all__ = ["AlphaDropout", "DropConnect", "Dropout", "DropoutAdd", "GaussianDropout", "ReLUDropout"]


class _Layer:
    """The common part of all layers: a keep probability, a stream, and the mask of the last call.

    A layer has only the settings that it uses. Setting another one is an error.
    """

    __slots__ = ("__weakref__", "_keep_prob", "_mask", "_rng", "training")

    # The calls for prediction and for the gradient, and the check of a keep probability.
    _predict: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_predict)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout_backward)
    _probability: ClassVar[Callable[..., float]] = staticmethod(checks.keep_probability)

    training: bool

    @explained
    def __init__(self, *, keep_prob: float, rng: RNG = None) -> None:
        self.keep_prob = keep_prob
        self.rng = rng  # type: ignore[assignment]  # the setter makes a Stream of it
        self.training = True
        self._mask: Any = None

    @property
    def keep_prob(self) -> float:
        """The probability that an element is kept. Gaussian noise has the variance of inverted dropout with it."""
        return self._keep_prob

    @keep_prob.setter
    def keep_prob(self, value: float) -> None:
        self._keep_prob = self._probability(value)

    @property
    def rng(self) -> Stream | StreamRows:
        """The stream that the next training call draws from."""
        return self._rng

    @rng.setter
    def rng(self, value: RNG) -> None:
        self._rng = as_lasting_source(value)

    @explained
    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Apply the layer: drop elements in training, predict in evaluation.

        Parameters
        ----------
        x : array_like of float32, float64, float16 or bfloat16, any shape
            The input, with any strides and byte order; it may be read-only.
        out : ndarray, shape and dtype of `x`, optional
            The array to write the result to. ``out=x`` works in place.

        Returns
        -------
        ndarray, shape and dtype of `x`
            The result; it is `out` where that was given.

        Raises
        ------
        TypeError
            If `x` or `out` has a type or dtype that is not accepted.
        ValueError
            If a shape is not accepted, or the stream has too few positions left. A call that raises
            has written nothing to `out` and changed neither the stream nor the mask.
        """
        if self.training:
            y, self._mask = self._train(x, out)
        else:
            y = self._evaluate(x, out)
            self._mask = None  # backward must not use the mask of an older call
        return y

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        """Return the result of a training call, and what `backward` needs."""
        raise NotImplementedError

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, keep_prob=self.keep_prob, out=out)

    def backward(self, dy: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Compute the gradient with respect to the input of the last training call.

        Parameters
        ----------
        dy : array_like of float32, float64, float16 or bfloat16, shape of that input
            The gradient with respect to the output of that call.
        out : ndarray, shape and dtype of `dy`, optional
            The array to write the gradient to. ``out=dy`` works in place.

        Returns
        -------
        ndarray, shape and dtype of `dy`
            The gradient; it is `out` where that was given.

        Raises
        ------
        RuntimeError
            If the layer has not been called yet, or was last called in evaluation.
        TypeError
            If `dy` or `out` has a type or dtype that is not accepted.
        ValueError
            If the shapes differ. A call that raises has written nothing to `out`.
        """
        if self._mask is None:
            raise RuntimeError(
                f"backward needs the mask of a call in training, got none: call the {type(self).__name__} "
                "in training first (train() ends eval()), and predict with it only after the backward call"
            )
        return self._backward(dy, self._mask, out=out)

    def train(self: _L, training: bool = True) -> _L:
        """Switch to training, where calls drop elements, and return the layer.

        Parameters
        ----------
        training : bool, default True
            False switches to evaluation instead.

        Returns
        -------
        layer
            The layer itself.
        """
        self.training = bool(training)
        return self

    def eval(self: _L) -> _L:
        """Switch to evaluation, where calls predict and drop nothing, and return the layer.

        Returns
        -------
        layer
            The layer itself.
        """
        return self.train(False)

    def __getstate__(self) -> dict[str, Any]:
        names = [name for name in copyreg._slotnames(type(self)) if hasattr(self, name)]  # type: ignore[attr-defined]
        return {name: getattr(self, name) for name in names} | getattr(self, "__dict__", {})

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():  # a setting passes its check
            setting = name.removeprefix("_")
            is_set = getattr(getattr(type(self), setting, None), "fset", None)
            setattr(self, setting if is_set else name, value)

    def _settings(self) -> dict[str, Any]:
        """Return the settings that `repr` shows beside the keep probability."""
        return {}

    def _dropped(self) -> str:
        """Return the share that is dropped, which reveals a dropout rate passed as keep_prob."""
        return f", {100 * (1 - self.keep_prob):.3g} % dropped"

    def __repr__(self) -> str:
        settings = {"keep_prob": self.keep_prob, **self._settings(), "rng": self.rng}
        shown = ", ".join(f"{name}={value!r}" for name, value in settings.items())
        state = "training" if self.training else "evaluation"
        return f"{type(self).__name__}({shown}, {state}{self._dropped()})"


class _WithMask:
    """A layer that keeps a mask of the last call."""

    __slots__ = ()
    _mask: Any

    @property
    def mask(self) -> Mask | None:
        """What the last training call kept; None before it and after a prediction."""
        return self._mask


class _WithMode:
    """A layer that scales either in training or at prediction."""

    __slots__ = ()
    _mode: Mode

    @property
    def mode(self) -> Mode:
        """Where the layer scales: ``"inverted"`` in training, ``"vanilla"`` at prediction."""
        return self._mode

    @mode.setter
    def mode(self, value: Mode) -> None:
        self._mode = checks.dropout_mode(value)  # type: ignore[misc]  # a slot of the whole layer


class _WithSharedAxes:
    """A layer whose elements can share decisions along some axes."""

    __slots__ = ()
    _broadcast_dims: Axes

    @property
    def broadcast_dims(self) -> Axes:
        """The axes along which elements share one decision."""
        return self._broadcast_dims

    @broadcast_dims.setter
    def broadcast_dims(self, value: Axes) -> None:
        axes = tuple(value) if isinstance(value, Iterable) else value
        checks.shared_axes(axes, checks.MOST_AXES)  # a call checks them against its input
        self._broadcast_dims = axes  # type: ignore[misc]  # a slot of the whole layer


class Dropout(_WithMask, _WithMode, _WithSharedAxes, _Layer):
    """Dropout as a layer of a network.

    In training, a call computes ``y = scale * x`` for a kept element and ``+0`` for a dropped one, and
    keeps the mask, one bit per element, for `backward`. In evaluation, a call predicts and drops
    nothing. The input is an array_like of float32, float64, float16 or bfloat16 with any shape.

    Parameters
    ----------
    keep_prob : float
        The probability that an element is **kept**, in [0, 1], exact to ``2**-64``. It is one minus
        the dropout rate of Keras and PyTorch.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``1 / keep_prob`` in training. ``"vanilla"``
        multiplies all elements by `keep_prob` at prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision: ``(2, 3)`` drops whole channels of images.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, mode, broadcast_dims, rng
        The parameters. Each can be set between calls; a bad value is refused at once.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    mask : Mask or None
        What the last training call kept, with one bit per element; None before it and after a
        prediction.

    Raises
    ------
    TypeError
        If a parameter is missing, unknown, or has a type that is not accepted.
    ValueError
        If a parameter has a value that is not accepted.

    See Also
    --------
    ReLUDropout : ReLU and dropout in one pass.
    fastdrop.dropout : The call that the layer makes.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

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
    """

    __slots__ = ("_broadcast_dims", "_mode")

    _forward: ClassVar[Callable[..., Any]] = staticmethod(functional.dropout)

    @explained
    def __init__(
        self, *, keep_prob: float, mode: Mode = "inverted", broadcast_dims: Axes = (), rng: RNG = None
    ) -> None:
        super().__init__(keep_prob=keep_prob, rng=rng)
        self.mode = mode
        self.broadcast_dims = broadcast_dims

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return self._forward(
            x, keep_prob=self.keep_prob, mode=self.mode, broadcast_dims=self.broadcast_dims, rng=self.rng,
            out=out,
        )  # fmt: skip

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, keep_prob=self.keep_prob, mode=self.mode, out=out)

    def _settings(self) -> dict[str, Any]:
        shared = {} if self.broadcast_dims == () else {"broadcast_dims": self.broadcast_dims}
        return {"mode": self.mode, **shared}


class ReLUDropout(Dropout):
    """ReLU and then dropout as one layer of a network, in one pass.

    In training, a call computes ``y = scale * relu(x)`` for a kept element and ``+0`` for a dropped
    one, and keeps the mask, one bit per element, for `backward`. In evaluation, a call computes the
    ReLU and drops nothing. The input is an array_like of float32, float64, float16 or bfloat16 with
    any shape.

    Parameters
    ----------
    keep_prob : float
        The probability that an element is **kept**, in [0, 1], exact to ``2**-64``. It is one minus
        the dropout rate of Keras and PyTorch.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``1 / keep_prob`` in training. ``"vanilla"``
        multiplies all elements by `keep_prob` at prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision: ``(2, 3)`` drops whole channels of images.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, mode, broadcast_dims, rng
        The parameters. Each can be set between calls; a bad value is refused at once.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    mask : Mask or None
        Where the last training call kept an element that the ReLU passed, with one bit per
        element; None before it and after a prediction.

    Raises
    ------
    TypeError
        If a parameter is missing, unknown, or has a type that is not accepted.
    ValueError
        If a parameter has a value that is not accepted.

    See Also
    --------
    Dropout : Dropout without the ReLU.
    fastdrop.relu_dropout : The call that the layer makes.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

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
    """Dropout and then a residual connection as one layer of a network, in one pass.

    In training, ``layer(x, residual)`` computes ``y = residual + dropout(x)`` and keeps the mask, one
    bit per element, for `backward`. In evaluation, nothing is dropped. The inputs are array_like of
    float32, float64, float16 or bfloat16, with one shape and dtype. The gradient with respect to the
    residual is the gradient with respect to the result.

    Parameters
    ----------
    keep_prob : float
        The probability that an element is **kept**, in [0, 1], exact to ``2**-64``. It is one minus
        the dropout rate of Keras and PyTorch.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``1 / keep_prob`` in training. ``"vanilla"``
        multiplies all elements by `keep_prob` at prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision: ``(2, 3)`` drops whole channels of images.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, mode, broadcast_dims, rng
        The parameters. Each can be set between calls; a bad value is refused at once.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    mask : Mask or None
        What the last training call kept, with one bit per element; None before it and after a
        prediction.

    Raises
    ------
    TypeError
        If a parameter is missing, unknown, or has a type that is not accepted.
    ValueError
        If a parameter has a value that is not accepted.

    See Also
    --------
    Dropout : Dropout without the residual.
    fastdrop.dropout_add : The call that the layer makes.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

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

    @explained
    def __call__(  # type: ignore[override]
        self, x: ArrayLike, residual: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> NDArray[Any]:
        """Add dropout of `x` to `residual` in training, and the prediction of `x` in evaluation.

        Parameters
        ----------
        x : array_like of float32, float64, float16 or bfloat16, any shape
            The input, with any strides and byte order; it may be read-only.
        residual : array_like, shape and dtype of `x`
            The array that is added to the result.
        out : ndarray, shape and dtype of `x`, optional
            The array to write the result to. ``out=x`` and ``out=residual`` work in place.

        Returns
        -------
        ndarray, shape and dtype of `x`
            The result; it is `out` where that was given.

        Raises
        ------
        TypeError
            If an array has a type or dtype that is not accepted.
        ValueError
            If a shape is not accepted, or the stream has too few positions left. A call that raises
            has written nothing to `out` and changed neither the stream nor the mask.
        """
        if self.training:
            y, self._mask = functional.dropout_add(
                x, residual, keep_prob=self.keep_prob, mode=self.mode, broadcast_dims=self.broadcast_dims,
                rng=self.rng, out=out,
            )  # fmt: skip
        else:
            y = functional.dropout_add_predict(x, residual, keep_prob=self.keep_prob, mode=self.mode, out=out)
            self._mask = None
        return y


class AlphaDropout(_WithMask, _WithSharedAxes, _Layer):
    """Alpha dropout as a layer of a network, after a SELU.

    In training, a call replaces a dropped element by the negative limit of SELU, and then maps all
    elements so that mean 0 and variance 1 are kept. It keeps the mask, one bit per element, for
    `backward`. In evaluation, a call copies its input.
    The input is an array_like of float32, float64, float16 or bfloat16 with any shape.

    Parameters
    ----------
    keep_prob : float
        The probability that an element is **kept**, 0 or in [2**-126, 1], exact to ``2**-64``. It is
        one minus the dropout rate of Keras and PyTorch.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision, to drop whole features.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, broadcast_dims, rng
        The parameters. Each can be set between calls; a bad value is refused at once.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    mask : Mask or None
        What the last training call kept, with one bit per element; None before it and after a
        prediction.

    Raises
    ------
    TypeError
        If a parameter is missing, unknown, or has a type that is not accepted.
    ValueError
        If a parameter has a value that is not accepted.

    See Also
    --------
    fastdrop.alpha_dropout : The call that the layer makes.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017.

    Examples
    --------
    >>> import numpy as np
    >>> from fastdrop.layers import AlphaDropout
    >>> layer = AlphaDropout(keep_prob=0.5, rng=42)
    >>> layer(np.ones(4)).round(2)
    array([ 1.67, -0.78,  1.67,  1.67])
    """

    __slots__ = ("_broadcast_dims",)

    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.alpha_dropout_backward)
    _probability: ClassVar[Callable[..., float]] = staticmethod(checks.alpha_probability)

    @explained
    def __init__(self, *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None) -> None:
        super().__init__(keep_prob=keep_prob, rng=rng)
        self.broadcast_dims = broadcast_dims

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.alpha_dropout(
            x, keep_prob=self.keep_prob, broadcast_dims=self.broadcast_dims, rng=self.rng, out=out
        )

    def _settings(self) -> dict[str, Any]:
        return {} if self.broadcast_dims == () else {"broadcast_dims": self.broadcast_dims}


class GaussianDropout(_Layer):
    """Gaussian dropout as a layer of a network.

    In training, a call multiplies every element by noise ``n ~ N(1, (1 - keep_prob) / keep_prob)``,
    and keeps a few numbers from which `backward` draws the noise again. In evaluation, a call copies
    its input. The input is an array_like of float32, float64, float16 or bfloat16 with any shape.

    Parameters
    ----------
    keep_prob : float
        Inverted dropout with this keep probability has the same variance. In (0, 1], and at least
        ``2**-126``.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    keep_prob, rng
        The parameters. Each can be set between calls; a bad value is refused at once.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    noise : GaussianNoise or None
        What the last training call multiplied by; None before it and after a prediction.

    Raises
    ------
    TypeError
        If a parameter is missing, unknown, or has a type that is not accepted.
    ValueError
        If a parameter has a value that is not accepted.

    See Also
    --------
    fastdrop.gaussian_dropout : The call that the layer makes.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014, section 10.

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
    """

    __slots__ = ()

    _backward: ClassVar[Callable[..., Any]] = staticmethod(functional.gaussian_dropout_backward)
    _probability: ClassVar[Callable[..., float]] = staticmethod(checks.noise_probability)

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.gaussian_dropout(x, keep_prob=self.keep_prob, rng=self.rng, out=out)

    @property
    def noise(self) -> GaussianNoise | None:
        """What the last training call multiplied by; None before it and after a prediction."""
        return self._mask

    def _dropped(self) -> str:
        return ""


class DropConnect(_WithMask, _WithMode, _Layer):
    """A linear layer that drops some of its weights at every training call.

    In training, a call computes ``y = x @ dropout(weights) + bias``; all rows of `x` see the same
    weights. For `backward` the layer keeps one bit per weight and a reference to `x`. In evaluation,
    nothing is dropped.

    Parameters
    ----------
    weights : ndarray of float32, float64, float16 or bfloat16, shape (inputs, outputs)
        The weights. They are not copied, so a training loop can update them in place.
    keep_prob : float
        The probability that a weight is **kept**, in [0, 1], exact to ``2**-64``.
    bias : ndarray, shape (outputs,), optional
        The array that is added to the product. It is never dropped.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept weights by ``1 / keep_prob`` in training. ``"vanilla"``
        multiplies all weights by `keep_prob` at prediction.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        The source of randomness. The layer makes one `Stream` of it, which advances from call to
        call. Layers with the same int drop the same elements, so give the layers of a network one
        shared `Stream`, or the children that it spawns.

    Attributes
    ----------
    weights, keep_prob, bias, mode, rng
        The parameters. Each can be set between calls. A bad `keep_prob` or `mode` is refused at once, and weights
        or a bias that do not fit are refused by the next call.
    training : bool
        Whether a call drops elements, True at first. `train` and `eval` set it.
    mask : Mask or None
        Which weights the last training call kept; None before it and after a prediction.
    weights_gradient, bias_gradient : ndarray or None
        The gradients that the last `backward` call computed.

    Raises
    ------
    TypeError
        If a parameter has a type or dtype that is not accepted.
    ValueError
        If a parameter has a value or shape that is not accepted.

    See Also
    --------
    Dropout : A layer that drops elements of its input instead.

    Notes
    -----
    Prediction uses the average of the weights. The paper samples instead from a
    normal distribution with the same first two moments.

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

    @explained
    def __init__(
        self,
        weights: NDArray[Any],
        *,
        keep_prob: float,
        bias: NDArray[Any] | None = None,
        mode: Mode = "inverted",
        rng: RNG = None,
    ) -> None:
        super().__init__(keep_prob=keep_prob, rng=rng)
        self.mode = mode
        self.weights: NDArray[Any] = weights
        self._check_weights()
        self.bias: NDArray[Any] | None = bias
        self.weights_gradient: NDArray[Any] | None = None
        self.bias_gradient: NDArray[Any] | None = None
        self._x: NDArray[Any] | None = None

    def _train(self, x: Any, out: Any) -> tuple[NDArray[Any], Any]:
        return functional.dropout(x, keep_prob=self.keep_prob, mode=self.mode, rng=self.rng, out=out)

    def _evaluate(self, x: Any, out: Any) -> NDArray[Any]:
        return self._predict(x, keep_prob=self.keep_prob, mode=self.mode, out=out)

    def _settings(self) -> dict[str, Any]:
        return {"mode": self.mode}

    @explained
    def __call__(self, x: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Compute ``x @ weights + bias``, with weights dropped in training.

        Parameters
        ----------
        x : array_like of a floating dtype, shape (..., inputs)
            The input.
        out : ndarray, shape (..., outputs), optional
            The array to write the result to.

        Returns
        -------
        ndarray, shape (..., outputs)
            The result; it is `out` where that was given.

        Raises
        ------
        TypeError
            If an array has a type or dtype that is not accepted.
        ValueError
            If a shape is not accepted, or the stream has too few positions left. A call that raises
            has written nothing to `out` and changed neither the stream nor the mask.
        """
        x = checks.elements("x", x)
        self._check_weights()
        if x.ndim == 0 or x.shape[-1] != len(self.weights):
            raise ValueError(f"x must have shape (..., {len(self.weights)}), got {x.shape}")
        y = self._result(x, out)  # whatever can fail comes before the weights are dropped
        bias = apart(y, self.bias)
        kept = apart(y, x) if self.training else None
        weights = super().__call__(self.weights)
        self._x = kept
        np.matmul(x, weights, out=y)
        if bias is not None:
            y += bias
        return y if out is None else out

    def _check_weights(self) -> None:
        self.weights = checks.elements("weights", self.weights)
        if self.weights.ndim != 2:
            raise ValueError(f"weights must have shape (inputs, outputs), got {self.weights.shape}")

    def _result(self, x: NDArray[Any], out: Any) -> NDArray[Any]:
        """Return the array to write to. The product and the bias must fit it."""
        shape = (*x.shape[:-1], self.weights.shape[1])
        if out is not None:
            out = self._writable(out, shape)
        no_rows = None if out is None else np.empty((0, shape[-1]), out.dtype)
        no_rows = product(np.empty((0, x.shape[-1]), x.dtype), self.weights, no_rows)
        if self.bias is not None:
            if checks.elements("bias", self.bias).shape != shape[-1:]:
                raise ValueError(f"bias must have shape {shape[-1:]}, got {np.shape(self.bias)}")
            no_rows += self.bias
        return np.empty(shape, no_rows.dtype) if out is None else out

    @staticmethod
    def _writable(out: Any, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return `out` as an exact ndarray of this shape."""
        array = base_array("out", checks.ndarray_out(out))
        if array.shape != shape:
            raise ValueError(f"out must have shape {shape}, got {array.shape}")
        checks.refuse_unwritable(array)
        return array

    def backward(self, dy: ArrayLike, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Compute the gradients; return that of the input, and set those of weights and bias.

        The attributes `weights_gradient` and `bias_gradient` get the latter.

        Parameters
        ----------
        dy : array_like of a floating dtype, shape (..., outputs)
            The gradient with respect to the output of the last training call.
        out : ndarray, shape (..., inputs), optional
            The array to write the gradient to.

        Returns
        -------
        ndarray, shape (..., inputs)
            The gradient with respect to the input; it is `out` where that was given.

        Raises
        ------
        RuntimeError
            If the layer has not been called yet, or was last called in evaluation.
        ValueError
            If a shape is not accepted.
        """
        dropped = super().backward(self.weights)  # the gradient's mask and scale drop the weights again
        dy, x = base_array("dy", dy), self._x
        assert x is not None
        if dy.shape != (*x.shape[:-1], dropped.shape[1]):
            raise ValueError(f"dy must have shape {(*x.shape[:-1], dropped.shape[1])}, got {dy.shape}")
        to = None if out is None else self._writable(out, x.shape)
        count = math.prod(dy.shape[:-1])
        rows = dy.reshape(count, dropped.shape[1])
        full = product(x.reshape(count, len(dropped)).T, rows)
        self.weights_gradient = super().backward(full, out=full)
        self.bias_gradient = None if self.bias is None else column_sums(rows)
        dx = product(dy, dropped.T, to)
        return dx if out is None else out


def product(a: NDArray[Any], b: NDArray[Any], out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return ``a @ b`` in the dtype of its factors. NumPy computes that of bfloat16 in float32."""
    y = np.matmul(a, b, out=out)
    return y if out is not None else y.astype(np.result_type(a.dtype, b.dtype), copy=False)


def column_sums(rows: NDArray[Any]) -> NDArray[Any]:
    """Return the sums over the first axis, computed in float64 at least and rounded once."""
    return rows.sum(axis=0, dtype=np.result_type(rows.dtype, np.float64)).astype(rows.dtype)


def apart(y: NDArray[Any], array: Any) -> Any:
    """Return `array`, copied where writing `y` may change it."""
    return np.copy(array) if array is not None and np.may_share_memory(y, array) else array
