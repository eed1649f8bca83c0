"""The kernels on raw pointers, without the GIL: what ``cimport fastdrop`` gives.

The declarations in capi.pxd are the interface and say what each function does; `__pyx_capi__`
has the same functions for whatever can call a C function pointer.
"""

from pathlib import Path

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t
from libc.string cimport memset

from fastdrop.kernels cimport dispatch, kernel
from fastdrop.kernels.dispatch cimport Sweep
from fastdrop.kernels.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.kernels.kernel cimport BUILD_TAG, dropout_pass

from fastdrop import cpu  # no-cython-lint  (it chooses the kernel)
from fastdrop.kernels.dispatch import same_build

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


cdef const char* status_text(int status) noexcept nogil:
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


cdef int fill_bits(
    unsigned char* bits, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil:
    cdef dropout_pass task
    cdef int status = begin(&task, FLOAT32, size, 1)
    if status == OK:
        status = draw(&task, size, keep_prob, stream)
    if status == OK and bits == NULL and size:
        status = BAD_POINTER
    if status == OK:
        task.mask = bits
        run(&task, size)
    return status


cdef int forward(
    int dtype, bint relu, const void* x, void* y, unsigned char* bits, ptrdiff_t size,
    double keep_prob, double scale, const fastdrop_stream* stream,
) noexcept nogil:
    cdef dropout_pass task
    cdef int status = begin(&task, dtype, size, scale)
    if status == OK:
        status = draw(&task, size, keep_prob, stream)
    if status != OK:
        return status
    task.relu = relu
    task.mask = bits
    return apply(&task, x, y, size)


cdef int backward(
    int dtype, const void* dy, const unsigned char* bits, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    return backward_from(kernel.SAVED_BITS, dtype, dy, bits, dx, size, scale)


cdef int backward_from_output(
    int dtype, const void* dy, const void* y, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    return backward_from(kernel.SAVED_OUTPUT, dtype, dy, y, dx, size, scale)


cdef int backward_from(
    int decision, int dtype, const void* dy, const void* saved, void* dx, ptrdiff_t size, double scale
) noexcept nogil:
    cdef dropout_pass task
    cdef int status = begin(&task, dtype, size, scale)
    if status != OK:
        return status
    if saved == NULL and size:
        return BAD_POINTER
    task.decision = decision
    task.saved = <const char*> saved
    return apply(&task, dy, dx, size)


cdef int begin(dropout_pass* task, int dtype, ptrdiff_t size, double scale) noexcept nogil:
    """A pass that neither reads nor writes anything yet."""
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
    memset(task, 0, sizeof(task[0]))
    task.dtype = kind
    task.scale = scale
    return OK


cdef int draw(
    dropout_pass* task, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil:
    """Decisions from the stream."""
    task.decision = kernel.decision_for(keep_prob, &task.threshold)
    if task.decision < 0:
        return BAD_KEEP_PROB
    if stream == NULL:
        return BAD_POINTER
    if size and <uint64_t> (size - 1) > ~stream.offset:
        return BAD_OFFSET
    task.seed[0] = stream.seed[0]
    task.seed[1] = stream.seed[1]
    task.position = stream.offset
    return OK


cdef int apply(dropout_pass* task, const void* x, void* y, ptrdiff_t size) noexcept nogil:
    if (x == NULL or y == NULL) and size:
        return BAD_POINTER
    task.x = <const char*> x
    task.y = <char*> y
    run(task, size)
    return OK


cdef void run(dropout_pass* task, ptrdiff_t size) noexcept nogil:
    """The whole pass, which no signal interrupts."""
    cdef Sweep sweep
    cdef ptrdiff_t done = 0
    cdef float_mode mode = enter_default_mode()
    memset(&sweep, 0, sizeof(sweep))
    sweep.task = task
    sweep.size = size
    sweep.threads = dispatch.threads_for(size)
    if not dispatch.run_short(&sweep):
        dispatch.begin(&sweep)
        while done < size:
            done = dispatch.run_slice(&sweep, done)
    leave_default_mode(mode)
