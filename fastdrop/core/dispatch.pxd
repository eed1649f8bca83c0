from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.sweep cimport dropout_sweep
from fastdrop.core.layout cimport Layout
from fastdrop.core.strided cimport Strided

# Where the sums of columns go.
ctypedef struct Columns:
    ptrdiff_t row       # elements of a row, which are as many columns
    ptrdiff_t strip     # rows that are added up in order; then come the next
    ptrdiff_t strips
    double* sums        # shape (strips, row), zeros at first
    char* total         # elements: the strips' sums added up in order, and rounded

# A pass and all that it takes to compute it; what is NULL is not needed. Nothing is allocated for it later.
ctypedef struct Plan:
    dropout_sweep* sweep
    const Layout* layout    # where decisions lie, unless they are side by side
    const Strided* strided  # the arrays that a kernel cannot take as they are
    const Columns* columns  # sums of results
    ptrdiff_t size          # elements
    int threads             # at most
    char* room              # of room_for() bytes for each thread, where arrays are strided

# How many threads a plan over so many elements is worth, and has.
cdef int threads_for(ptrdiff_t size) noexcept nogil

# The whole of a plan that is too short for threads, slices or letting go of the interpreter. False, and nothing
# done, where it is longer: then begin, a slice after the other, finish. The calling thread is in the default
# floating-point mode.
cdef bint run_short(const Plan* plan) noexcept nogil

# Decides whether results bypass the cache.
cdef void begin(Plan* plan) noexcept nogil

# Elements from `first` on, as many as may pass between two looks at pending signals; returns the element after them.
cdef ptrdiff_t run_slice(const Plan* plan, ptrdiff_t first) noexcept nogil

# The sums of columns become elements.
cdef void finish(const Plan* plan) noexcept nogil
