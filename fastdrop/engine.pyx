"""What is behind the calls: check, allocate, reserve a stretch of the stream, run a pass.

Contiguous native arrays go straight to the kernel, anything else through `numpy.nditer` in
pieces; what a call accepts and says is in arguments.py, for both.
"""

import math

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.math cimport ldexp
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memset

from fastdrop cimport arguments
from fastdrop.kernels cimport dispatch
from fastdrop.kernels.kernel cimport (
    ALL_KEPT, BFLOAT16, DRAWN, FLOAT16, FLOAT32, FLOAT64, GAUSSIAN, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT,
    dropout_pass,
)
from fastdrop.mask cimport Mask
from fastdrop.stream cimport Stream

from fastdrop import arguments, cpu  # no-cython-lint  (cpu chooses the kernel)
from fastdrop.mask import saved_for_backward
from fastdrop.stream import as_source

cdef extern from "numpy/arrayobject.h":
    enum:
        NPY_USERDEF     # the first number that is not NumPy's own

cnp.import_array()

cdef enum:
    PIECE = 1 << 16     # elements of a strided array at a time: buffers stay in cache
    BIAS_ROOM = 16      # elements that a kernel may read past a bias's period

cdef int bfloat16_type = -1     # its number in NumPy, once it has been seen

cdef struct Job:
    dropout_pass task
    dispatch.rows rows
    bint has_rows               # else decisions follow each other
    dispatch.columns columns
    bint has_columns            # whether results are added up by column


cdef tuple forward(
    x, keep_prob, mode, rng, out, return_mask, bint relu, bias=None, residual=None, broadcast_dims=()
):
    cdef Job job
    cdef Mask decisions
    cdef tuple shape
    if not is_plain(x):
        x = arguments.elements("x", x)
    keep_prob = arguments.keep_probability(keep_prob)
    y = out if fits(out, x) else arguments.result(out, x)
    begin(&job)
    job.task.relu = relu
    if mode == "alpha":
        job.task.scale, job.task.dropped, job.task.shift = arguments.alpha_affine(keep_prob)
    else:
        job.task.scale = arguments.training_scale(keep_prob, mode)
    bias, residual = add_operands(&job, x, bias, residual)
    shape = x.shape
    shared = broadcast_dims
    if type(shared) is not tuple or len(<tuple> shared):
        shared = arguments.shared_axes(broadcast_dims, len(shape))
    mask = None
    if return_mask and (relu or not shared):
        bits = empty_bits(cnp.PyArray_SIZE(x))
        job.task.mask = <unsigned char*> PyBytes_AS_STRING(bits)
        mask = new_mask(bits, shape, keep_prob, mode)
    if shared:
        decisions = keep_mask(shape, keep_prob, shared, rng)
        take(&job, decisions, shape)
        if return_mask and not relu:
            mask = new_mask(decisions._bits, decisions._shape, keep_prob, mode)
    else:
        draw(&job, keep_prob, rng, shape, (), cnp.PyArray_SIZE(x))
    run(&job, x, y, None, residual)
    return y, mask


cdef predict(x, keep_prob, mode, out, bint relu, bias=None, residual=None):
    cdef Job job
    if not is_plain(x):
        x = arguments.elements("x", x)
    keep_prob = arguments.keep_probability(keep_prob)
    mode = arguments.dropout_mode(mode)
    y = out if fits(out, x) else arguments.result(out, x)
    begin(&job)
    job.task.relu = relu
    job.task.scale = arguments.prediction_scale(keep_prob, mode)
    job.task.decision = ALL_KEPT
    bias, residual = add_operands(&job, x, bias, residual)
    run(&job, x, y, None, residual)
    return y


cdef backward(dy, saved, keep_prob, mode, bias_grad, out):
    cdef Job job
    cdef Mask mask = saved if isinstance(saved, Mask) else None
    if mask is not None:
        mask._known()
    begin(&job)
    if type(saved) is Mask and keep_prob is None and mode is None and is_plain(dy) and same_shape(dy, mask._shape):
        job.task.scale = saved.scale
    else:
        dy = arguments.elements("dy", dy)
        saved, job.task.scale = saved_for_backward(saved, keep_prob, mode, dy)
    sums = add_columns(&job, dy) if bias_grad else None
    dx = out if fits(out, dy) else arguments.result(out, dy)
    if mask is not None:
        take(&job, mask, dy.shape)
        run(&job, dy, dx, None, None)
    else:
        job.task.decision = SAVED_OUTPUT
        run(&job, dy, dx, saved, None)
    return (dx, total(sums, dx.dtype)) if bias_grad else dx


cdef Mask keep_mask(shape, keep_prob, shared, rng):
    """The decisions on an array of a shape, with but one along the axes `shared`."""
    cdef Job job
    cdef tuple decided = arguments.decided_shape(shape, shared) if shared else shape
    cdef cnp.npy_intp size = math.prod(decided)
    bits = empty_bits(size)
    begin(&job)
    job.task.mask = <unsigned char*> PyBytes_AS_STRING(bits)
    draw(&job, keep_prob, rng, shape, shared, size)
    run_plain(&job, 0, size)
    return new_mask(bits, decided, keep_prob, "inverted")


cdef int multiply(x, noise, y) except -1:
    """`y = x * noise`, the noise drawn here."""
    cdef Job job
    begin(&job)
    job.task.decision = GAUSSIAN
    job.task.scale = noise.scale
    start_at(&job, noise.seed, noise.offset)
    lay_rows(&job, noise.shape, noise.strides)
    return run(&job, x, y, None, None)


# --- what a job is made of --------------------------------------------------------------------


cdef inline void begin(Job* job) noexcept:
    """Nothing is kept, read or written yet."""
    memset(&job.task, 0, sizeof(job.task))
    job.task.decision = NONE_KEPT
    job.task.scale = 1
    job.has_rows = False
    job.has_columns = False


cdef inline tuple add_operands(Job* job, x, bias, residual):
    """What is added before and after; the arrays returned must outlive the job."""
    cdef ptrdiff_t length
    if bias is not None:
        bias = arguments.bias_for(bias, x)
        length = max(bias.size, 1)
        job.task.period = length * ((BIAS_ROOM + length - 1) // length)
        bias = np.resize(bias.astype(arguments.arithmetic(bias.dtype)), job.task.period + BIAS_ROOM)
        job.task.bias = cnp.PyArray_BYTES(bias)
    if residual is not None:
        residual = arguments.residual_for(residual, x)
    return bias, residual


cdef int draw(Job* job, double keep_prob, rng, tuple shape, shared, cnp.npy_intp size) except -1:
    """Reserve the positions of `size` decisions, and take these from there; the last that can raise."""
    cdef object seed
    cdef Stream stream
    source = rng if type(rng) is Stream else as_source(rng)
    if isinstance(source, Stream):
        stream = source
        start = stream._take(size)
        seed = stream._seed
    else:
        count, start, strides = source.place(shape, shared)
        lay_rows(job, arguments.decided_shape(shape, shared), strides)
        start += source.reserve(count)
        seed = source.seed
    start_at(job, seed, start)
    if keep_prob == 1:
        job.task.decision = ALL_KEPT
    else:
        # Exact: a float64 times a power of two is not rounded, and the cast is the floor.
        job.task.threshold = <uint64_t> ldexp(keep_prob, 64)
        job.task.decision = DRAWN if job.task.threshold else NONE_KEPT
    if job.task.decision != DRAWN:
        job.has_rows = False
    return 0


cdef inline int start_at(Job* job, object seed, object position) except -1:
    job.task.position = PyLong_AsUnsignedLongLongMask(position)  # 2**64 where there is no element
    job.task.seed[0] = PyLong_AsUnsignedLongLongMask(seed)
    job.task.seed[1] = seed >> 64
    return 0


cdef int take(Job* job, Mask mask, tuple shape) except -1:
    """Decisions from a mask, which some axes may share."""
    job.task.decision = SAVED_BITS
    job.task.saved = PyBytes_AS_STRING(mask._bits)
    if mask._shape != shape:
        lay_rows(job, shape, strides_of(mask._shape))
    return 0


cdef tuple strides_of(tuple shape):
    """How far apart elements are on each axis, with 0 along axes of length 1."""
    cdef list strides = []
    stride = 1
    for length in reversed(shape):
        strides.append(stride if length > 1 else 0)
        stride *= length
    return tuple(reversed(strides))


cdef int lay_rows(Job* job, tuple shape, tuple strides) except -1:
    """Where decisions are, for as few and long rows as there can be."""
    cdef list axes = []
    cdef int axis
    for length, stride in zip(shape, strides):
        if length == 1:
            continue
        if axes and axes[-1][1] == stride * length:
            axes[-1] = (axes[-1][0] * length, stride)
        else:
            axes.append((length, stride))
    if not axes or axes[-1][1] > 1:
        axes.append((1, 1))
    job.has_rows = len(axes) > 1 or axes[-1][1] != 1
    job.rows.length, stride = axes.pop()
    job.rows.uniform = stride == 0
    job.rows.axes = len(axes)
    for axis in range(job.rows.axes):
        job.rows.count[axis], job.rows.stride[axis] = axes[axis]
    return 0


cdef add_columns(Job* job, dy):
    """The sums of the result's columns, one of each strip of rows."""
    job.columns.row = arguments.columns_of(dy)
    job.columns.strip = arguments.rows_in_strip(job.columns.row)
    job.has_columns = True
    count = dy.size // job.columns.row if job.columns.row else 0
    sums = np.zeros(((count + job.columns.strip - 1) // job.columns.strip, job.columns.row))
    job.columns.sums = <double*> cnp.PyArray_DATA(sums)
    return sums


cdef total(sums, dtype):
    """The strips added up in order."""
    columns = np.zeros(sums.shape[1])
    with np.errstate(all="ignore"):
        for strip in sums:
            columns += strip
        return columns.astype(dtype)


# --- how it is run ----------------------------------------------------------------------------


cdef int run(Job* job, x, y, saved, residual) except -1:
    """Over arrays of one shape; `saved` is the output that decisions come from, or None."""
    job.task.dtype = element_type(y)
    if is_plain(y) and is_ready(x, y) and is_ready(saved, y) and is_ready(residual, y):
        point(&job.task, 0, x, y, saved, residual)
        return run_plain(job, 0, cnp.PyArray_SIZE(y))
    return run_pieces(job, x, y, saved, residual)


cdef int run_plain(Job* job, ptrdiff_t first, ptrdiff_t last) except -1:
    cdef dispatch.rows* rows = &job.rows if job.has_rows else NULL
    if first == last:
        return 0
    if job.has_columns:
        return dispatch.run_columns(&job.task, rows, &job.columns, first, last)
    return dispatch.run(&job.task, rows, first, last)


cdef int run_pieces(Job* job, x, y, saved, residual) except -1:
    """The same for any strides, byte order and overlap, through NumPy's buffers."""
    cdef ptrdiff_t done = 0, size
    # At least one axis: NumPy 2.0 to 2.2 do not fill the buffers of arrays without any.
    operands = [np.atleast_1d(array) for array in (y, x, saved, residual) if array is not None]
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
            point(&job.task, done, arrays[1], arrays[0], None if saved is None else arrays[2],
                  None if residual is None else arrays[-1])
            run_plain(job, done, done + size)
            done += size
    return 0


cdef inline void point(dropout_pass* task, ptrdiff_t first, x, y, saved, residual) noexcept:
    """Pointers to where element 0 would be, of arrays that begin with element `first`."""
    cdef ptrdiff_t skipped = first * cnp.PyArray_ITEMSIZE(y)
    task.x = <const char*> (<uintptr_t> cnp.PyArray_BYTES(x) - skipped)
    task.y = <char*> (<uintptr_t> cnp.PyArray_BYTES(y) - skipped)
    if saved is not None:
        task.saved = <const char*> (<uintptr_t> cnp.PyArray_BYTES(saved) - skipped)
    if residual is not None:
        task.residual = <const char*> (<uintptr_t> cnp.PyArray_BYTES(residual) - skipped)


# --- arrays -----------------------------------------------------------------------------------


cdef inline int element_type(array) noexcept:
    """The kernel's number for an array's dtype, or -1."""
    cdef int number = cnp.PyArray_TYPE(array)
    if number == cnp.NPY_FLOAT32:
        return FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
    return user_element_type(array, number) if number >= NPY_USERDEF else -1


cdef int user_element_type(array, int number) noexcept:
    global bfloat16_type
    if bfloat16_type < 0 and arguments.is_bfloat16(array.dtype):
        bfloat16_type = number
    return BFLOAT16 if number == bfloat16_type else -1


cdef inline bint is_plain(array) noexcept:
    """Whether the kernel can take an array as it is."""
    return (
        type(array) is cnp.ndarray
        and element_type(array) >= 0
        and cnp.PyArray_IS_C_CONTIGUOUS(array)
        and cnp.PyArray_ISNOTSWAPPED(array)
    )


cdef inline bint is_ready(source, result) noexcept:
    """Whether the kernel can read an input, if there is one, while it writes the result."""
    return source is None or is_plain(source) and apart(source, result)


cdef inline bint fits(out, x) noexcept:
    """Whether `out` is, at a glance, a result array for `x`."""
    return (
        out is not None
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
    return PyBytes_FromStringAndSize(NULL, size // 8 + (size % 8 != 0))


cdef inline Mask new_mask(bits, shape, keep_prob, mode):
    """A Mask of what is known to be right."""
    cdef Mask mask = Mask.__new__(Mask)
    mask._bits = bits
    mask._shape = shape
    mask._keep_prob = keep_prob
    mask._mode = mode
    return mask
