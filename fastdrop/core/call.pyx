"""From a call to a kernel, in an order that no call departs from: prepare, gate, compute.

Prepare: whatever can run Python code, raise or allocate. Arguments become arrays, numbers and a source of positions;
results, bits, sums and room for pieces are allocated; what overlaps the result is copied.
Gate: `seal` reads the C fields of every array that a kernel will touch, once, compares them with each other and with
what was prepared, and points the pass at them. Python code that ran meanwhile may have changed an array: that is an
error here. Then positions are reserved.
Compute: nothing fails and no Python runs, but for signals between two slices, after which the seal is compared again.

What a call accepts and says is in checks.py. All of it runs in the default floating-point mode.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsUnsignedLongLongMask
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcmp, memcpy, memset

from fastdrop cimport checks, formulas
from fastdrop.core cimport dispatch
from fastdrop.core.dispatch cimport Columns, Plan
from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.kernels.sweep cimport (
    ALL_KEPT, BFLOAT16, BUILD_TAG, DRAWN, FLOAT16, FLOAT32, FLOAT64, GAUSSIAN, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT,
    decision_for, dropout_sweep,
)
from fastdrop.core.layout cimport MAX_AXES, Layout, lay_out
from fastdrop.mask cimport Mask
from fastdrop.stream cimport Stream, StreamRows
from fastdrop.core.strided cimport Operand, Strided, join_axes, piece_of, room_for

from fastdrop import checks, cpu, formulas  # no-cython-lint  (cpu chooses the kernel)
from fastdrop.core.dispatch import same_build
from fastdrop.mask import saved_for_backward
from fastdrop.formulas import POSITIONS
from fastdrop.noise import GaussianNoise, noise_for_backward
from fastdrop.stream import as_source

same_build(BUILD_TAG, __name__)
cnp.import_array()

include "arrays.pxi"

cdef enum:
    BIAS_ROOM = 16      # elements that a kernel may read past a bias's period

cdef struct Call:
    dropout_sweep sweep
    Plan plan             # its pointers are to the other members
    Layout layout
    Columns columns
    Strided strided
    int axes                # of the arrays, as measured when the call began; the gate measures again
    cnp.npy_intp lengths[MAX_AXES]
    cnp.npy_intp bias_length    # -1 without a bias
    int bias_type               # its element type


@cython.final
@cython.no_gc       # what it holds never refers back to it
@cython.freelist(8)
cdef class Source:
    """Where a call's decisions come from: how many positions of a stream it reserves, and where in them it draws."""
    cdef Stream stream      # None: nothing is reserved, as a Tile says where it lies
    cdef object count       # of positions
    cdef object key         # the seed
    cdef uint64_t seed[2]   # low, high
    cdef uint64_t start     # after the first of the positions
    cdef tuple strides      # of decisions; None: side by side


# --- the calls --------------------------------------------------------------------------------


cdef forward(
    x_like, keep_prob, mode, rng, out, return_mask, bint relu, bias=None, residual_like=None, broadcast_dims=()
):
    cdef Call call, draws
    cdef cnp.ndarray x, y, residual = None
    cdef Mask mask = None, decisions = None
    cdef Source source
    cdef tuple shape, decided, shared = ()
    cdef bint masked
    cdef float_mode mode_before = enter_default_mode()
    try:
        # Prepare.
        x = elements("x", x_like)
        begin(&call, x)
        shape = shape_of(x)
        keep_prob = checks.keep_probability(keep_prob)
        y = result(out, x)
        call.sweep.relu = relu
        if mode == "alpha":
            call.sweep.scale, call.sweep.dropped, call.sweep.shift = formulas.alpha_affine(keep_prob)
        else:
            call.sweep.scale = formulas.training_scale(keep_prob, mode)
        if bias is not None:
            bias = checks.bias_for(bias, x)
        if residual_like is not None:
            residual = checks.residual_for(residual_like, x)
        masked = return_mask is True or bool(return_mask)
        if type(broadcast_dims) is not tuple or len(<tuple> broadcast_dims):
            shared = checks.shared_axes(broadcast_dims, len(shape))
        decided = formulas.decided_shape(shape, shared) if shared else shape
        source = source_of(rng, shape, shared, size_of(decided) if shared else call.plan.size)
        if masked and (relu or not shared):
            mask = new_mask(shape, keep_prob, mode)
            call.sweep.mask = bits_of(mask)
        if shared:
            decisions = begin_mask(&draws, source, decided, keep_prob, mode)
            take(&call, decisions, shape)
            mask = mask if relu else decisions
        else:
            begin_draws(&call, source, shape, keep_prob)
        bias, x, residual = prepared_bias(&call, bias), apart_from(y, x), apart_from(y, residual)
        _room = prepared_room(&call, x, y, None, residual)
        returned = (y if out is None else out, mask if masked else None)
        # Gate.
        seal(&call, "x", x, y, None, residual)
        reserve(source)
        # Compute.
        if shared:
            start_at(&draws, source)
            compute(&draws, "x", None, None, None, None)
        else:
            start_at(&call, source)
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
        keep_prob = checks.keep_probability(keep_prob)
        mode = checks.dropout_mode(mode)
        y = result(out, x)
        call.sweep.relu = relu
        call.sweep.scale = formulas.prediction_scale(keep_prob, mode)
        call.sweep.decision = ALL_KEPT
        if bias is not None:
            bias = checks.bias_for(bias, x)
        if residual_like is not None:
            residual = checks.residual_for(residual_like, x)
        bias, x, residual = prepared_bias(&call, bias), apart_from(y, x), apart_from(y, residual)
        _room = prepared_room(&call, x, y, None, residual)
        seal(&call, "x", x, y, None, residual)
        compute(&call, "x", x, y, None, residual)
        return y if out is None else out
    finally:
        leave_default_mode(mode_before)


cdef backward(dy_like, saved, keep_prob, mode, bias_grad, out):
    cdef Call call
    cdef cnp.ndarray dy, dx, y = None
    cdef Mask mask = None
    cdef tuple shape
    cdef float_mode mode_before = enter_default_mode()
    try:
        dy = elements("dy", dy_like)
        begin(&call, dy)
        shape = shape_of(dy)
        if type(saved) is Mask and keep_prob is None and mode is None and (<Mask> saved)._shape == shape:
            call.sweep.scale = formulas.training_scale((<Mask> saved)._keep_prob, (<Mask> saved)._mode)
        else:
            saved, call.sweep.scale = saved_for_backward(saved, keep_prob, mode, dy)
        sums = dbias = None
        if bias_grad is True or bool(bias_grad):
            sums, dbias = prepared_columns(&call, dy, shape)
        dx = result(out, dy)
        if isinstance(saved, Mask):
            mask = saved
            take(&call, mask, shape)
        else:
            y = saved
            call.sweep.decision = SAVED_OUTPUT
        dy, y = apart_from(dx, dy), apart_from(dx, y)
        _room = prepared_room(&call, dy, dx, y, None)
        returned = dx if out is None else out
        if sums is not None:
            returned = (returned, dbias)
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
        shared = checks.shared_axes(broadcast_dims, len(lengths))
        decided = formulas.decided_shape(lengths, shared) if shared else lengths
        source = source_of(rng, lengths, shared, size_of(decided))
        mask = begin_mask(&draws, source, decided, keep_prob, "inverted")
        reserve(source)
        start_at(&draws, source)
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
        shape = shape_of(x)
        keep_prob = checks.noise_probability(keep_prob)
        y = result(out, x)
        source = source_of(rng, shape, (), call.plan.size)
        x = apart_from(y, x)
        _room = prepared_room(&call, x, y, None, None)
        while True:     # until no other thread has moved the stream on while the noise was made
            offset = 0 if source.stream is None else source.stream.offset
            noise = noise_at(source, offset, shape, keep_prob)
            begin_noise(&call, noise)
            returned = (y if out is None else out, noise)
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


# --- prepare: the pass ------------------------------------------------------------------------


cdef inline void begin(Call* call, cnp.ndarray x) noexcept:
    """A pass over arrays like `x`, which keeps, reads and writes nothing yet."""
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


cdef inline Mask begin_mask(Call* draws, Source source, tuple decided, keep_prob, mode):
    """A pass that draws decisions into a mask, which it returns."""
    cdef Mask mask = new_mask(decided, keep_prob, mode)
    begin_size(draws, size_of(decided))
    draws.sweep.mask = bits_of(mask)
    begin_draws(draws, source, decided, keep_prob)
    return mask


cdef inline int begin_draws(Call* call, Source source, tuple decided, double keep_prob) except -1:
    """Decisions that are drawn, unless they are certain."""
    call.sweep.decision = decision_for(keep_prob, &call.sweep.threshold)
    call.sweep.seed[0], call.sweep.seed[1] = source.seed[0], source.seed[1]
    if source.strides is not None and call.sweep.decision == DRAWN and call.plan.size:
        set_layout(call, decided, source.strides)
    return 0


cdef int begin_noise(Call* call, noise) except -1:
    """Elements that are multiplied by noise."""
    cdef object seed = noise.seed
    call.sweep.decision = GAUSSIAN
    call.sweep.scale = noise.scale
    call.sweep.seed[0], call.sweep.seed[1] = PyLong_AsUnsignedLongLongMask(seed), seed >> 64
    call.sweep.position = PyLong_AsUnsignedLongLongMask(noise.offset)
    if call.plan.size:
        set_layout(call, noise.shape, noise.strides)
    return 0


cdef int take(Call* call, Mask mask, tuple shape) except -1:
    """Decisions from a mask, which some axes may share."""
    call.sweep.decision = SAVED_BITS
    call.sweep.saved = <const char*> bits_of(mask)
    if mask._shape != shape and call.plan.size:
        set_layout(call, shape, strides_of(mask._shape))
    return 0


cdef int set_layout(Call* call, tuple shape, tuple strides) except -1:
    if lay_out(&call.layout, shape, strides):
        call.plan.layout = &call.layout
    return 0


cdef tuple strides_of(tuple shape):
    """How far apart decisions are on each axis, with 0 along axes of length 1, which share one."""
    cdef list strides = []
    stride = 1
    for length in reversed(shape):
        strides.append(stride if length > 1 else 0)
        stride *= length
    return tuple(reversed(strides))


cdef prepared_bias(Call* call, bias):
    """A bias as a kernel wants it: in the dtype of the arithmetic, repeated to a period, and then its beginning."""
    cdef ptrdiff_t length, itemsize, n
    cdef char* data
    if bias is None:
        return None
    call.bias_type = element_type(bias)
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


cdef tuple prepared_columns(Call* call, dy, tuple shape):
    """Room for the sums of the result's columns, strip by strip, and for the bias's gradient."""
    cdef ptrdiff_t rows
    cdef cnp.npy_intp dims[2]
    checks.columns_of(dy)
    call.columns.row = shape[len(shape) - 1]
    call.columns.strip = formulas.rows_in_strip(call.columns.row)
    rows = call.plan.size // call.columns.row if call.columns.row else 0
    call.columns.strips = (rows + call.columns.strip - 1) // call.columns.strip
    dims[0], dims[1] = max(call.columns.strips, 1), call.columns.row
    sums = cnp.PyArray_ZEROS(2, dims, cnp.NPY_FLOAT64, 0)
    dbias = np.empty(call.columns.row, dy.dtype.newbyteorder("="))
    call.columns.sums = <double*> cnp.PyArray_DATA(sums)
    call.columns.total = cnp.PyArray_BYTES(dbias)
    call.plan.columns = &call.columns
    return sums, dbias


# --- prepare: where decisions come from -------------------------------------------------------


cdef Source source_of(rng, tuple shape, tuple shared, ptrdiff_t decisions):
    """What `rng` stands for in a call on a shape that takes so many decisions."""
    cdef Source source = Source.__new__(Source)
    if type(rng) is not Stream:
        rng = as_source(rng)
    if isinstance(rng, Stream):
        source.stream = rng
        source.count = decisions
        source.start = 0
    else:
        source.count, start, source.strides = rng.place(shape, shared)
        source.start = PyLong_AsUnsignedLongLongMask(start)
        if type(rng) is StreamRows:
            source.stream = (<StreamRows> rng)._stream
    if source.stream is None:
        source.key = rng.seed
    else:
        source.stream._known()
        source.key = source.stream._seed
    source.seed[0], source.seed[1] = PyLong_AsUnsignedLongLongMask(source.key), source.key >> 64
    return source


cdef inline int reserve(Source source) except -1:
    """Move the stream on; the last that can raise. `start` is then where the decisions are."""
    if source.stream is not None:
        source.start += PyLong_AsUnsignedLongLongMask(source.stream._take(source.count))
    return 0


cdef inline void start_at(Call* call, Source source) noexcept:
    call.sweep.position = source.start


cdef noise_at(Source source, offset, tuple shape, keep_prob):
    """The noise of a call whose stream is at `offset`."""
    if source.stream is not None and offset + source.count > POSITIONS:
        source.stream._take(source.count)   # which says what is wrong
    return GaussianNoise(source.key, offset + source.start, shape, keep_prob, source.strides)


# --- prepare: arrays --------------------------------------------------------------------------


cdef inline cnp.ndarray elements(name, value):
    """`value` as an array of a dtype that kernels know."""
    if type(value) is cnp.ndarray and element_type(<cnp.ndarray> value) >= 0:
        return <cnp.ndarray> value
    return checks.elements(name, value)


cdef inline cnp.ndarray result(out, cnp.ndarray x):
    """The array to write to, with nothing but NumPy's own type."""
    cdef int number = cnp.PyArray_TYPE(x)
    if out is None and number < NPY_USERDEF:
        return cnp.PyArray_EMPTY(cnp.PyArray_NDIM(x), cnp.PyArray_DIMS(x), number, 0)
    if isinstance(out, cnp.ndarray) and fits(out, x):
        return out
    return checks.result(out, x)


cdef inline bint fits(cnp.ndarray out, cnp.ndarray x) noexcept:
    """Whether `out` is, at a glance, a result array for `x`."""
    return (
        is_plain(x)
        and is_plain(out)
        and cnp.PyArray_TYPE(out) == cnp.PyArray_TYPE(x)
        and cnp.PyArray_ISWRITEABLE(out)
        and cnp.PyArray_SAMESHAPE(out, x)
    )


cdef inline cnp.ndarray apart_from(cnp.ndarray y, cnp.ndarray array):
    """`array`, copied where writing `y` would change what is yet to be read of it."""
    return cnp.PyArray_NewCopy(array, cnp.NPY_CORDER) if array is not None and conflicts(array, y) else array


cdef prepared_room(Call* call, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual):
    """Room for the pieces of each thread, where an array is strided. It is in use while somebody holds it."""
    if all_plain(x, y, saved, residual):
        return None
    room = PyBytes_FromStringAndSize(NULL, call.plan.threads * room_for(cnp.PyArray_ITEMSIZE(y), piece_of(call.plan.size)))
    call.plan.room = PyBytes_AS_STRING(room)
    return room


cdef inline Mask new_mask(tuple shape, keep_prob, mode):
    """A mask whose bits are yet to be written. What else it holds has been checked."""
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


cdef inline tuple shape_of(array):
    return array.shape


cdef inline ptrdiff_t size_of(tuple shape) noexcept:
    """The number of elements; a shape has been checked to have fewer than 2**63."""
    cdef ptrdiff_t size = 1
    for length in shape:
        size *= <ptrdiff_t> length
    return size


# --- the gate ---------------------------------------------------------------------------------


cdef int seal(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """Point the pass at its arrays, all of which have to be what it was prepared for. `x` is called `name`."""
    cdef int dtype = element_type(y)
    check_array(call, "out", y, dtype)
    check_array(call, name, x, dtype)
    check_array(call, "saved", saved, dtype)
    check_array(call, "residual", residual, dtype)
    if not cnp.PyArray_ISWRITEABLE(y) or overlaps_itself(y):
        raise changed("out")
    if call.bias_length >= 0 and (call.bias_type != dtype or call.bias_length != call.lengths[call.axes - 1]):
        raise changed("bias")
    if conflicts(x, y) or conflicts(saved, y) or conflicts(residual, y):
        raise changed("out")
    call.sweep.dtype = dtype
    if point(&call.sweep, &call.strided, x, y, saved, residual):
        if call.plan.room == NULL:
            raise changed(name)
        call.strided.piece = piece_of(call.plan.size)
        call.plan.strided = &call.strided
    return 0


cdef int check_seal(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """The same after Python code had a chance to run: every array has to be where it was."""
    cdef dropout_sweep sweep = call.sweep
    cdef Strided strided = call.strided
    if y is None:
        return 0
    seal(call, name, x, y, saved, residual)
    if memcmp(&sweep, &call.sweep, sizeof(sweep)) or (
        call.plan.strided != NULL and memcmp(&strided, &call.strided, sizeof(strided))
    ):
        raise changed(name)
    return 0


cdef inline int check_array(const Call* call, name, cnp.ndarray array, int dtype) except -1:
    if array is not None and not (
        type(array) is cnp.ndarray and dtype >= 0 and element_type(array) == dtype and has_lengths(array, call)
    ):
        raise changed(name)
    return 0


cdef inline bint has_lengths(cnp.ndarray array, const Call* call) noexcept:
    cdef int axis
    if cnp.PyArray_NDIM(array) != call.axes:
        return False
    for axis in range(call.axes):
        if cnp.PyArray_DIM(array, axis) != call.lengths[axis]:
            return False
    return True


cdef changed(name):
    return RuntimeError(
        f"{name} must stay as it is while a call is under way, got an array that a callback or another thread has "
        "changed"
    )


cdef bint point(
    dropout_sweep* sweep, Strided* strided, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) noexcept:
    """Whether some of the arrays are strided."""
    cdef int axis
    sweep.x = cnp.PyArray_BYTES(x)
    sweep.y = cnp.PyArray_BYTES(y)
    if saved is not None:
        sweep.saved = cnp.PyArray_BYTES(saved)
    if residual is not None:
        sweep.residual = cnp.PyArray_BYTES(residual)
    if all_plain(x, y, saved, residual):
        return False
    strided.axes = cnp.PyArray_NDIM(y)
    for axis in range(strided.axes):
        strided.count[axis] = cnp.PyArray_DIM(y, axis)
    point_operand(&strided.x, x)
    point_operand(&strided.y, y)
    point_operand(&strided.saved, saved)
    point_operand(&strided.residual, residual)
    join_axes(strided)
    return True


cdef void point_operand(Operand* operand, cnp.ndarray array) noexcept:
    cdef int axis
    operand.data = NULL
    if array is None or is_plain(array):
        return
    operand.data = cnp.PyArray_BYTES(array)
    operand.swapped = not cnp.PyArray_ISNOTSWAPPED(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        operand.stride[axis] = cnp.PyArray_STRIDE(array, axis)


# --- compute ----------------------------------------------------------------------------------


cdef int compute(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """The pass, slice by slice; signals are looked at between two of them, never after the last."""
    cdef ptrdiff_t first = 0, size = call.plan.size
    if dispatch.run_short(&call.plan):
        return 0
    dispatch.begin(&call.plan)
    while True:
        with nogil:
            first = dispatch.run_slice(&call.plan, first)
        if first == size:
            break
        PyErr_CheckSignals()
        check_seal(call, name, x, y, saved, residual)
    dispatch.finish(&call.plan)
    return 0
