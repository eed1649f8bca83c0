"""Gaussian dropout: the calls. The noise is drawn where it is used, and kept nowhere."""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport uint64_t
from libc.string cimport memset

from fastdrop.kernels cimport dispatch
from fastdrop.kernels.kernel cimport FLOAT32, FLOAT64, GAUSSIAN, dropout_pass

from fastdrop import arguments, cpu  # no-cython-lint  (cpu chooses the kernel)
from fastdrop.noise import GaussianNoise, noise_for_backward, noise_probability
from fastdrop.stream import as_stream

cnp.import_array()

cdef cnp.npy_intp PIECE = 1 << 16  # elements of a strided array at a time: buffers stay in cache


def gaussian_dropout(x, keep_prob, *, rng=None, out=None):
    """Gaussian dropout in one pass over `x`: training.

    Computes ``y = x * n`` with independent ``n ~ N(1, (1 - keep_prob) / keep_prob)``: noise with the
    mean and variance of inverted dropout's, but no element becomes zero. Prediction is the
    identity, so there is no call for it.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        The input; any strides and byte order, read-only welcome.
    keep_prob : float
        The probability that dropout of the same variance would keep an element with, in (0, 1]
        (at least ``2**-126``). 1 is the identity.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
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
    x = arguments.elements("x", x)
    keep_prob = noise_probability(keep_prob)
    y = arguments.result(out, x)
    stream = as_stream(rng)
    noise = GaussianNoise(stream.seed, stream.reserve(x.size), x.shape, keep_prob)
    multiply(x, noise, y)
    return y, noise


def gaussian_dropout_backward(dy, noise, *, out=None):
    """The gradient of `gaussian_dropout`, in one pass over `dy`.

    Computes ``dx = dy * n`` with the noise of the forward call, made again.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
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
    dy = arguments.elements("dy", dy)
    noise = noise_for_backward(noise, dy)
    dx = arguments.result(out, dy)
    multiply(dy, noise, dx)
    return dx


cdef int multiply(x, noise, y) except -1:
    """`y = x * noise`, for any strides, byte order and overlap."""
    cdef dropout_pass task
    cdef uint64_t start = noise.offset & <uint64_t> 0xFFFFFFFFFFFFFFFF  # 2**64 where there is no element
    cdef cnp.npy_intp done = 0
    memset(&task, 0, sizeof(task))
    task.decision = GAUSSIAN
    task.dtype = FLOAT64 if y.dtype.itemsize == 8 else FLOAT32
    task.scale = noise.scale
    task.seed[0] = noise.seed & 0xFFFFFFFFFFFFFFFF
    task.seed[1] = noise.seed >> 64
    if is_plain(x) and is_plain(y) and (x is y or not np.may_share_memory(x, y)):
        run_piece(&task, start, x, y)
        return 0
    flags = ["contig", "nbo", "overlap_assume_elementwise"]
    pieces = np.nditer(
        (y, x),
        flags=["external_loop", "buffered", "copy_if_overlap", "zerosize_ok"],
        op_flags=[["writeonly", *flags], ["readonly", *flags]],
        op_dtypes=[y.dtype.newbyteorder("=")] * 2,
        order="C",
        buffersize=PIECE,
    )
    with pieces:
        for y_piece, x_piece in pieces:
            run_piece(&task, start + done, x_piece, y_piece)
            done += y_piece.size
    return 0


cdef int run_piece(dropout_pass* task, uint64_t position, x, y) except -1:
    task.position = position
    task.x = cnp.PyArray_BYTES(x)
    task.y = cnp.PyArray_BYTES(y)
    dispatch.run(task, cnp.PyArray_SIZE(y))
    return 0


cdef bint is_plain(array):
    """Whether the kernel can take an array as it is."""
    return cnp.PyArray_IS_C_CONTIGUOUS(array) and cnp.PyArray_ISNOTSWAPPED(array)
