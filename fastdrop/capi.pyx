"""The kernels on raw pointers, without the GIL: what ``cimport fastdrop`` gives.

The declarations in capi.pxd are the interface and say what each function does; `__pyx_capi__`
has the same functions for whatever can call a C function pointer.
"""

from pathlib import Path

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t
from libc.string cimport memset

from fastdrop.core cimport dispatch
from fastdrop.core.dispatch cimport Plan
from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.kernels cimport sweep as kernel
from fastdrop.kernels.sweep cimport BUILD_TAG, dropout_sweep

from fastdrop.core.dispatch import same_build

same_build(BUILD_TAG, __name__)


def get_include():
    """The folder of ``fastdrop.h``, for ``include_dirs`` of an extension that cimports fastdrop.

    Returns
    -------
    path : str

    Examples
    --------
    >>> import os
    >>> import fastdrop as fd
    >>> os.listdir(fd.get_include())
    ['fastdrop.h']
    """
    return str(Path(__file__).parent / "include")


cdef int api_version() noexcept nogil:
    return API_VERSION


cdef const char* status_text(fastdrop_status status) noexcept nogil:
    if status == OK:
        return "ok"
    if status == BAD_DTYPE:
        return "dtype must be FLOAT32, FLOAT64, FLOAT16 or BFLOAT16"
    if status == BAD_SIZE:
        return "size must not be negative"
    if status == BAD_KEEP_PROB:
        return "keep_prob must be in [0, 1]: it is the probability that an element is kept"
    if status == BAD_OFFSET:
        return "stream.offset + size must not exceed 2**64"
    if status == BAD_POINTER:
        return "elements, bits and stream must not be NULL"
    return "no status of fastdrop"


cdef fastdrop_status fill_bits(
    unsigned char* bits, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil:
    cdef dropout_sweep sweep
    cdef int status = begin(&sweep, FLOAT32, size, 1)
    if status == OK:
        status = draw(&sweep, size, keep_prob, stream)
    if status == OK and bits == NULL and size:
        status = BAD_POINTER
    if status == OK:
        sweep.mask = bits
        run(&sweep, size)
    return status


cdef fastdrop_status forward(
    int dtype, bint relu, const void* x, void* y, unsigned char* bits, ptrdiff_t size,
    double keep_prob, double scale, const fastdrop_stream* stream,
) noexcept nogil:
    cdef dropout_sweep sweep
    cdef int status = begin(&sweep, dtype, size, scale)
    if status == OK:
        status = draw(&sweep, size, keep_prob, stream)
    if status != OK:
        return status
    sweep.relu = relu
    sweep.mask = bits
    return apply(&sweep, x, y, size)


cdef fastdrop_status backward(
    int dtype, const void* dy, const unsigned char* bits, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    return backward_from(kernel.SAVED_BITS, dtype, dy, bits, dx, size, scale)


cdef fastdrop_status backward_from_output(
    int dtype, const void* dy, const void* y, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    return backward_from(kernel.SAVED_OUTPUT, dtype, dy, y, dx, size, scale)


cdef int backward_from(
    int decision, int dtype, const void* dy, const void* saved, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    cdef dropout_sweep sweep
    cdef int status = begin(&sweep, dtype, size, scale)
    if status != OK:
        return status
    if saved == NULL and size:
        return BAD_POINTER
    sweep.decision = decision
    sweep.saved = <const char*> saved
    return apply(&sweep, dy, dx, size)


cdef int begin(dropout_sweep* sweep, int dtype, ptrdiff_t size, double scale) noexcept nogil:
    """Begin a sweep that so far reads and writes nothing."""
    cdef int kind
    if dtype == FLOAT32:
        kind = kernel.FLOAT32
    elif dtype == FLOAT64:
        kind = kernel.FLOAT64
    elif dtype == FLOAT16:
        kind = kernel.FLOAT16
    elif dtype == BFLOAT16:
        kind = kernel.BFLOAT16
    else:
        return BAD_DTYPE
    if size < 0:
        return BAD_SIZE
    memset(sweep, 0, sizeof(sweep[0]))
    sweep.dtype = kind
    sweep.scale = scale
    return OK


cdef int draw(
    dropout_sweep* sweep, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil:
    """Let the sweep draw its decisions from the stream."""
    sweep.decision = kernel.decision_for(keep_prob, &sweep.threshold)
    if sweep.decision < 0:
        return BAD_KEEP_PROB
    if stream == NULL:
        return BAD_POINTER
    if size and <uint64_t> (size - 1) > ~stream.offset:
        return BAD_OFFSET
    sweep.seed[0] = stream.seed[0]
    sweep.seed[1] = stream.seed[1]
    sweep.position = stream.offset
    return OK


cdef int apply(dropout_sweep* sweep, const void* x, void* y, ptrdiff_t size) noexcept nogil:
    if (x == NULL or y == NULL) and size:
        return BAD_POINTER
    sweep.x = <const char*> x
    sweep.y = <char*> y
    run(sweep, size)
    return OK


cdef void run(dropout_sweep* sweep, ptrdiff_t size) noexcept nogil:
    """Run the whole sweep, which no signal interrupts."""
    cdef Plan plan
    cdef float_mode mode = enter_default_mode()
    memset(&plan, 0, sizeof(plan))
    plan.sweep = sweep
    plan.size = size
    plan.threads = dispatch.threads_for(size)
    if not dispatch.run_whole(&plan):
        dispatch.run_slices(&plan)
    leave_default_mode(mode)
