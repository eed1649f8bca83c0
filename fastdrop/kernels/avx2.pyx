# The kernels on simd/avx2.h.

cdef extern from "simd/avx2.h":
    pass

cdef const char* NAME = "avx2"

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "gaussian.pxi"
include "entry.pxi"
include "probe.pxi"
