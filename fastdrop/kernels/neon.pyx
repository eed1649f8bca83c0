# The kernels on simd/neon.h.

cdef extern from "simd/neon.h":
    pass

cdef const char* NAME = "neon"

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "gaussian.pxi"
include "entry.pxi"
include "probe.pxi"
