# This is the kernel on simd/generic.h.

cdef extern from "simd/generic.h":
    pass

cdef const char* NAME = "generic"

cdef enum:
    # Picoseconds per element.
    DRAW_COST = 1500
    NORMAL_COST = 6500

include "kernel.pxi"
