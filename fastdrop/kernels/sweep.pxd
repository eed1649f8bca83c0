# This declares sweep.h to Cython.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t

cdef extern from *:
    # setup.py makes these of the files that a module is compiled from. The first names a kernel's capsule.
    const char* KERNEL_TAG "FASTDROP_KERNEL_TAG"
    const char* BUILD_TAG "FASTDROP_BUILD_TAG"

cdef extern from "sweep.h":
    enum:
        FLOAT32
        FLOAT64
        FLOAT16
        BFLOAT16
        ELEMENT_TYPES
        DRAWN
        SAVED_BITS
        SAVED_OUTPUT
        ALL_KEPT
        NONE_KEPT
        GAUSSIAN
        UNIT
        BLOCK
    ctypedef struct dropout_sweep:
        int dtype
        int relu
        int decision
        int streaming
        const char* x
        char* y
        double scale
        double dropped
        double shift
        const char* residual
        ptrdiff_t row
        ptrdiff_t x_gap
        ptrdiff_t y_gap
        ptrdiff_t residual_gap
        const char* bias
        ptrdiff_t period
        const char* saved
        uint64_t saved_bit
        unsigned char* mask
        uint64_t seed[2]
        uint64_t position
        ptrdiff_t base
        ptrdiff_t stretch
        uint64_t jump
        uint64_t threshold
    ctypedef struct dropout_kernel:
        const char* name
        int draw_cost
        int normal_cost
        void (*sweep_range)(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil
        void (*finish_streaming)() noexcept nogil
        void (*add_to_sums)(
            int dtype, const char* elements, ptrdiff_t distance, ptrdiff_t rows, double* sums, ptrdiff_t columns
        ) noexcept nogil
        void (*round_sums)(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil
    int decision_for(double keep_prob, uint64_t* threshold) noexcept nogil

cdef extern from "ensure.h":
    # Ends the process where an invariant does not hold, in a build with FASTDROP_ASSERT. Else it does nothing.
    void ensure(bint invariant, const char* text) noexcept nogil


cdef inline int itemsize(int dtype) noexcept nogil:
    """Return the number of bytes of an element."""
    return 8 if dtype == FLOAT64 else 4 if dtype == FLOAT32 else 2
