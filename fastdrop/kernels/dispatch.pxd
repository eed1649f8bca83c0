from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t

from fastdrop.kernels.kernel cimport dropout_pass

cdef enum:
    MAX_AXES = 64   # NumPy's own limit

# An array's rows, where their decisions do not simply follow each other.
ctypedef struct rows:
    ptrdiff_t length            # elements of a row
    bint uniform                # whether a row has one decision in common; else they lie side by side
    int axes                    # the axes before a row's, of lengths `count`, and how far apart on
    ptrdiff_t count[MAX_AXES]   # each of them decisions are
    uint64_t stride[MAX_AXES]

# Where the sums of columns go.
ctypedef struct columns:
    ptrdiff_t row               # elements
    ptrdiff_t strip             # rows that are added up in order; then come the next
    double* sums                # shape (strips, row), zeros at first

cdef int run(dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) except -1
cdef int run_columns(
    dropout_pass* task, const rows* shared, const columns* to, ptrdiff_t first, ptrdiff_t last
) except -1

# The parts of it that need no GIL: a pass that no signal interrupts.
cdef bint can_stream(const dropout_pass* task, ptrdiff_t size) noexcept nogil
cdef void run_slice(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil
