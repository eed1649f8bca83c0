# kernel.h as Cython sees it.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t


cdef extern from "kernel.h":
    enum:
        FLOAT32
        FLOAT64
        DRAWN
        SAVED_BITS
        SAVED_OUTPUT
        ALL_KEPT
        NONE_KEPT
        GAUSSIAN
    ctypedef struct dropout_pass:
        int dtype
        int relu
        int decision
        int streaming
        const char* x
        char* y
        double scale
        const char* saved
        unsigned char* mask
        uint64_t first_bit
        uint64_t seed[2]
        uint64_t position
        uint64_t threshold
    ctypedef struct dropout_kernel:
        const char* name
        void (*run)(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil
