"""Gaussian dropout: the calls. The noise is drawn where it is used, and kept nowhere."""

from fastdrop cimport engine


def gaussian_dropout(x, keep_prob, *, rng=None, out=None):
    """Gaussian dropout in one pass over `x`: training.

    Computes ``y = x * n`` with independent ``n ~ N(1, (1 - keep_prob) / keep_prob)``: noise with the
    mean and variance of inverted dropout's, but no element becomes zero. Prediction is the
    identity, so there is no call for it.

    Parameters
    ----------
    x : array_like of float32, float64, float16 or bfloat16, any shape
        The input; any strides and byte order, read-only welcome.
    keep_prob : float
        The probability that dropout of the same variance would keep an element with, in (0, 1]
        (at least ``2**-126``). 1 is the identity.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator, Stream or Tile, optional
        Where the randomness comes from, as in `dropout`. The noise is drawn from numbers of its
        own: independent of the elements that `dropout` keeps with the same seed and position.
    out : ndarray, optional
        The result array, with the shape and dtype of `x`; ``out=x`` is in place.

    Returns
    -------
    y : ndarray, shape and dtype of `x`
        The result, or `out`.
    noise : GaussianNoise
        What `gaussian_dropout_backward` makes the same noise from; a few numbers.

    Raises
    ------
    TypeError
        If `x` or `out` has another dtype, or an argument another type.
    ValueError
        If `keep_prob`, `rng` or the shape of `out` is outside of what is accepted, or the
        stream has too few positions left. `out` and the stream are then untouched.

    Notes
    -----
    The noise has float32 precision for every dtype of `x`, is the same for all of them, and does
    not depend on the machine or the number of threads; see ``docs/stream.md``.

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
    return engine.gaussian_forward(x, keep_prob, rng, out)


def gaussian_dropout_backward(dy, noise, *, out=None):
    """The gradient of `gaussian_dropout`, in one pass over `dy`.

    Computes ``dx = dy * n`` with the noise of the forward call, made again.

    Parameters
    ----------
    dy : array_like of float32, float64, float16 or bfloat16, any shape
        The gradient of the result.
    noise : GaussianNoise
        The forward call's.
    out : ndarray, optional
        The result array, with the shape and dtype of `dy`; ``out=dy`` is in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient of the input, or `out`.

    Raises
    ------
    TypeError
        If a dtype or type is not accepted.
    ValueError
        If shapes disagree.

    Examples
    --------
    >>> import fastdrop as fd
    >>> y, noise = fd.gaussian_dropout([1.0, 2.0, 4.0], keep_prob=0.5, rng=1)
    >>> fd.gaussian_dropout_backward([1.0, 1.0, 1.0], noise) * [1.0, 2.0, 4.0] == y
    array([ True,  True,  True])
    """
    return engine.gaussian_backward(dy, noise, out)
