"""Pieces of arrays of any strides and byte order: gathered before a kernel runs, scattered after it.

It is done here, and not by numpy.nditer, because of what has to hold: pieces begin where threads may meet, nothing
is allocated once positions are reserved, and a piece that has not been computed is never written.
"""

from libc.stdint cimport uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from fastdrop.kernels.sweep cimport BUILD_TAG, ensure, itemsize


cdef extern from *:
    """
    static inline uint16_t reversed16(uint16_t a) { return (uint16_t)(a << 8 | a >> 8); }
    static inline uint32_t reversed32(uint32_t a)
    {
        a = (a & 0x00FF00FFu) << 8 | (a & 0xFF00FF00u) >> 8;
        return a << 16 | a >> 16;
    }
    static inline uint64_t reversed64(uint64_t a)
    {
        return (uint64_t)reversed32((uint32_t)a) << 32 | reversed32((uint32_t)(a >> 32));
    }
    """
    uint16_t reversed16(uint16_t a) noexcept nogil
    uint32_t reversed32(uint32_t a) noexcept nogil
    uint64_t reversed64(uint64_t a) noexcept nogil

build_tag = BUILD_TAG       # which dispatch compares with its own


cdef void join_axes(Strided* arrays) noexcept nogil:
    cdef Operand* operands[OPERANDS]
    cdef Operand* operand
    cdef int axis, axes = 0, k
    cdef bint joins
    operands[0], operands[1], operands[2], operands[3] = &arrays.x, &arrays.y, &arrays.saved, &arrays.residual
    for axis in range(arrays.axes):
        if arrays.count[axis] == 1:
            continue
        joins = axes > 0
        for k in range(OPERANDS):
            operand = operands[k]
            if operand.data != NULL and axes > 0:
                joins = joins and operand.stride[axes - 1] == operand.stride[axis] * arrays.count[axis]
        if joins:
            axes -= 1
            arrays.count[axes] *= arrays.count[axis]
        else:
            arrays.count[axes] = arrays.count[axis]
        for k in range(OPERANDS):
            if operands[k].data != NULL:
                operands[k].stride[axes] = operands[k].stride[axis]
        axes += 1
    arrays.axes = axes


cdef ptrdiff_t piece_of(ptrdiff_t elements) noexcept nogil:
    return min(PIECE, elements)


cdef ptrdiff_t room_for(int size, ptrdiff_t piece) noexcept nogil:
    return OPERANDS * piece * size


cdef void gather(const Strided* arrays, dropout_sweep* part, ptrdiff_t first, ptrdiff_t last, char* room) noexcept nogil:
    cdef ptrdiff_t size = arrays.piece * itemsize(part.dtype), skipped = first * itemsize(part.dtype)
    ensure(last - first <= arrays.piece, "a piece has room")
    # A pass's pointers say where element 0 would be, of arrays that begin with element `first`.
    if arrays.x.data != NULL:
        copy(arrays, &arrays.x, itemsize(part.dtype), first, last, room, True)
        part.x = <const char*> (<uintptr_t> room - skipped)
    if arrays.saved.data != NULL:
        copy(arrays, &arrays.saved, itemsize(part.dtype), first, last, room + size, True)
        part.saved = <const char*> (<uintptr_t> (room + size) - skipped)
    if arrays.residual.data != NULL:
        copy(arrays, &arrays.residual, itemsize(part.dtype), first, last, room + 2 * size, True)
        part.residual = <const char*> (<uintptr_t> (room + 2 * size) - skipped)
    if arrays.y.data != NULL:
        part.y = <char*> (<uintptr_t> (room + 3 * size) - skipped)


cdef void scatter(const Strided* arrays, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    if arrays.y.data != NULL:
        copy(arrays, &arrays.y, itemsize(part.dtype), first, last, part.y + first * itemsize(part.dtype), False)


cdef void copy(
    const Strided* arrays, const Operand* operand, int size, ptrdiff_t first, ptrdiff_t last, char* side_by_side,
    bint gathers,
) noexcept nogil:
    """Elements first, ..., last - 1 of an array, of `size` bytes each, to where they are side by side, or back."""
    cdef ptrdiff_t index[MAX_AXES]
    cdef char* data = operand.data
    cdef ptrdiff_t rest = first, some, stride = size
    cdef int axis = arrays.axes - 1, inner = arrays.axes - 1
    while axis >= 0:
        index[axis] = rest % arrays.count[axis]
        rest //= arrays.count[axis]
        data += index[axis] * operand.stride[axis]
        axis -= 1
    if inner >= 0:
        stride = operand.stride[inner]
    while first < last:
        some = last - first
        if inner >= 0:
            some = min(some, arrays.count[inner] - index[inner])
        if gathers:
            copy_run(side_by_side, size, data, stride, some, size, operand.swapped)
        else:
            copy_run(data, stride, side_by_side, size, some, size, operand.swapped)
        side_by_side += some * size
        first += some
        if first == last:
            break
        # The first element of the next run: the axes that are at their end begin again.
        data -= index[inner] * stride
        index[inner] = 0
        axis = inner - 1
        while axis > 0 and index[axis] == arrays.count[axis] - 1:
            data -= index[axis] * operand.stride[axis]
            index[axis] = 0
            axis -= 1
        index[axis] += 1
        data += operand.stride[axis]


cdef inline void copy_run(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, int size, bint swapped
) noexcept nogil:
    """`count` elements that are as many bytes apart as the strides say, their bytes reversed where `swapped`."""
    if not swapped and stride == size and to_stride == size:
        memcpy(to, source, count * size)
    elif size == 2:
        copy_run_16(to, to_stride, source, stride, count, swapped)
    elif size == 4:
        copy_run_32(to, to_stride, source, stride, count, swapped)
    else:
        copy_run_64(to, to_stride, source, stride, count, swapped)


cdef void copy_run_16(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, bint swapped
) noexcept nogil:
    cdef uint16_t word
    cdef ptrdiff_t n
    for n in range(count):
        memcpy(&word, source + n * stride, 2)
        word = reversed16(word) if swapped else word
        memcpy(to + n * to_stride, &word, 2)


cdef void copy_run_32(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, bint swapped
) noexcept nogil:
    cdef uint32_t word
    cdef ptrdiff_t n
    for n in range(count):
        memcpy(&word, source + n * stride, 4)
        word = reversed32(word) if swapped else word
        memcpy(to + n * to_stride, &word, 4)


cdef void copy_run_64(
    char* to, ptrdiff_t to_stride, const char* source, ptrdiff_t stride, ptrdiff_t count, bint swapped
) noexcept nogil:
    cdef uint64_t word
    cdef ptrdiff_t n
    for n in range(count):
        memcpy(&word, source + n * stride, 8)
        word = reversed64(word) if swapped else word
        memcpy(to + n * to_stride, &word, 8)
