# The kernels on simd/avx2_vaes.h.

cdef extern from "simd/avx2_vaes.h":
    pass

cdef const char* NAME = "avx2_vaes"

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "gaussian.pxi"
include "entry.pxi"
include "probe.pxi"
