# This is the kernel on simd/generic.h.

cdef extern from "simd/generic.h":
    pass

cdef const char* NAME = "generic"

include "kernel.pxi"
