# The compiled GaussianNoise: its attributes are those of a C structure, which no Python code reaches.

cdef class GaussianNoise:
    cdef object _seed, _offset, _shape, _keep_prob, _strides
    cdef bint _made(self)
    cdef int _known(self) except -1
    cdef int _begin(self, seed, offset, shape, keep_prob, strides) except -1
