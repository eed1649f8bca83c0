# The kernels on simd/avx512.h.

cdef extern from "simd/avx512.h":
    pass

cdef const char* NAME = "avx512"

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "gaussian.pxi"
include "entry.pxi"
include "probe.pxi"
