"""From the arguments of a call to a sweep of the kernel, in one order for all calls: prepare, gate, compute.

Prepare does everything that can run Python code, raise or allocate. Arguments become arrays, numbers and a source of
positions; results, bits, sums and room for pieces are allocated; inputs that overlap the result are copied.

The gate (gate.pxi) measures every array that the kernel will touch, once, and points the sweep at them. Python code
that ran in between may have changed an array, which is an error here. Then the stream advances.

Compute cannot fail and runs no Python code, except signal handlers between two slices, after which the gate compares
again.

The floating-point mode is the default one from beginning to end. checks.py says what a call accepts.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLongLongAndOverflow, PyLong_AsUnsignedLongLongMask
from cpython.object cimport PyObject
from cpython.ref cimport Py_INCREF, Py_XDECREF
from cpython.tuple cimport PyTuple_New, PyTuple_SET_ITEM
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from fastdrop cimport checks, formulas
from fastdrop.core cimport dispatch
from fastdrop.core.dispatch cimport Columns, Plan
from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.core.layout cimport MAX_AXES, Layout, lay_out
from fastdrop.core.strided cimport Operand, Strided, hand_over, room_for
from fastdrop.kernels.sweep cimport (
    ALL_KEPT, BFLOAT16, BUILD_TAG, DRAWN, FLOAT16, FLOAT32, FLOAT64, GAUSSIAN, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT,
    decision_for, dropout_sweep,
)
from fastdrop.mask cimport Mask
from fastdrop.stream cimport Stream, StreamRows

from fastdrop import checks, formulas
from fastdrop.core.dispatch import same_build
from fastdrop.formulas import POSITIONS
from fastdrop.mask import saved_for_backward
from fastdrop.noise import noise_for_backward, noise_of
from fastdrop.stream import as_source
from fastdrop.usage import wrong_call
from fastdrop.values import Results

same_build(BUILD_TAG, __name__)
cnp.import_array()

cdef enum:
    BIAS_ROOM = 16      # elements that a kernel may read past the period of a bias

cdef struct Call:
    # What the kernel computes.
    dropout_sweep sweep
    # How it is computed. The pointers of a plan are to the other members.
    Plan plan
    Layout layout
    Columns columns
    Strided strided
    # The shape of the arrays, as measured when the call began. The gate compares.
    int axes
    cnp.npy_intp lengths[MAX_AXES]
    # The length of the bias in elements, -1 where there is none; and its element type.
    cnp.npy_intp bias_length
    int bias_type


include "arrays.pxi"
include "source.pxi"
include "gate.pxi"
include "explain.pxi"


# --- the calls --------------------------------------------------------------------------------


cdef forward(
    x_like, keep_prob, mode, rng, out, return_mask, bint relu, bias=None, residual_like=None, broadcast_dims=()
):
    cdef Call call, draws
    cdef cnp.ndarray x, y, residual = None
    cdef Mask written = None    # the mask that the sweep over x writes, one bit per element
    cdef Mask decisions = None  # shared decisions, which a sweep of their own draws first
    cdef Source source
    cdef tuple shape, decided, shared
    cdef bint masked
    cdef float_mode mode_before = enter_default_mode()
    try:
        # Prepare.
        x = elements("x", x_like)
        begin(&call, x)
        shape = shape_of(call.axes, call.lengths)
        keep_prob = checks.keep_probability(keep_prob)
        y = result(out, x)
        call.sweep.relu = relu
        set_affine(&call, keep_prob, mode)
        if bias is not None:
            bias = bias_of(&call, bias, x)
        if residual_like is not None:
            residual = residual_of(&call, residual_like, x)
        masked = return_mask is True or bool(return_mask)
        shared = shared_of(broadcast_dims, len(shape))
        decided = formulas.decided_shape(shape, shared) if shared else shape
        source = source_of(rng, shape, shared, size_of(decided) if shared else call.plan.size)
        if masked and (relu or not shared):
            written = new_mask(shape, keep_prob, mode)
            call.sweep.mask = bits_of(written)
        if shared:
            decisions = begin_mask(&draws, source, decided, keep_prob, mode)
            take(&call, decisions)
        else:
            begin_draws(&call, source, shape, keep_prob)
        bias, x, residual = prepared_bias(&call, bias), apart_from(y, x), apart_from(y, residual)
        _room = prepared_room(&call, x, y, None, residual)
        returned = y if out is None else out
        if masked:
            returned = Results((returned, decisions if written is None else written))
        # Gate.
        seal(&call, "x", x, y, None, residual)
        reserve(source)
        # Compute.
        if shared:
            draws.sweep.position = source.start
            compute(&draws, "x", None, None, None, None)
        else:
            call.sweep.position = source.start
        compute(&call, "x", x, y, None, residual)
        return returned
    finally:
        leave_default_mode(mode_before)


cdef predict(x_like, keep_prob, mode, out, bint relu, bias=None, residual_like=None):
    cdef Call call
    cdef cnp.ndarray x, y, residual = None
    cdef float_mode mode_before = enter_default_mode()
    try:
        x = elements("x", x_like)
        begin(&call, x)
        mode = checks.dropout_mode(mode)
        keep_prob = checks.prediction_probability(keep_prob, mode)
        y = result(out, x)
        call.sweep.relu = relu
        call.sweep.scale = formulas.prediction_scale(keep_prob, mode)
        call.sweep.decision = ALL_KEPT
        if bias is not None:
            bias = bias_of(&call, bias, x)
        if residual_like is not None:
            residual = residual_of(&call, residual_like, x)
        bias, x, residual = prepared_bias(&call, bias), apart_from(y, x), apart_from(y, residual)
        _room = prepared_room(&call, x, y, None, residual)
        seal(&call, "x", x, y, None, residual)
        compute(&call, "x", x, y, None, residual)
        return y if out is None else out
    finally:
        leave_default_mode(mode_before)


cdef backward(dy_like, name, saved, keep_prob, mode, bias_grad, out):
    cdef Call call
    cdef cnp.ndarray dy, dx, y = None
    cdef float_mode mode_before = enter_default_mode()
    try:
        dy = elements("dy", dy_like)
        begin(&call, dy)
        if (
            type(saved) is Mask and keep_prob is None and mode is None and has_shape(<Mask> saved, &call)
            and (name == "mask" or (<Mask> saved)._mode != "alpha")
        ):
            call.sweep.scale = formulas.training_scale((<Mask> saved)._keep_prob, (<Mask> saved)._mode)
        else:
            saved, call.sweep.scale = saved_for_backward(name, saved, keep_prob, mode, dy)
        sums = dbias = None
        if bias_grad is True or bool(bias_grad):
            sums, dbias = prepared_columns(&call, dy)
        dx = result(out, dy)
        if isinstance(saved, Mask):
            take(&call, saved)
        else:
            y = saved
            call.sweep.decision = SAVED_OUTPUT
        dy, y = apart_from(dx, dy), apart_from(dx, y)
        _room = prepared_room(&call, dy, dx, y, None)
        returned = dx if out is None else out
        if sums is not None:
            returned = Results((returned, dbias))
        seal(&call, "dy", dy, dx, y, None)
        compute(&call, "dy", dy, dx, y, None)
        return returned
    finally:
        leave_default_mode(mode_before)


cdef Mask keep_mask(shape, keep_prob, broadcast_dims, rng):
    cdef Call draws
    cdef Mask mask
    cdef Source source
    cdef tuple lengths, shared, decided
    cdef float_mode mode_before = enter_default_mode()
    try:
        lengths = checks.shape_of("shape", shape)
        keep_prob = checks.keep_probability(keep_prob)
        shared = shared_of(broadcast_dims, len(lengths))
        decided = formulas.decided_shape(lengths, shared) if shared else lengths
        source = source_of(rng, lengths, shared, size_of(decided))
        mask = begin_mask(&draws, source, decided, keep_prob, "inverted")
        reserve(source)
        draws.sweep.position = source.start
        compute(&draws, "x", None, None, None, None)
        return mask
    finally:
        leave_default_mode(mode_before)


cdef gaussian_forward(x_like, keep_prob, rng, out):
    cdef Call call
    cdef cnp.ndarray x, y
    cdef Source source
    cdef tuple shape
    cdef float_mode mode_before = enter_default_mode()
    try:
        x = elements("x", x_like)
        begin(&call, x)
        shape = shape_of(call.axes, call.lengths)
        keep_prob = checks.noise_probability(keep_prob)
        y = result(out, x)
        source = source_of(rng, shape, (), call.plan.size)
        x = apart_from(y, x)
        call.sweep.decision = GAUSSIAN
        _room = prepared_room(&call, x, y, None, None)
        while True:     # again if another thread has advanced the stream while the noise was made
            offset = 0 if source.stream is None else source.stream.offset
            noise = noise_at(source, offset, shape, keep_prob)
            begin_noise(&call, noise)
            returned = Results((y if out is None else out, noise))
            seal(&call, "x", x, y, None, None)
            if source.stream is None or source.stream._take_at(offset, source.count):
                break
        compute(&call, "x", x, y, None, None)
        return returned
    finally:
        leave_default_mode(mode_before)


cdef gaussian_backward(dy_like, noise, out):
    cdef Call call
    cdef cnp.ndarray dy, dx
    cdef float_mode mode_before = enter_default_mode()
    try:
        dy = elements("dy", dy_like)
        begin(&call, dy)
        noise = noise_for_backward(noise, dy)
        dx = result(out, dy)
        begin_noise(&call, noise)
        dy = apart_from(dx, dy)
        _room = prepared_room(&call, dy, dx, None, None)
        seal(&call, "dy", dy, dx, None, None)
        compute(&call, "dy", dy, dx, None, None)
        return dx if out is None else out
    finally:
        leave_default_mode(mode_before)


# --- prepare: the sweep -----------------------------------------------------------------------


cdef inline tuple shared_of(broadcast_dims, int axes):
    """Return the axes along which elements share a decision. Most calls have none, and are not checked further."""
    if type(broadcast_dims) is tuple and not len(<tuple> broadcast_dims):
        return ()
    return checks.shared_axes(broadcast_dims, axes)


cdef inline void begin(Call* call, cnp.ndarray x) noexcept:
    """Begin a sweep over arrays of the shape of `x`, which so far keeps, reads and writes nothing."""
    cdef int axis
    begin_size(call, cnp.PyArray_SIZE(x))
    call.axes = cnp.PyArray_NDIM(x)
    for axis in range(call.axes):
        call.lengths[axis] = cnp.PyArray_DIM(x, axis)


cdef inline void begin_size(Call* call, ptrdiff_t size) noexcept:
    memset(&call.sweep, 0, sizeof(call.sweep))
    memset(&call.plan, 0, sizeof(call.plan))
    call.sweep.decision = NONE_KEPT
    call.sweep.scale = 1
    call.plan.sweep = &call.sweep
    call.plan.size = size
    call.plan.threads = dispatch.threads_for(size)
    call.bias_length = -1


cdef inline int set_affine(Call* call, keep_prob, mode) except -1:
    """Set the scale of a kept element, the value of a dropped one, and the shift of both."""
    if mode == "alpha":
        call.sweep.scale, call.sweep.dropped, call.sweep.shift = formulas.alpha_affine(keep_prob)
    else:
        call.sweep.scale = formulas.training_scale(keep_prob, mode)
    return 0


cdef inline Mask begin_mask(Call* draws, Source source, tuple decided, keep_prob, mode):
    """Begin a sweep that draws decisions into a new mask, and return the mask."""
    cdef Mask mask = new_mask(decided, keep_prob, mode)
    begin_size(draws, size_of(decided))
    draws.sweep.mask = bits_of(mask)
    begin_draws(draws, source, decided, keep_prob)
    return mask


cdef inline int begin_draws(Call* call, Source source, tuple decided, double keep_prob) except -1:
    """Let the sweep draw its decisions, unless keep_prob makes them certain."""
    call.sweep.decision = decision_for(keep_prob, &call.sweep.threshold)
    call.sweep.seed[0], call.sweep.seed[1] = source.seed[0], source.seed[1]
    if source.strides is not None and call.sweep.decision == DRAWN and call.plan.size:
        set_layout(call, decided, source.strides)
    return 0


cdef int begin_noise(Call* call, noise) except -1:
    """Let the sweep multiply elements by noise."""
    call.sweep.decision = GAUSSIAN
    call.sweep.scale = noise.scale
    set_seed(call.sweep.seed, noise.seed)
    call.sweep.position = PyLong_AsUnsignedLongLongMask(noise.offset)
    if call.plan.size:
        set_layout(call, noise.shape, noise.strides)
    return 0


cdef int take(Call* call, Mask mask) except -1:
    """Let the sweep take its decisions from a mask, which some axes may share."""
    call.sweep.decision = SAVED_BITS
    call.sweep.saved = <const char*> bits_of(mask)
    if not has_shape(mask, call) and call.plan.size:
        set_layout(call, shape_of(call.axes, call.lengths), strides_of(mask._shape))
    return 0


cdef int set_layout(Call* call, tuple shape, tuple strides) except -1:
    if lay_out(&call.layout, shape, strides):
        call.plan.layout = &call.layout
    return 0


cdef tuple strides_of(tuple shape):
    """The decisions between one index and the next on each axis; 0 along axes of length 1, which share one."""
    cdef list strides = []
    stride = 1
    for length in reversed(shape):
        strides.append(stride if length > 1 else 0)
        stride *= length
    return tuple(reversed(strides))


# An array that plainly fits is not checked further, because the checks take longer than the work on a small array.

cdef inline cnp.ndarray bias_of(const Call* call, bias, cnp.ndarray x):
    """Return what is given as a bias as an array."""
    if (
        type(bias) is cnp.ndarray and call.axes and cnp.PyArray_NDIM(<cnp.ndarray> bias) == 1 and is_plain_like(bias, x)
        and cnp.PyArray_DIM(<cnp.ndarray> bias, 0) == call.lengths[call.axes - 1]
    ):
        return bias
    return checks.bias_for(bias, x)


cdef inline cnp.ndarray residual_of(const Call* call, residual, cnp.ndarray x):
    """Return what is given as a residual as an array."""
    if type(residual) is cnp.ndarray and is_plain_like(residual, x) and has_lengths(residual, call):
        return residual
    return checks.residual_for(residual, x)


cdef inline bint is_plain_like(cnp.ndarray array, cnp.ndarray x) noexcept:
    return is_plain(array) and element_type(array) == element_type(x)


cdef prepared_bias(Call* call, bias):
    """The bias as a kernel takes it: in the dtype of the arithmetic, repeated to a period, then its beginning again."""
    cdef ptrdiff_t length, itemsize, n
    cdef char* data
    if bias is None:
        return None
    call.bias_type = element_type(bias)
    values = bias
    if call.bias_type in (FLOAT16, BFLOAT16) or not is_plain(bias):
        values = np.ascontiguousarray(bias, formulas.arithmetic(bias.dtype))
    length, itemsize = cnp.PyArray_SIZE(values), cnp.PyArray_ITEMSIZE(values)
    call.bias_length = length
    if length == 0:
        return None
    call.sweep.period = length * ((BIAS_ROOM + length - 1) // length)
    repeated = PyBytes_FromStringAndSize(NULL, (call.sweep.period + BIAS_ROOM) * itemsize)
    data = PyBytes_AS_STRING(repeated)
    for n in range(call.sweep.period // length):
        memcpy(data + n * length * itemsize, cnp.PyArray_BYTES(values), length * itemsize)
    memcpy(data + call.sweep.period * itemsize, data, BIAS_ROOM * itemsize)
    call.sweep.bias = data
    return repeated


cdef tuple prepared_columns(Call* call, cnp.ndarray dy):
    """Room for the sums of columns, strip by strip, and for the gradient of the bias."""
    cdef ptrdiff_t rows, bytes_of_sums
    if call.axes == 0:
        checks.columns_of(dy)
    call.columns.row = call.lengths[call.axes - 1]
    call.columns.strip = formulas.rows_in_strip(call.columns.row)
    rows = call.plan.size // call.columns.row if call.columns.row else 0
    call.columns.strips = (rows + call.columns.strip - 1) // call.columns.strip
    dbias = new_array(dy, 1, &call.lengths[call.axes - 1])  # before the sums, as it refuses a row of too many bytes
    bytes_of_sums = max(call.columns.strips, 1) * call.columns.row * sizeof(double)
    sums = PyBytes_FromStringAndSize(NULL, bytes_of_sums)
    call.columns.sums = <double*> PyBytes_AS_STRING(sums)
    memset(call.columns.sums, 0, bytes_of_sums)
    call.columns.total = cnp.PyArray_BYTES(dbias)
    call.plan.columns = &call.columns
    return sums, dbias


# --- prepare: arrays --------------------------------------------------------------------------


cdef inline cnp.ndarray elements(name, value):
    """`value` as an array of a dtype that kernels know."""
    if type(value) is cnp.ndarray and element_type(<cnp.ndarray> value) >= 0:
        return <cnp.ndarray> value
    return checks.elements(name, value)


cdef inline cnp.ndarray result(out, cnp.ndarray x):
    """The array to write to, of no subclass."""
    if out is None:
        return new_array(x, cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x))
    if isinstance(out, cnp.ndarray) and fits(out, x):
        return out
    return checks.result(out, x)


cdef inline cnp.ndarray new_array(cnp.ndarray like, int axes, cnp.npy_intp* lengths):
    """An array of these lengths, of the dtype of another, in this machine's byte order."""
    cdef int number = cnp.PyArray_TYPE(like)
    if number < NPY_USERDEF:
        return cnp.PyArray_EMPTY(axes, lengths, number, 0)
    return np.empty(shape_of(axes, lengths), checks.native((<object> like).dtype))


cdef inline bint fits(cnp.ndarray out, cnp.ndarray x) noexcept:
    """Whether a quick look shows that `out` is a result array for `x`."""
    return (
        type(out) is cnp.ndarray
        and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_ISWRITEABLE(out)
        and cnp.PyArray_SAMESHAPE(out, x)
        and not overlaps_itself(out)
    )


cdef inline cnp.ndarray apart_from(cnp.ndarray y, cnp.ndarray array):
    """`array`, copied if writing `y` could change what is still to be read of it."""
    return cnp.PyArray_NewCopy(array, cnp.NPY_CORDER) if array is not None and conflicts(array, y) else array


cdef prepared_room(Call* call, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual):
    """Room for a piece of each array on each thread, where an array is strided. The caller holds it while it is in use."""
    cdef ptrdiff_t per_thread
    call.sweep.dtype = element_type(y)
    if not point(call, x, y, saved, residual):
        return None
    per_thread = room_for(cnp.PyArray_ITEMSIZE(y), call.strided.piece)
    room = PyBytes_FromStringAndSize(NULL, call.plan.threads * per_thread)
    call.plan.room = PyBytes_AS_STRING(room)
    return room


cdef inline Mask new_mask(tuple shape, keep_prob, mode):
    """A mask whose bits the sweep will write. Its other fields have been checked."""
    cdef Mask mask = Mask.__new__(Mask)
    cdef ptrdiff_t size = size_of(shape)
    mask._bits = PyBytes_FromStringAndSize(NULL, size // 8 + (size % 8 != 0))
    mask._shape = shape
    mask._keep_prob = keep_prob
    mask._mode = mode
    return mask


cdef inline unsigned char* bits_of(Mask mask) except NULL:
    mask._known()
    return <unsigned char*> PyBytes_AS_STRING(mask._bits)


cdef inline bint has_shape(Mask mask, const Call* call) except -1:
    """Whether a mask has the shape of the arrays. One that was never initialised has none."""
    cdef tuple shape = mask._shape
    cdef int axis
    if shape is None or len(shape) != call.axes:
        return False
    for axis in range(call.axes):
        if <ptrdiff_t> shape[axis] != call.lengths[axis]:
            return False
    return True


cdef tuple shape_of(int axes, const cnp.npy_intp* lengths):
    cdef tuple shape = PyTuple_New(axes)
    cdef int axis
    for axis in range(axes):
        length = <object> <ptrdiff_t> lengths[axis]
        Py_INCREF(length)   # the tuple takes this reference
        PyTuple_SET_ITEM(shape, axis, length)
    return shape


cdef inline ptrdiff_t size_of(tuple shape) noexcept:
    """The number of elements. A shape has been checked to have fewer than 2**63."""
    cdef ptrdiff_t size = 1
    for length in shape:
        size *= <ptrdiff_t> length
    return size


# --- compute ----------------------------------------------------------------------------------


cdef int compute(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """Run the plan slice by slice. Pending signals are handled between two slices, never after the last."""
    cdef ptrdiff_t first = 0, size = call.plan.size
    if dispatch.run_whole(&call.plan):
        return 0
    dispatch.choose_stores(&call.plan)
    while True:
        with nogil:
            first = dispatch.run_slice(&call.plan, first)
        if first == size:
            break
        PyErr_CheckSignals()
        check_seal(call, name, x, y, saved, residual)
    dispatch.sum_strips(&call.plan)
    return 0
