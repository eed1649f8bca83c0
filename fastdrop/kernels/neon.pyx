# This is the kernel on simd/neon.h.

cdef extern from "simd/neon.h":
    pass

cdef const char* NAME = "neon"

cdef enum:
    # Picoseconds per element; these two are estimates.
    DRAW_COST = 250
    NORMAL_COST = 1500

include "kernel.pxi"
