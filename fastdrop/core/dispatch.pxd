from libc.stddef cimport ptrdiff_t

from fastdrop.core.layout cimport Layout
from fastdrop.core.strided cimport Strided
from fastdrop.kernels.sweep cimport dropout_sweep

# The sums of columns, for the gradient of a bias.
ctypedef struct Columns:
    # The number of columns, which is the number of elements per row.
    ptrdiff_t row
    # Rows per strip. The rows of a strip are summed in order.
    ptrdiff_t strip
    # The number of strips.
    ptrdiff_t strips
    # One sum per strip and column, shape (strips, row), zero at first.
    double* sums
    # One element per column: the sums of all strips, added in order and rounded.
    char* total

# A sweep and all that is needed to run it. A pointer is NULL where it is not needed. Running a plan allocates nothing.
ctypedef struct Plan:
    dropout_sweep* sweep
    # Where the decisions lie, unless they are adjacent.
    const Layout* layout
    # The arrays that a kernel cannot take as they are.
    const Strided* strided
    # The sums of the columns of the result.
    const Columns* columns
    # The number of elements.
    ptrdiff_t size
    # The number of threads, at most.
    int threads
    # room_for() bytes per thread, where arrays are strided.
    char* room

# The most threads that a sweep over `size` elements can have.
cdef int threads_for(ptrdiff_t size) noexcept nogil

# Run a plan that is too short for threads, slices or releasing the GIL. Returns False, and has done nothing, where the
# plan is longer: then call choose_stores, run_slice until the end, and sum_strips. The calling thread must be in the
# default floating-point mode.
cdef bint run_whole(const Plan* plan) noexcept nogil

# Choose whether results bypass the cache.
cdef void choose_stores(Plan* plan) noexcept nogil

# Run the slice that begins with element `first`, on threads. Returns the first element of the next slice.
cdef ptrdiff_t run_slice(const Plan* plan, ptrdiff_t first) noexcept nogil

# Run a plan that is too long for run_whole, and has no strips, to its end. No signal is looked at.
cdef void run_slices(Plan* plan) noexcept nogil

# Add up the sums of all strips, and round them to elements.
cdef void sum_strips(const Plan* plan) noexcept nogil
