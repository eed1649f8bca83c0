"""Pieces of arrays of any strides and byte order are gathered before a kernel runs, and scattered after it.

This does not use numpy.nditer, because pieces must begin where threads may meet, nothing may be allocated once positions
are reserved, and a piece that has not been computed must never be written.
"""

from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy

from fastdrop.kernels.sweep cimport BUILD_TAG, ensure, itemsize


cdef extern from *:
    """
    static inline uint32_t reversed32(uint32_t a)
    {
        a = (a & 0x00FF00FFu) << 8 | (a & 0xFF00FF00u) >> 8;
        return a << 16 | a >> 16;
    }
    static inline uint16_t reversed16(uint16_t a)
    {
        return (uint16_t)(a << 8 | a >> 8);
    }
    static inline uint64_t reversed(uint64_t a, int size)
    {
        if (size == 2)
            return reversed16((uint16_t)a);
        if (size == 4)
            return reversed32((uint32_t)a);
        return (uint64_t)reversed32((uint32_t)a) << 32 | reversed32((uint32_t)(a >> 32));
    }
    """
    uint64_t reversed(uint64_t a, int size) noexcept nogil  # its lowest `size` bytes in the other order

build_tag = BUILD_TAG       # dispatch compares it with its own


# --- axes -------------------------------------------------------------------------------------


cdef void join_axes(Strided* arrays) noexcept nogil:
    cdef Operand* operands[OPERANDS]
    cdef int axis, axes = 0, k
    operands[0], operands[1], operands[2], operands[3] = &arrays.x, &arrays.y, &arrays.saved, &arrays.residual
    for axis in range(arrays.axes):
        if arrays.count[axis] == 1:
            continue
        if axes > 0 and all_join(operands, axes - 1, axis, arrays.count[axis]):
            axes -= 1
            arrays.count[axes] *= arrays.count[axis]
        else:
            arrays.count[axes] = arrays.count[axis]
        for k in range(OPERANDS):
            if operands[k].data != NULL:
                operands[k].stride[axes] = operands[k].stride[axis]
        axes += 1
    if axes == 0:
        arrays.count[0] = axes = 1
        for k in range(OPERANDS):
            operands[k].stride[0] = 0
    arrays.axes = axes


cdef inline bint all_join(Operand** operands, int outer, int inner, ptrdiff_t count) noexcept nogil:
    """Say whether every array steps once along the outer axis as it steps `count` times along the inner one."""
    cdef int k
    for k in range(OPERANDS):
        if operands[k].data != NULL and operands[k].stride[outer] != operands[k].stride[inner] * count:
            return False
    return True


# --- pieces -----------------------------------------------------------------------------------


cdef ptrdiff_t piece_of(ptrdiff_t elements) noexcept nogil:
    return min(PIECE, elements)


cdef ptrdiff_t room_for(int size, ptrdiff_t piece) noexcept nogil:
    return OPERANDS * piece * size


cdef void gather(const Strided* arrays, dropout_sweep* part, ptrdiff_t first, ptrdiff_t last, char* room) noexcept nogil:
    cdef int size = itemsize(part.dtype)
    cdef ptrdiff_t piece = arrays.piece * size
    ensure(last - first <= arrays.piece, "a piece has room")
    if arrays.x.data != NULL:
        copy(arrays, &arrays.x, size, first, last, room, True)
        part.x = element_0(room, first, size)
    if arrays.saved.data != NULL:
        copy(arrays, &arrays.saved, size, first, last, room + piece, True)
        part.saved = element_0(room + piece, first, size)
    if arrays.residual.data != NULL:
        copy(arrays, &arrays.residual, size, first, last, room + 2 * piece, True)
        part.residual = element_0(room + 2 * piece, first, size)
    if arrays.y.data != NULL:
        part.y = element_0(room + 3 * piece, first, size)


cdef inline char* element_0(char* piece, ptrdiff_t first, int size) noexcept nogil:
    """Return where element 0 would be of an array whose element `first` is the first of a piece."""
    return <char*> (<uintptr_t> piece - first * size)


cdef void scatter(const Strided* arrays, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef int size = itemsize(part.dtype)
    if arrays.y.data != NULL:
        copy(arrays, &arrays.y, size, first, last, part.y + first * size, False)


# --- rows -------------------------------------------------------------------------------------

# An element of an array. The elements after it, along the last axis, are the rest of its row.
cdef struct Place:
    # Its address.
    char* data
    ptrdiff_t index[MAX_AXES]


cdef inline void go_to(Place* place, const Strided* arrays, const Operand* operand, ptrdiff_t element) noexcept nogil:
    cdef int axis = arrays.axes - 1
    place.data = operand.data
    while axis >= 0:
        place.index[axis] = element % arrays.count[axis]
        place.data += place.index[axis] * operand.stride[axis]
        element //= arrays.count[axis]
        axis -= 1


cdef inline void begin_axis(Place* place, const Operand* operand, int axis) noexcept nogil:
    """Go to index 0 on an axis."""
    place.data -= place.index[axis] * operand.stride[axis]
    place.index[axis] = 0


cdef inline void go_to_next_row(Place* place, const Strided* arrays, const Operand* operand) noexcept nogil:
    """Go to the first element of the next row, which exists: axes that are at their end begin again."""
    cdef int axis = arrays.axes - 1
    begin_axis(place, operand, axis)
    axis -= 1
    while axis > 0 and place.index[axis] == arrays.count[axis] - 1:
        begin_axis(place, operand, axis)
        axis -= 1
    place.index[axis] += 1
    place.data += operand.stride[axis]


cdef void copy(
    const Strided* arrays, const Operand* operand, int size, ptrdiff_t first, ptrdiff_t last, char* piece, bint gathers
) noexcept nogil:
    """Copy elements first, ..., last - 1 of an array, of `size` bytes each, to a piece; or back, unless it `gathers`."""
    cdef Place place
    cdef int inner = arrays.axes - 1
    cdef ptrdiff_t stride = operand.stride[inner], count
    go_to(&place, arrays, operand, first)
    count = min(last - first, arrays.count[inner] - place.index[inner])
    while True:
        if gathers:
            copy_row(piece, size, place.data, stride, count, size, operand.swapped)
        else:
            copy_row(place.data, stride, piece, size, count, size, operand.swapped)
        piece += count * size
        first += count
        if first == last:
            break
        go_to_next_row(&place, arrays, operand)
        count = min(last - first, arrays.count[inner])


cdef inline void copy_row(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, int size, bint swapped
) noexcept nogil:
    """Copy `count` elements that are as many bytes apart as the strides say, their bytes reversed where `swapped`."""
    if not swapped and stride == size and to_stride == size:
        memcpy(to, source, count * size)
    elif size == 2:
        copy_elements(to, to_stride, source, stride, count, 2, swapped)
    elif size == 4:
        copy_elements(to, to_stride, source, stride, count, 4, swapped)
    else:
        copy_elements(to, to_stride, source, stride, count, 8, swapped)


cdef inline void copy_elements(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, int size, bint swapped
) noexcept nogil:
    """Copy elements one by one. `size` is a constant, so a copy is a load and a store."""
    cdef uint64_t word
    cdef ptrdiff_t n
    for n in range(count):
        word = 0
        memcpy(&word, source + n * stride, size)
        if swapped:
            word = reversed(word, size)
        memcpy(to + n * to_stride, &word, size)
