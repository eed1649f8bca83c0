# This is the kernel on simd/avx512.h.

cdef extern from "simd/avx512.h":
    pass

cdef const char* NAME = "avx512"

include "kernel.pxi"
