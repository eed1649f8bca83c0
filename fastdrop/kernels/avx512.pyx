# This is the kernel on simd/avx512.h.

cdef extern from "simd/avx512.h":
    pass

cdef const char* NAME = "avx512"

cdef enum:
    # Picoseconds per element.
    DRAW_COST = 35
    NORMAL_COST = 350

include "kernel.pxi"
