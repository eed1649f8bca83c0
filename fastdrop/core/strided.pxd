# Arrays of any strides and byte order are handed to a kernel in pieces.

from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.sweep cimport UNIT, dropout_sweep
from fastdrop.core.layout cimport MAX_AXES

cdef enum:
    PIECE = 4 * UNIT            # elements. Pieces stay in the cache.
    LONGEST_PIECE = 16 * UNIT   # elements where rows are transposed, so that a piece has whole squares of them
    OPERANDS = 4                # x, y, saved, residual

# One of several arrays with one shape.
ctypedef struct Operand:
    # Element 0. This is NULL where there is no array, or the kernel takes it as it is.
    char* data
    # Whether its bytes are in the other order.
    bint swapped
    # Whether elements are side by side along the last axis but one: then squares of them are copied.
    bint transposed
    # The number of bytes from one index to the next.
    ptrdiff_t stride[MAX_AXES]

ctypedef struct Strided:
    # The number of elements for which there is room in a piece of an array.
    ptrdiff_t piece
    # Pieces end at multiples of this many elements where they can.
    ptrdiff_t border
    # The number of axes, and their lengths.
    int axes
    ptrdiff_t count[MAX_AXES]
    Operand x
    Operand y
    Operand saved
    Operand residual

# Choose how arrays are handed to a kernel, once their axes and operands are known. Return True where it takes their rows
# as they are: `sweep`, which points at element 0 of each, is told the gaps between rows then. Otherwise it takes pieces.
# `summed` is the number of columns whose sums are wanted, or 0.
cdef bint hand_over(Strided* arrays, dropout_sweep* sweep, ptrdiff_t summed) noexcept nogil

# Return the number of bytes that a thread needs for pieces of elements of `size` bytes.
cdef ptrdiff_t room_for(int size, ptrdiff_t piece) noexcept nogil

# Return the element that ends the piece that begins with element `first`.
cdef ptrdiff_t end_of_piece(const Strided* arrays, ptrdiff_t first, ptrdiff_t last) noexcept nogil

# Point a sweep at elements first, ..., last - 1, at most a piece, copied to `room` where they are strided.
cdef void gather(const Strided* arrays, dropout_sweep* part, ptrdiff_t first, ptrdiff_t last, char* room) noexcept nogil

# Copy the results of these elements from `room` to where they belong.
cdef void scatter(const Strided* arrays, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil
