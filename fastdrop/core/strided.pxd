# Arrays of any strides and byte order are handed to a kernel in pieces.

from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.sweep cimport UNIT, dropout_sweep
from fastdrop.core.layout cimport MAX_AXES

cdef enum:
    PIECE = 4 * UNIT    # elements. Pieces stay in the cache, and begin at whole bytes of the mask.
    OPERANDS = 4        # x, y, saved, residual

# One of several arrays with one shape.
ctypedef struct Operand:
    # Element 0. This is NULL where there is no array, or the kernel takes it as it is.
    char* data
    # Whether its bytes are in the other order.
    bint swapped
    # The number of bytes from one index to the next.
    ptrdiff_t stride[MAX_AXES]

ctypedef struct Strided:
    # The number of elements for which there is room in a piece of an array.
    ptrdiff_t piece
    # The number of axes, and their lengths.
    int axes
    ptrdiff_t count[MAX_AXES]
    Operand x
    Operand y
    Operand saved
    Operand residual

# Leave as few axes as there can be, but one at least: axes of length 1 go, and axes that all arrays step through as one
# become one.
cdef void join_axes(Strided* arrays) noexcept nogil

# Return the number of elements of a piece where there are `elements` altogether.
cdef ptrdiff_t piece_of(ptrdiff_t elements) noexcept nogil

# Return the number of bytes that a thread needs for pieces of elements of `size` bytes.
cdef ptrdiff_t room_for(int size, ptrdiff_t piece) noexcept nogil

# Point a sweep at elements first, ..., last - 1, at most a piece, copied to `room` where they are strided.
cdef void gather(const Strided* arrays, dropout_sweep* part, ptrdiff_t first, ptrdiff_t last, char* room) noexcept nogil

# Copy the results of these elements from `room` to where they belong.
cdef void scatter(const Strided* arrays, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil
