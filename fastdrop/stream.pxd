# The compiled Stream: its attributes are those of a C structure, and `reserve` is a C call.

cdef class Stream:
    cdef object _seed, _offset, _children
    cpdef reserve(self, count)
