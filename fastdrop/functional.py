"""The calls: training, gradient and prediction of every form of dropout.

Each call documents itself; `fastdrop.core.call` does what they have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

from cython.cimports.fastdrop.checks import dropout_mode
from cython.cimports.fastdrop.core import call
from numpy.typing import ArrayLike, NDArray

from fastdrop.checks import Axes, alpha_probability, given
from fastdrop.core.call import explained
from fastdrop.formulas import Mode
from fastdrop.mask import Mask, mask_of_dropout
from fastdrop.noise import GaussianNoise
from fastdrop.stream import RNG

# --- training ---------------------------------------------------------------------------------


@overload
def relu_dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def relu_dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[False],
) -> NDArray[Any]: ...
def relu_dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None, return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """Apply ReLU and then dropout, in one pass over `x`, in training.

    Computes ``y = scale * relu(x + bias)`` for a kept element and ``+0`` for a dropped one, where
    ``relu(x) = 0 if x <= 0 else x``.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``scale = 1 / keep_prob``. ``"vanilla"`` has
        ``scale = 1`` and leaves the scaling to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision. The decisions are those that `keep_mask` draws
        for the shape with these lengths set to 1. A row that is dropped as a whole need not be read.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same mask at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per decision. A `Tile` says that `x` is
        a block of a larger array.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.
    return_mask : bool, default True
        Whether to return the mask beside `y`. Without it, the gradient can still be computed from `y`.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.
    mask : Mask
        One bit per element: whether it was kept and passed by the ReLU. Returned only with
        ``return_mask=True``.

    Raises
    ------
    TypeError
        If an argument is missing, unknown, or has a type or dtype that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has written nothing to `out` and has not advanced the stream.

    See Also
    --------
    relu_dropout_backward : The gradient.
    relu_dropout_predict : The same layer at prediction.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.relu_dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> y
    array([0., 0., 6., 0.], dtype=float32)
    >>> fd.relu_dropout_backward(np.ones(4, np.float32), mask)
    array([0., 0., 2., 0.], dtype=float32)
    """
    return call.forward(
        x, keep_prob, dropout_mode(mode), rng, out, return_mask, True, bias, None, broadcast_dims
    )


@overload
def dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[False],
) -> NDArray[Any]: ...
def dropout(
    x: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None, mode: Mode = "inverted",
    broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None, return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """Apply dropout, in one pass over `x`, in training.

    Computes ``y = scale * (x + bias)`` for a kept element and ``+0`` for a dropped one.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``scale = 1 / keep_prob``. ``"vanilla"`` has
        ``scale = 1`` and leaves the scaling to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision. The decisions are those that `keep_mask` draws
        for the shape with these lengths set to 1. A row that is dropped as a whole need not be read.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same mask at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per decision. A `Tile` says that `x` is
        a block of a larger array.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.
    return_mask : bool, default True
        Whether to return the mask beside `y`. The gradient cannot be computed without it.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.
    mask : Mask
        One bit per element, or per decision along `broadcast_dims`: whether it was kept. Returned only
        with ``return_mask=True``.

    Raises
    ------
    TypeError
        If an argument is missing, unknown, or has a type or dtype that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has written nothing to `out` and has not advanced the stream.

    See Also
    --------
    dropout_backward : The gradient.
    dropout_predict : The same layer at prediction.
    relu_dropout : ReLU and dropout in one pass.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> y
    array([ 0., -4.,  6.,  0.], dtype=float32)
    """
    return call.forward(
        x, keep_prob, dropout_mode(mode), rng, out, return_mask, False, bias, None, broadcast_dims
    )


@overload
def dropout_add(
    x: ArrayLike, residual: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None,
    mode: Mode = "inverted", broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def dropout_add(
    x: ArrayLike, residual: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None,
    mode: Mode = "inverted", broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: Literal[False],
) -> NDArray[Any]: ...
def dropout_add(
    x: ArrayLike, residual: ArrayLike, *, keep_prob: float, bias: ArrayLike | None = None,
    mode: Mode = "inverted", broadcast_dims: Axes = (), rng: RNG = None, out: NDArray[Any] | None = None,
    return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """Add a bias, apply dropout and add a residual, in one pass, in training.

    Computes ``y = residual + dropout(x + bias)``, which ends a sublayer of a transformer. Megatron
    calls it bias_dropout_add, Paddle fused_dropout_add.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    residual : array_like, shape and dtype of `x`
        The array that is added to the result. ``out=residual`` works in place.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``"inverted"`` multiplies kept elements by ``scale = 1 / keep_prob``. ``"vanilla"`` has
        ``scale = 1`` and leaves the scaling to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision. The decisions are those that `keep_mask` draws
        for the shape with these lengths set to 1. A row that is dropped as a whole need not be read.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same mask at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per decision. A `Tile` says that `x` is
        a block of a larger array.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.
    return_mask : bool, default True
        Whether to return the mask beside `y`. The gradient cannot be computed without it.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.
    mask : Mask
        One bit per element, or per decision along `broadcast_dims`: whether it was kept. Returned only
        with ``return_mask=True``.

    Raises
    ------
    TypeError
        If an argument is missing, unknown, or has a type or dtype that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has written nothing to `out` and has not advanced the stream.

    See Also
    --------
    dropout_add_backward : The gradient.
    dropout_add_predict : The same layer at prediction.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> x, residual = np.float32([1, -2, 3, 4]), np.full(4, 10, np.float32)
    >>> y, mask = fd.dropout_add(x, residual, keep_prob=0.5, rng=1)
    >>> y
    array([10.,  6., 16., 10.], dtype=float32)
    """
    return call.forward(
        x, keep_prob, dropout_mode(mode), rng, out, return_mask, False, bias, given("residual", residual),
        broadcast_dims,
    )


@overload
def alpha_dropout(
    x: ArrayLike, *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None,
    out: NDArray[Any] | None = None, return_mask: Literal[True] = True,
) -> tuple[NDArray[Any], Mask]: ...
@overload
def alpha_dropout(
    x: ArrayLike, *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None,
    out: NDArray[Any] | None = None, return_mask: Literal[False],
) -> NDArray[Any]: ...
def alpha_dropout(
    x: ArrayLike, *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None,
    out: NDArray[Any] | None = None, return_mask: bool = True,
) -> NDArray[Any] | tuple[NDArray[Any], Mask]:
    """Apply dropout that keeps mean and variance, for networks with SELU, in training.

    Computes ``y = a * x + b`` for a kept element and ``a * alpha + b`` for a dropped one. Here alpha
    is -1.758, the negative limit of SELU, ``a = (keep_prob * (1 + (1 - keep_prob) * alpha**2))**-0.5``
    and ``b = -a * (1 - keep_prob) * alpha``. With ``keep_prob=0`` the result is zero. Prediction
    changes nothing, so there is no call for it. With `broadcast_dims` whole features are dropped, as
    PyTorch's FeatureAlphaDropout does.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float
        The probability that an element is kept, 0 or in [2**-126, 1], exact to ``2**-64``.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision. The decisions are those that `keep_mask` draws
        for the shape with these lengths set to 1. A row that is dropped as a whole need not be read.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same mask at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per decision. A `Tile` says that `x` is
        a block of a larger array.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.
    return_mask : bool, default True
        Whether to return the mask beside `y`. The gradient cannot be computed without it.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.
    mask : Mask
        One bit per element, or per decision along `broadcast_dims`: whether it was kept. Returned only
        with ``return_mask=True``.
        Its mode is ``"alpha"``.

    Raises
    ------
    TypeError
        If an argument is missing, unknown, or has a type or dtype that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has written nothing to `out` and has not advanced the stream.

    See Also
    --------
    alpha_dropout_backward : The gradient.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.alpha_dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> y.round(2)
    array([-0.78, -0.99,  3.44, -0.78], dtype=float32)
    """
    keep_prob = alpha_probability(keep_prob)
    return call.forward(x, keep_prob, "alpha", rng, out, return_mask, False, None, None, broadcast_dims)


def gaussian_dropout(
    x: ArrayLike, *, keep_prob: float, rng: RNG = None, out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], GaussianNoise]:
    """Multiply every element by Gaussian noise, in one pass over `x`, in training.

    Computes ``y = x * n`` with independent ``n ~ N(1, (1 - keep_prob) / keep_prob)``. The noise has
    the mean and variance of inverted dropout, but no element becomes zero. Prediction changes
    nothing, so there is no call for it.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float
        Inverted dropout with this keep probability has the same variance. In (0, 1], and at least
        ``2**-126``; 1 returns `x`.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same noise at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per element. A `Tile` says that `x` is
        a block of a larger array.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.
    noise : GaussianNoise
        A few numbers, from which `gaussian_dropout_backward` draws the same noise again.

    Raises
    ------
    TypeError
        If an argument is missing, unknown, or has a type or dtype that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has written nothing to `out` and has not advanced the stream.

    See Also
    --------
    gaussian_dropout_backward : The gradient.

    Notes
    -----
    The noise has float32 precision for every dtype of `x`. It depends on neither the dtype nor the
    machine nor the number of threads; see ``docs/stream.md``. It is independent of the decisions
    that `dropout` draws with the same seed and position.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014, section 10.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, noise = fd.gaussian_dropout(np.ones(1_000_000), keep_prob=0.8, rng=1)
    >>> round(y.mean(), 2), round(y.var(), 2)
    (np.float64(1.0), np.float64(0.25))
    >>> dx = fd.gaussian_dropout_backward(np.ones(1_000_000), noise)
    >>> bool((dx == y).all())
    True
    """
    return call.gaussian_forward(x, keep_prob, rng, out)


# --- gradients --------------------------------------------------------------------------------


@overload
def relu_dropout_backward(
    dy: ArrayLike, saved: Mask | ArrayLike, *, keep_prob: float | None = None, mode: Mode | None = None,
    bias_grad: Literal[False] = False, out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def relu_dropout_backward(
    dy: ArrayLike, saved: Mask | ArrayLike, *, keep_prob: float | None = None, mode: Mode | None = None,
    bias_grad: Literal[True], out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def relu_dropout_backward(
    dy: ArrayLike, saved: Mask | ArrayLike, *, keep_prob: float | None = None, mode: Mode | None = None,
    bias_grad: bool = False, out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Compute the gradient of `relu_dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` for an element that was kept and passed by the ReLU, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient with respect to the result of the forward call.
    saved : Mask or array_like, shape and dtype of `dy`
        The mask that the forward call returned. The result `y` of the forward call serves as well,
        because ``y != 0`` says which elements passed; `keep_prob` and `mode` are required then.
    keep_prob : float, optional
        The keep probability of the forward call. A mask knows it.
    mode : {"inverted", "vanilla"}, optional
        The mode of the forward call. A mask knows it.
    bias_grad : bool, default False
        Whether to return the gradient of the bias too: the sums of `dx` over all axes but the last.
        They are computed in float64, in an order that does not depend on the number of threads.
    out : ndarray, shape and dtype of `dy`, optional
        The array to write the gradient to. ``out=dy`` works in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient with respect to `x`; it is `out` where that was given.
    dbias : ndarray, shape (dy.shape[-1],), dtype of `dy`
        The gradient with respect to the bias. Returned only with ``bias_grad=True``.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted, or `keep_prob` or `mode` is missing.
    ValueError
        If the shapes differ, `keep_prob` or `mode` contradicts the mask, or the mask is of
        `alpha_dropout`. A call that raises has written nothing to `out`.

    See Also
    --------
    relu_dropout : The forward call.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y = fd.relu_dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1, return_mask=False)
    >>> fd.relu_dropout_backward(np.ones(4, np.float32), y, keep_prob=0.5, mode="inverted")
    array([0., 0., 2., 0.], dtype=float32)
    """
    return call.backward(dy, "saved", saved, keep_prob, mode, bias_grad, out)


@overload
def dropout_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: Literal[False] = False, out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: Literal[True], out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def dropout_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Compute the gradient of `dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` for an element that was kept, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient with respect to the result of the forward call.
    mask : Mask
        The mask that the forward call returned.
    bias_grad : bool, default False
        Whether to return the gradient of the bias too: the sums of `dx` over all axes but the last.
        They are computed in float64, in an order that does not depend on the number of threads.
    out : ndarray, shape and dtype of `dy`, optional
        The array to write the gradient to. ``out=dy`` works in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient with respect to `x`; it is `out` where that was given.
    dbias : ndarray, shape (dy.shape[-1],), dtype of `dy`
        The gradient with respect to the bias. Returned only with ``bias_grad=True``.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted.
    ValueError
        If the shapes differ, or the mask is of `alpha_dropout`. A call that raises has written
        nothing to `out`.

    See Also
    --------
    dropout : The forward call.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> fd.dropout_backward(np.ones(4, np.float32), mask)
    array([0., 2., 2., 0.], dtype=float32)
    """
    return call.backward(dy, "mask", mask_of_dropout(mask), None, None, bias_grad, out)


@overload
def dropout_add_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: Literal[False] = False, out: NDArray[Any] | None = None,
) -> NDArray[Any]: ...
@overload
def dropout_add_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: Literal[True], out: NDArray[Any] | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]: ...
def dropout_add_backward(
    dy: ArrayLike, mask: Mask, *, bias_grad: bool = False, out: NDArray[Any] | None = None,
) -> NDArray[Any] | tuple[NDArray[Any], NDArray[Any]]:
    """Compute the gradient of `dropout_add` with respect to `x`, in one pass over `dy`.

    Computes ``dx = scale * dy`` for an element that was kept, else ``+0``. The gradient with respect
    to the residual is `dy` itself.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient with respect to the result of the forward call.
    mask : Mask
        The mask that the forward call returned.
    bias_grad : bool, default False
        Whether to return the gradient of the bias too: the sums of `dx` over all axes but the last.
        They are computed in float64, in an order that does not depend on the number of threads.
    out : ndarray, shape and dtype of `dy`, optional
        The array to write the gradient to. ``out=dy`` works in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient with respect to `x`; it is `out` where that was given.
    dbias : ndarray, shape (dy.shape[-1],), dtype of `dy`
        The gradient with respect to the bias. Returned only with ``bias_grad=True``.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted.
    ValueError
        If the shapes differ, or the mask is of `alpha_dropout`. A call that raises has written
        nothing to `out`.

    See Also
    --------
    dropout_add : The forward call.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> x = np.ones((2, 2), np.float32)
    >>> y, mask = fd.dropout_add(x, x, keep_prob=0.5, bias=x[0], rng=1)
    >>> dx, dbias = fd.dropout_add_backward(x, mask, bias_grad=True)
    >>> dbias
    array([2., 2.], dtype=float32)
    """
    return call.backward(dy, "mask", mask_of_dropout(mask), None, None, bias_grad, out)


def alpha_dropout_backward(dy: ArrayLike, mask: Mask, *, out: NDArray[Any] | None = None) -> NDArray[Any]:
    """Compute the gradient of `alpha_dropout`, in one pass over `dy`.

    Computes ``dx = a * dy`` for an element that was kept, else ``+0``; `alpha_dropout` defines a.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient with respect to the result of the forward call.
    mask : Mask
        The mask that the forward call returned.
    out : ndarray, shape and dtype of `dy`, optional
        The array to write the gradient to. ``out=dy`` works in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient with respect to `x`; it is `out` where that was given.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted.
    ValueError
        If the shapes differ, or the mask is not of `alpha_dropout`. A call that raises has written
        nothing to `out`.

    See Also
    --------
    alpha_dropout : The forward call.

    References
    ----------
    G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter, "Self-normalizing neural networks",
    NeurIPS 2017.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.alpha_dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> fd.alpha_dropout_backward(np.ones(4, np.float32), mask).round(2)
    array([0.  , 0.89, 0.89, 0.  ], dtype=float32)
    """
    return call.backward(dy, "mask", mask_of_dropout(mask, alpha=True), None, None, False, out)


def gaussian_dropout_backward(
    dy: ArrayLike, noise: GaussianNoise, *, out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Compute the gradient of `gaussian_dropout`, in one pass over `dy`.

    Computes ``dx = dy * n`` with the noise of the forward call, which is drawn again.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient with respect to the result of the forward call.
    noise : GaussianNoise
        The noise that the forward call returned.
    out : ndarray, shape and dtype of `dy`, optional
        The array to write the gradient to. ``out=dy`` works in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient with respect to `x`; it is `out` where that was given.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted.
    ValueError
        If the shapes differ. A call that raises has written nothing to `out`.

    See Also
    --------
    gaussian_dropout : The forward call.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014, section 10.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, noise = fd.gaussian_dropout([1.0, 2.0, 4.0], keep_prob=0.5, rng=1)
    >>> fd.gaussian_dropout_backward([1.0, 1.0, 1.0], noise) * [1.0, 2.0, 4.0] == y
    array([ True,  True,  True])
    """
    return call.gaussian_backward(dy, noise, out)


# --- prediction and decisions -----------------------------------------------------------------


def relu_dropout_predict(
    x: ArrayLike, *, keep_prob: float | None = None, bias: ArrayLike | None = None, mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Apply a `relu_dropout` layer at prediction, where nothing is dropped.

    Computes ``y = relu(x + bias)``, times `keep_prob` in mode ``"vanilla"``. That factor stands for
    the average over the sub-networks that training sampled.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float, optional
        The keep probability of training, in [0, 1]. Mode ``"vanilla"`` needs it.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training. ``"inverted"`` scales nothing at prediction, ``"vanilla"`` multiplies
        by `keep_prob`.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted, or `keep_prob` is needed and missing.
    ValueError
        If a value or shape is not accepted. A call that raises has written nothing to `out`.

    See Also
    --------
    relu_dropout : The same layer in training.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> fd.relu_dropout_predict(np.float32([1, -2, 3, 4]), keep_prob=0.5, mode="vanilla")
    array([0.5, 0. , 1.5, 2. ], dtype=float32)
    """
    return call.predict(x, keep_prob, mode, out, True, bias)


def dropout_predict(
    x: ArrayLike, *, keep_prob: float | None = None, bias: ArrayLike | None = None, mode: Mode = "inverted",
    out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Apply a `dropout` layer at prediction, where nothing is dropped.

    Computes ``y = x + bias``, times `keep_prob` in mode ``"vanilla"``. That factor stands for the
    average over the sub-networks that training sampled.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float, optional
        The keep probability of training, in [0, 1]. Mode ``"vanilla"`` needs it.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training. ``"inverted"`` scales nothing at prediction, ``"vanilla"`` multiplies
        by `keep_prob`.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted, or `keep_prob` is needed and missing.
    ValueError
        If a value or shape is not accepted. A call that raises has written nothing to `out`.

    See Also
    --------
    dropout : The same layer in training.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> fd.dropout_predict(np.float32([1, -2, 3, 4]), keep_prob=0.5, mode="vanilla")
    array([ 0.5, -1. ,  1.5,  2. ], dtype=float32)
    """
    return call.predict(x, keep_prob, mode, out, False, bias)


def dropout_add_predict(
    x: ArrayLike, residual: ArrayLike, *, keep_prob: float | None = None, bias: ArrayLike | None = None,
    mode: Mode = "inverted", out: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Apply a `dropout_add` layer at prediction, where nothing is dropped.

    Computes ``y = residual + (x + bias)``; in mode ``"vanilla"`` the term in parentheses is multiplied
    by `keep_prob`.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input, with any strides and byte order; it may be read-only. float16 and bfloat16 (the
        dtype of `ml_dtypes`) are computed in float32 and rounded once.
    residual : array_like, shape and dtype of `x`
        The array that is added to the result. ``out=residual`` works in place.
    keep_prob : float, optional
        The keep probability of training, in [0, 1]. Mode ``"vanilla"`` needs it.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        The array that is added to `x` first, along the last axis.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training. ``"inverted"`` scales nothing at prediction, ``"vanilla"`` multiplies
        by `keep_prob`.
    out : ndarray, shape and dtype of `x`, optional
        The array to write the result to. ``out=x`` works in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result; it is `out` where that was given.

    Raises
    ------
    TypeError
        If an argument has a type or dtype that is not accepted, or `keep_prob` is needed and missing.
    ValueError
        If a value or shape is not accepted. A call that raises has written nothing to `out`.

    See Also
    --------
    dropout_add : The same layer in training.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> x, residual = np.float32([1, -2, 3, 4]), np.full(4, 10, np.float32)
    >>> fd.dropout_add_predict(x, residual, keep_prob=0.5, mode="vanilla")
    array([10.5,  9. , 11.5, 12. ], dtype=float32)
    """
    return call.predict(x, keep_prob, mode, out, False, bias, given("residual", residual))


def keep_mask(
    shape: int | Sequence[int], *, keep_prob: float, broadcast_dims: Axes = (), rng: RNG = None,
) -> Mask:
    """Draw the decisions alone, without an array.

    The mask has the bits that `dropout` draws for an array of this shape.

    Parameters
    ----------
    shape : int or sequence of int
        The shape of the array that the mask is for.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one decision. The mask has length 1 along them.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        The source of randomness. None takes fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence gives the same mask at every call. One seed is drawn from a Generator at each
        call. A `Stream` advances at each call by one position per decision. A `Tile` says that the mask
        is for a block of a larger array.

    Returns
    -------
    mask : Mask
        One bit per decision: whether the element is kept.

    Raises
    ------
    TypeError
        If an argument has a type that is not accepted.
    ValueError
        If a value or shape is not accepted, or the stream has too few positions left. A call that
        raises has not advanced the stream.

    See Also
    --------
    dropout : Draw the same decisions and apply them.

    References
    ----------
    N. Srivastava, G. Hinton, A. Krizhevsky, I. Sutskever, R. Salakhutdinov, "Dropout: a simple
    way to prevent neural networks from overfitting", JMLR 15, 2014.

    Examples
    --------
    >>> import fastdrop as fd
    >>> fd.keep_mask((2, 4), keep_prob=0.5, rng=1).to_array()
    array([[False,  True,  True, False],
           [ True,  True, False,  True]])
    """
    return call.keep_mask(shape, keep_prob, broadcast_dims, rng)


for _function in (
    relu_dropout, dropout, dropout_add, alpha_dropout, gaussian_dropout,
    relu_dropout_backward, dropout_backward, dropout_add_backward, alpha_dropout_backward,
    gaussian_dropout_backward, relu_dropout_predict, dropout_predict, dropout_add_predict, keep_mask,
):  # fmt: skip
    explained(_function)
