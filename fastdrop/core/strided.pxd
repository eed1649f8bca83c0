# Arrays of any strides and byte order, and the pieces of them that a kernel takes.

from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.sweep cimport UNIT, dropout_sweep
from fastdrop.core.layout cimport MAX_AXES

cdef enum:
    PIECE = 4 * UNIT    # elements at a time: they stay in the cache, and pieces begin at whole bytes of the mask
    OPERANDS = 4        # x, y, saved, residual

# One array of several with one shape.
ctypedef struct Operand:
    char* data                  # element 0; NULL: the kernel takes the array as it is, or there is none
    bint swapped                # whether its bytes are in the other order
    ptrdiff_t stride[MAX_AXES]  # bytes

ctypedef struct Strided:
    ptrdiff_t piece             # elements: the room that a piece of an array has
    int axes
    ptrdiff_t count[MAX_AXES]
    Operand x
    Operand y
    Operand saved
    Operand residual

# As few axes as there can be: those of length 1 go, and what all the arrays step through as one becomes one.
cdef void join_axes(Strided* arrays) noexcept nogil

# The elements of a piece where there are `elements` altogether, and the bytes that a thread needs for pieces of
# elements of `size` bytes.
cdef ptrdiff_t piece_of(ptrdiff_t elements) noexcept nogil
cdef ptrdiff_t room_for(int size, ptrdiff_t piece) noexcept nogil

# Points a pass at elements first, ..., last - 1, at most a piece, copied to `room` where they are strided; and back.
cdef void gather(const Strided* arrays, dropout_sweep* part, ptrdiff_t first, ptrdiff_t last, char* room) noexcept nogil
cdef void scatter(const Strided* arrays, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil
