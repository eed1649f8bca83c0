# This is the kernel on simd/avx2.h.

cdef extern from "simd/avx2.h":
    pass

cdef const char* NAME = "avx2"

cdef enum:
    # Picoseconds per element.
    DRAW_COST = 170
    NORMAL_COST = 1200

include "kernel.pxi"
