"""The calls. Each documents itself; engine.pyx does what they have in common."""

from fastdrop cimport arguments, engine
from fastdrop import arguments
from fastdrop.mask import mask_of_dropout


def relu_dropout(
    x, keep_prob, *, bias=None, mode="inverted", broadcast_dims=(), rng=None, out=None, return_mask=True
):
    """ReLU, then dropout, in one pass over `x`: training.

    Computes ``y = scale * relu(x + bias)`` where an element is kept, else ``+0``, with
    ``relu(x) = 0 if x <= 0 else x``.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input; any strides and byte order, read-only welcome. float16 and bfloat16 (of
        `ml_dtypes`) are computed in float32 and rounded once.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        Added to `x` first.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``scale`` is ``1 / keep_prob``, or 1 with the scaling left to prediction.
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one draw: those of `keep_mask` for the shape that has 1
        there. What is dropped as a whole row is not even read.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        Where the randomness comes from. None: fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence: the same mask at every such call. A Generator is asked for a seed. A
        `Stream` goes on: each call reserves as many positions as it draws decisions, one for each
        element unless they are shared. A `Tile`: `x` is a block of a larger array.
    out : ndarray, optional
        The result array, with the shape and dtype of `x`; ``out=x`` is in place.
    return_mask : bool, default True
        Whether to make the mask; without it the gradient can still be computed from `y`.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result, or `out`.
    mask : Mask or None
        One bit an element: kept, and passed by the ReLU.

    Raises
    ------
    TypeError
        If `x` or `out` has another dtype, or an argument another type.
    ValueError
        If `keep_prob`, `mode`, `rng` or the shape of `out` is outside of what is accepted, or the
        stream has too few positions left. `out` and the stream are then untouched.

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
    return engine.forward(
        x, keep_prob, arguments.dropout_mode(mode), rng, out, return_mask, True, bias, None, broadcast_dims
    )


def dropout(
    x, keep_prob, *, bias=None, mode="inverted", broadcast_dims=(), rng=None, out=None, return_mask=True
):
    """Dropout in one pass over `x`: training.

    Computes ``y = scale * (x + bias)`` where an element is kept, else ``+0``; parameters, results
    and errors are those of `relu_dropout`. The mask has length 1 along `broadcast_dims`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> y
    array([ 0., -4.,  6.,  0.], dtype=float32)
    """
    return engine.forward(
        x, keep_prob, arguments.dropout_mode(mode), rng, out, return_mask, False, bias, None, broadcast_dims
    )


def relu_dropout_backward(dy, saved, *, keep_prob=None, mode=None, bias_grad=False, out=None):
    """The gradient of `relu_dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` where the element passed in the forward call, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient of the result.
    saved : Mask or array_like
        The forward call's mask; or its output `y`, which tells as much after a ReLU
        (``y != 0``), and then `keep_prob` and `mode` are needed.
    keep_prob : float, optional
        The forward call's; a mask knows it.
    mode : {"inverted", "vanilla"}, optional
        The forward call's; a mask knows it.
    bias_grad : bool, default False
        Whether to return the gradient of the bias too: the sums of `dx` over all axes but the
        last, added up in float64 in an order that no thread changes.
    out : ndarray, optional
        The result array, with the shape and dtype of `dy`; ``out=dy`` is in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient of the input, or `out`.
    dbias : ndarray, shape (dy.shape[-1],), dtype of `dy`
        Only with `bias_grad`.

    Raises
    ------
    TypeError
        If a dtype or type is not accepted, or `keep_prob` or `mode` is missing.
    ValueError
        If shapes disagree, or `keep_prob` or `mode` contradicts the mask.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, _ = fd.relu_dropout(np.float32([1, -2, 3, 4]), 0.5, rng=1, return_mask=False)
    >>> fd.relu_dropout_backward(np.ones(4, np.float32), y, keep_prob=0.5, mode="inverted")
    array([0., 0., 2., 0.], dtype=float32)
    """
    return engine.backward(dy, saved, keep_prob, mode, bias_grad, out)


def dropout_backward(dy, mask, *, bias_grad=False, out=None):
    """The gradient of `dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` where the element was kept, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient of the result.
    mask : Mask
        The forward call's mask.
    bias_grad : bool, default False
        Whether to return the gradient of the bias too, as `relu_dropout_backward` does.
    out : ndarray, optional
        The result array, with the shape and dtype of `dy`; ``out=dy`` is in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient of the input, or `out`.
    dbias : ndarray, shape (dy.shape[-1],), dtype of `dy`
        Only with `bias_grad`.

    Raises
    ------
    TypeError, ValueError
        As `relu_dropout_backward`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> fd.dropout_backward(np.ones(4, np.float32), mask)
    array([0., 2., 2., 0.], dtype=float32)
    """
    return engine.backward(dy, mask_of_dropout(mask), None, None, bias_grad, out)


def relu_dropout_predict(x, keep_prob, *, bias=None, mode="inverted", out=None):
    """`relu_dropout` at prediction, when nothing is dropped.

    Computes ``y = relu(x + bias)``, times `keep_prob` in mode ``"vanilla"``: the average over the
    sub-networks that training sampled.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input.
    keep_prob : float
        The probability that training kept an element with, in [0, 1].
    bias : array_like, shape (x.shape[-1],), dtype of `x`, optional
        Added to `x` first.
    mode : {"inverted", "vanilla"}, default "inverted"
        The mode of training.
    out : ndarray, optional
        The result array, with the shape and dtype of `x`; ``out=x`` is in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result, or `out`.

    Raises
    ------
    TypeError, ValueError
        As `relu_dropout`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> fd.relu_dropout_predict(np.float32([1, -2, 3, 4]), 0.5, mode="vanilla")
    array([0.5, 0. , 1.5, 2. ], dtype=float32)
    """
    return engine.predict(x, keep_prob, mode, out, True, bias)


def dropout_predict(x, keep_prob, *, bias=None, mode="inverted", out=None):
    """`dropout` at prediction, when nothing is dropped.

    Computes ``y = x + bias``, times `keep_prob` in mode ``"vanilla"``; parameters, result and errors
    are those of `relu_dropout_predict`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> fd.dropout_predict(np.float32([1, -2, 3, 4]), 0.5, mode="vanilla")
    array([ 0.5, -1. ,  1.5,  2. ], dtype=float32)
    """
    return engine.predict(x, keep_prob, mode, out, False, bias)


def dropout_add(
    x, residual, keep_prob, *,
    bias=None, mode="inverted", broadcast_dims=(), rng=None, out=None, return_mask=True,
):
    """Bias, dropout and a residual connection in one pass: the end of a transformer's sublayer.

    Computes ``y = residual + dropout(x + bias)``. Megatron calls it bias_dropout_add, Paddle
    fused_dropout_add.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        What is dropped from.
    residual : array_like, shape and dtype of `x`
        What is added to the result; ``out=residual`` is in place.
    keep_prob, bias, mode, broadcast_dims, rng, out, return_mask
        As in `dropout`.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result, or `out`.
    mask : Mask or None
        One bit an element, or a shared draw: kept.

    Raises
    ------
    TypeError, ValueError
        As `relu_dropout`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> x, residual = np.float32([1, -2, 3, 4]), np.full(4, 10, np.float32)
    >>> y, mask = fd.dropout_add(x, residual, keep_prob=0.5, rng=1)
    >>> y
    array([10.,  6., 16., 10.], dtype=float32)
    """
    return engine.forward(
        x, keep_prob, arguments.dropout_mode(mode), rng, out, return_mask, False, bias,
        arguments.given("residual", residual), broadcast_dims,
    )


def dropout_add_backward(dy, mask, *, bias_grad=False, out=None):
    """The gradient of `dropout_add` with respect to `x`; that of the residual is `dy` itself.

    Parameters, results and errors are those of `dropout_backward`.

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
    return engine.backward(dy, mask_of_dropout(mask), None, None, bias_grad, out)


def dropout_add_predict(x, residual, keep_prob, *, bias=None, mode="inverted", out=None):
    """`dropout_add` at prediction, when nothing is dropped.

    Computes ``y = residual + (x + bias)``, the latter times `keep_prob` in mode ``"vanilla"``;
    parameters are those of `dropout_add`, result and errors those of `relu_dropout_predict`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> x, residual = np.float32([1, -2, 3, 4]), np.full(4, 10, np.float32)
    >>> fd.dropout_add_predict(x, residual, 0.5, mode="vanilla")
    array([10.5,  9. , 11.5, 12. ], dtype=float32)
    """
    return engine.predict(x, keep_prob, mode, out, False, bias, arguments.given("residual", residual))


def alpha_dropout(x, keep_prob, *, broadcast_dims=(), rng=None, out=None, return_mask=True):
    """Dropout that keeps mean and variance, for networks with SELU: training.

    Computes ``y = a * x + b`` where an element is kept, else ``a * alpha + b``, where alpha is
    SELU's negative limit -1.758, ``a = (keep_prob * (1 + (1 - keep_prob) * alpha**2))**-0.5`` and
    ``b = -a * (1 - keep_prob) * alpha``. With ``keep_prob=0`` all is zero. Prediction changes
    nothing. With `broadcast_dims`, whole features: PyTorch's FeatureAlphaDropout.

    Parameters
    ----------
    x, keep_prob, broadcast_dims, rng, out, return_mask
        As in `dropout`.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result, or `out`.
    mask : Mask or None
        One bit an element, or a shared draw: kept. Its mode is ``"alpha"``.

    Raises
    ------
    TypeError, ValueError
        As `relu_dropout`.

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
    return engine.forward(x, keep_prob, "alpha", rng, out, return_mask, False, None, None, broadcast_dims)


def alpha_dropout_backward(dy, mask, *, out=None):
    """The gradient of `alpha_dropout`: ``dx = a * dy`` where the element was kept, else ``+0``.

    Parameters, result and errors are those of `dropout_backward`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.alpha_dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> fd.alpha_dropout_backward(np.ones(4, np.float32), mask).round(2)
    array([0.  , 0.89, 0.89, 0.  ], dtype=float32)
    """
    return engine.backward(dy, mask_of_dropout(mask), None, None, False, out)


def keep_mask(shape, keep_prob, *, broadcast_dims=(), rng=None):
    """The decisions alone: the bits that `dropout` draws for an array of this shape.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of the array that the mask is for.
    keep_prob : float
        The probability that an element is kept, in [0, 1].
    broadcast_dims : int or sequence of int, default ()
        Axes along which elements share one draw: the mask has length 1 there.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        Where the randomness comes from, as in `relu_dropout`.

    Returns
    -------
    mask : Mask

    Raises
    ------
    TypeError, ValueError
        As `relu_dropout`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> fd.keep_mask((2, 4), keep_prob=0.5, rng=1).to_array()
    array([[False,  True,  True, False],
           [ True,  True, False,  True]])
    """
    return engine.keep_mask(shape, keep_prob, broadcast_dims, rng)
