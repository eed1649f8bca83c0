# This is the kernel on simd/avx2_vaes.h.

cdef extern from "simd/avx2_vaes.h":
    pass

cdef const char* NAME = "avx2_vaes"

cdef enum:
    # Picoseconds per element.
    DRAW_COST = 110
    NORMAL_COST = 1150

include "kernel.pxi"
