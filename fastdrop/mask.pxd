# The compiled Mask: its attributes are those of a C structure, which no Python code reaches. `_bits` is a
# bytes object; a Mask whose `_bits` are None was never initialised, and `_known` refuses it.

cdef class Mask:
    cdef object _bits, _keep_prob, _mode, _shape
    cdef bint _made(self)
    cdef int _known(self) except -1
    cdef int _begin(self, bits, shape, keep_prob, mode) except -1
