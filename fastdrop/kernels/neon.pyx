# This is the kernel on simd/neon.h.

cdef extern from "simd/neon.h":
    pass

cdef const char* NAME = "neon"

include "kernel.pxi"
