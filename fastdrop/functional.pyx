"""The calls: check, allocate, reserve a stretch of the stream, run a pass of the kernel.

Contiguous native arrays go straight to the kernel, anything else through `numpy.nditer` in
pieces; what a call accepts and says is in arguments.py, for both.
"""

import math

import numpy as np

cimport numpy as cnp
from libc.math cimport ldexp
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t

from fastdrop.kernels cimport dispatch
from fastdrop.kernels.kernel cimport (
    ALL_KEPT, DRAWN, FLOAT32, FLOAT64, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT, dropout_pass,
)

from fastdrop import arguments, cpu  # no-cython-lint  (cpu chooses the kernel)
from fastdrop.mask import Mask, as_shape, mask_of_dropout, saved_for_backward
from fastdrop.stream import Stream, as_stream

cnp.import_array()

cdef ptrdiff_t PIECE = 1 << 16  # elements of a strided array at a time: buffers stay in cache


def relu_dropout(x, keep_prob, *, mode="inverted", rng=None, out=None, return_mask=True):
    """ReLU, then dropout, in one pass over `x`: training.

    Computes ``y = scale * relu(x)`` where an element is kept, else ``+0``, with
    ``relu(x) = 0 if x <= 0 else x``.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        The input; any strides and byte order, read-only welcome.
    keep_prob : float
        The probability that an element is kept, in [0, 1], exact to ``2**-64``.
    mode : {"inverted", "vanilla"}, default "inverted"
        ``scale`` is ``1 / keep_prob``, or 1 with the scaling left to prediction.
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
        Where the randomness comes from. None: fresh entropy. An int ``0 <= rng < 2**128`` or a
        SeedSequence: the same mask at every such call. A Generator is asked for a seed. A
        `Stream` goes on: each call reserves as many positions as `x` has elements.
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
    return forward(x, keep_prob, mode, rng, out, return_mask, True)


def dropout(x, keep_prob, *, mode="inverted", rng=None, out=None, return_mask=True):
    """Dropout in one pass over `x`: training.

    Computes ``y = scale * x`` where an element is kept, else ``+0``; parameters, results and
    errors are those of `relu_dropout`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> y, mask = fd.dropout(np.float32([1, -2, 3, 4]), keep_prob=0.5, rng=1)
    >>> y
    array([ 0., -4.,  6.,  0.], dtype=float32)
    """
    return forward(x, keep_prob, mode, rng, out, return_mask, False)


def relu_dropout_backward(dy, saved, *, keep_prob=None, mode=None, out=None):
    """The gradient of `relu_dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` where the element passed in the forward call, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient of the result.
    saved : Mask or array_like
        The forward call's mask; or its output `y`, which tells as much after a ReLU
        (``y != 0``), and then `keep_prob` and `mode` are needed.
    keep_prob : float, optional
        The forward call's; a mask knows it.
    mode : {"inverted", "vanilla"}, optional
        The forward call's; a mask knows it.
    out : ndarray, optional
        The result array, with the shape and dtype of `dy`; ``out=dy`` is in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient of the input, or `out`.

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
    cdef dropout_pass task
    cdef double scale
    if type(saved) is Mask and keep_prob is None and mode is None and is_plain(dy):
        if not same_shape(dy, saved._shape):
            raise ValueError(f"saved must have dy's shape {dy.shape}, got {saved.shape}")
        scale = saved.scale
    else:
        dy = arguments.elements("dy", dy)
        saved, scale = saved_for_backward(saved, keep_prob, mode, dy)
    dx = out if fits(out, dy) else arguments.result(out, dy)
    begin(&task, False, scale)
    if isinstance(saved, Mask):
        bits = saved._bits
        if not (is_plain(dx) and apart(bits, dx)) and np.may_share_memory(bits, dx):
            bits = bits.copy()
        task.decision = SAVED_BITS
        task.saved = cnp.PyArray_BYTES(bits)
        run(&task, dy, dx, None)
    else:
        task.decision = SAVED_OUTPUT
        run(&task, dy, dx, saved)
    return dx


def dropout_backward(dy, mask, *, out=None):
    """The gradient of `dropout`, in one pass over `dy`.

    Computes ``dx = scale * dy`` where the element was kept, else ``+0``.

    Parameters
    ----------
    dy : array_like of float32 or float64, any shape
        The gradient of the result.
    mask : Mask
        The forward call's mask.
    out : ndarray, optional
        The result array, with the shape and dtype of `dy`; ``out=dy`` is in place.

    Returns
    -------
    dx : ndarray, shape and dtype of `dy`
        The gradient of the input, or `out`.

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
    return relu_dropout_backward(dy, mask_of_dropout(mask), out=out)


def relu_dropout_predict(x, keep_prob, *, mode="inverted", out=None):
    """`relu_dropout` at prediction, when nothing is dropped.

    Computes ``y = relu(x)``, times `keep_prob` in mode ``"vanilla"``: the average over the
    sub-networks that training sampled.

    Parameters
    ----------
    x : array_like of float32 or float64, any shape
        The input.
    keep_prob : float
        The probability that training kept an element with, in [0, 1].
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
    return predict(x, keep_prob, mode, out, True)


def dropout_predict(x, keep_prob, *, mode="inverted", out=None):
    """`dropout` at prediction, when nothing is dropped.

    Computes ``y = x``, times `keep_prob` in mode ``"vanilla"``; parameters, result and errors
    are those of `relu_dropout_predict`.

    Examples
    --------
    >>> import fastdrop as fd
    >>> import numpy as np
    >>> fd.dropout_predict(np.float32([1, -2, 3, 4]), 0.5, mode="vanilla")
    array([ 0.5, -1. ,  1.5,  2. ], dtype=float32)
    """
    return predict(x, keep_prob, mode, out, False)


def keep_mask(shape, keep_prob, *, rng=None):
    """The decisions alone: the bits that `dropout` draws for an array of this shape.

    Parameters
    ----------
    shape : int or tuple of int
        The shape of the array that the mask is for.
    keep_prob : float
        The probability that an element is kept, in [0, 1].
    rng : None, int, numpy.random.SeedSequence, numpy.random.Generator or Stream, optional
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
    cdef dropout_pass task
    cdef cnp.npy_intp size
    shape = as_shape(shape)
    keep_prob = arguments.keep_probability(keep_prob)
    size = math.prod(shape)
    bits = empty_bits(size)
    begin(&task, False, 1)
    decide(&task, keep_prob, as_stream(rng), size)
    task.mask = <unsigned char*> cnp.PyArray_BYTES(bits)
    dispatch.run(&task, size)
    return new_mask(bits, shape, keep_prob, "inverted")


cdef tuple forward(x, keep_prob, mode, rng, out, return_mask, bint relu):
    cdef dropout_pass task
    if not is_plain(x):
        x = arguments.elements("x", x)
    keep_prob = arguments.keep_probability(keep_prob)
    mode = arguments.dropout_mode(mode)
    y = out if fits(out, x) else arguments.result(out, x)
    mask = None
    begin(&task, relu, arguments.training_scale(keep_prob, mode))
    if return_mask:
        bits = empty_bits(cnp.PyArray_SIZE(x))
        task.mask = <unsigned char*> cnp.PyArray_BYTES(bits)
        mask = new_mask(bits, x.shape, keep_prob, mode)
    decide(&task, keep_prob, rng if type(rng) is Stream else as_stream(rng), cnp.PyArray_SIZE(x))
    run(&task, x, y, None)
    return y, mask


cdef predict(x, keep_prob, mode, out, bint relu):
    cdef dropout_pass task
    if not is_plain(x):
        x = arguments.elements("x", x)
    keep_prob = arguments.keep_probability(keep_prob)
    mode = arguments.dropout_mode(mode)
    y = out if fits(out, x) else arguments.result(out, x)
    begin(&task, relu, arguments.prediction_scale(keep_prob, mode))
    task.decision = ALL_KEPT
    run(&task, x, y, None)
    return y


cdef inline void begin(dropout_pass* task, bint relu, double scale) noexcept:
    task.dtype = FLOAT32
    task.relu = relu
    task.streaming = False
    task.x = NULL
    task.y = NULL
    task.scale = scale
    task.saved = NULL
    task.mask = NULL
    task.first_bit = 0


cdef int decide(dropout_pass* task, double keep_prob, stream, cnp.npy_intp size) except -1:
    """Reserve the positions, and take the decisions from them; the last that can raise."""
    cdef object seed = stream._seed
    task.position = stream.reserve(size) & <uint64_t> 0xFFFFFFFFFFFFFFFF  # 2**64 where size is 0
    task.seed[0] = seed & 0xFFFFFFFFFFFFFFFF
    task.seed[1] = seed >> 64
    if keep_prob == 1:
        task.decision = ALL_KEPT
        return 0
    # Exact: a float64 times a power of two is not rounded, and the cast is the floor.
    task.threshold = <uint64_t> ldexp(keep_prob, 64)
    task.decision = DRAWN if task.threshold else NONE_KEPT
    return 0


cdef int run(dropout_pass* task, x, y, saved) except -1:
    """A pass over arrays of one shape; `saved` is the output that decisions come from, or None."""
    task.dtype = FLOAT64 if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT64 else FLOAT32
    if is_plain(x) and is_plain(y) and apart(x, y) and (saved is None or is_plain(saved) and apart(saved, y)):
        task.x = cnp.PyArray_BYTES(x)
        task.y = cnp.PyArray_BYTES(y)
        if saved is not None:
            task.saved = cnp.PyArray_BYTES(saved)
        dispatch.run(task, cnp.PyArray_SIZE(y))
    else:
        run_pieces(task, x, y, saved)
    return 0


cdef int run_pieces(dropout_pass* task, x, y, saved) except -1:
    """The same for any strides, byte order and overlap, through NumPy's buffers."""
    cdef uint64_t start = task.position
    cdef cnp.npy_intp done = 0, size
    cdef tuple operands = (y, x) if saved is None else (y, x, saved)
    read = ["readonly", "contig", "nbo", "overlap_assume_elementwise"]
    pieces = np.nditer(
        operands,
        flags=["external_loop", "buffered", "copy_if_overlap", "zerosize_ok"],
        op_flags=[["writeonly", *read[1:]]] + [read] * (len(operands) - 1),
        op_dtypes=[y.dtype.newbyteorder("=")] * len(operands),
        order="C",
        buffersize=PIECE,
    )
    with pieces:
        for arrays in pieces:
            size = cnp.PyArray_SIZE(arrays[0])
            task.y = cnp.PyArray_BYTES(arrays[0])
            task.x = cnp.PyArray_BYTES(arrays[1])
            if saved is not None:
                task.saved = cnp.PyArray_BYTES(arrays[2])
            task.position = start + done
            task.first_bit = done
            dispatch.run(task, size)
            done += size
    return 0


cdef inline bint is_plain(array) noexcept:
    """Whether the kernel can take an array as it is."""
    return (
        type(array) is cnp.ndarray
        and (cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT32 or cnp.PyArray_TYPE(array) == cnp.NPY_FLOAT64)
        and cnp.PyArray_IS_C_CONTIGUOUS(array)
        and cnp.PyArray_ISNOTSWAPPED(array)
    )


cdef inline bint fits(out, x) noexcept:
    """Whether `out` is, at a glance, a result array for `x`."""
    return (
        type(out) is cnp.ndarray
        and is_plain(x)
        and is_plain(out)
        and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_ISWRITEABLE(out)
        and cnp.PyArray_SAMESHAPE(out, x)
    )


cdef inline bint apart(source, result) noexcept:
    """Whether contiguous arrays do not overlap, unless they are the same."""
    cdef const char* a = cnp.PyArray_BYTES(source)
    cdef const char* b = cnp.PyArray_BYTES(result)
    return a == b or a + cnp.PyArray_NBYTES(source) <= b or b + cnp.PyArray_NBYTES(result) <= a


cdef inline bint same_shape(array, tuple shape):
    cdef int axis, ndim = cnp.PyArray_NDIM(array)
    if len(shape) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(array, axis) != <cnp.npy_intp> shape[axis]:
            return False
    return True


cdef inline empty_bits(cnp.npy_intp size):
    cdef cnp.npy_intp count = (size + 7) // 8
    return cnp.PyArray_EMPTY(1, &count, cnp.NPY_UINT8, 0)


cdef inline new_mask(bits, shape, keep_prob, mode):
    """A Mask of what is known to be right."""
    mask = Mask.__new__(Mask)
    mask._bits = bits
    mask._shape = shape
    mask._keep_prob = keep_prob
    mask._mode = mode
    return mask
