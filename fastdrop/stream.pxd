# The compiled classes: their attributes are those of C structures, which no Python code reaches. `_take`
# is `reserve` as a C call that no subclass replaces. `_made` says whether the fields have their values,
# `_known` raises where they have not.

cimport cython

from fastdrop cimport checks


cdef class Stream:
    cdef object _seed, _offset, _children, _prefix
    cpdef reserve(self, count)
    cdef _take(self, count)
    cdef bint _take_at(self, offset, count) except -1
    cdef bint _made(self)
    cdef int _known(self) except -1
    cdef int _begin(self, seed, offset, children, prefix) except -1


cdef class Tile:
    cdef object _shape, _origin, _seed, _offset
    cdef bint _made(self)
    cdef int _known(self) except -1
    cdef int _begin(self, shape, origin, seed, offset) except -1


cdef class StreamRows:
    cdef Stream _stream
    cdef object _first, _rows, _total
    cdef bint _made(self)
    cdef int _known(self) except -1
    cdef int _begin(self, stream, first, rows, total) except -1


@cython.locals(stream=Stream)
cpdef reserved(rng, shape, shared=*)
