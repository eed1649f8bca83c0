# This is the kernel on simd/avx2.h.

cdef extern from "simd/avx2.h":
    pass

cdef const char* NAME = "avx2"

include "kernel.pxi"
