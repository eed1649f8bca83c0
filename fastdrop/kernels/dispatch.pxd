from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.kernel cimport dropout_pass

cdef int run(dropout_pass* task, ptrdiff_t size) except -1

# The parts of it that need no GIL: a pass that no signal interrupts.
cdef bint can_stream(const dropout_pass* task, ptrdiff_t size) noexcept nogil
cdef void run_slice(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil
