# The kernels on simd/generic.h.

cdef extern from "simd/generic.h":
    pass

cdef const char* NAME = "generic"

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "gaussian.pxi"
include "entry.pxi"
include "probe.pxi"
