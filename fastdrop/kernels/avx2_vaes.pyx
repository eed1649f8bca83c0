# This is the kernel on simd/avx2_vaes.h.

cdef extern from "simd/avx2_vaes.h":
    pass

cdef const char* NAME = "avx2_vaes"

include "kernel.pxi"
