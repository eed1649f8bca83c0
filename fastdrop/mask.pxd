# The compiled Mask: its attributes are those of a C structure.

cdef class Mask:
    cdef object _bits, _keep_prob, _mode, _shape
