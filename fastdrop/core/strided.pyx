"""Arrays of any strides and byte order are handed to a kernel row by row, or in pieces that are copied.

A kernel takes long rows as they are. Everything else is gathered into pieces before the kernel runs, and scattered
after it. This does not use numpy.nditer, because the pieces of a thread must begin where threads may meet, nothing may
be allocated once positions are reserved, and a piece that has not been computed must never be written.
"""

from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy

from fastdrop.kernels.sweep cimport BUILD_TAG, GAUSSIAN, UNIT, ensure, itemsize

cdef enum:
    LONG_ROW = 128      # elements that are worth a call of the kernel's loops
    SQUARE = 16         # lines of as many elements, which are transposed at once


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
    #if defined(__GNUC__)
    #define prefetch(address) __builtin_prefetch(address)
    #else
    #define prefetch(address) (void)(address)
    #endif
    """
    uint64_t reversed(uint64_t a, int size) noexcept nogil  # its lowest `size` bytes in the other order
    void prefetch(const char* address) noexcept nogil       # any address is allowed

build_tag = BUILD_TAG       # dispatch compares it with its own


# --- axes -------------------------------------------------------------------------------------


cdef inline void join_axes(Strided* arrays) noexcept nogil:
    """Leave as few axes as there can be, but one at least: axes of length 1 go, and axes that all arrays step through as
    one become one."""
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


cdef bint hand_over(Strided* arrays, dropout_sweep* sweep, ptrdiff_t summed) noexcept nogil:
    cdef int size = itemsize(sweep.dtype)
    join_axes(arrays)
    if takes_rows(arrays, sweep, size, summed):
        sweep.row = arrays.count[1]
        sweep.x_gap = gap_of(arrays, &arrays.x, size)
        sweep.y_gap = gap_of(arrays, &arrays.y, size)
        sweep.residual_gap = gap_of(arrays, &arrays.residual, size)
        return True
    choose_pieces(arrays, size)
    return False


# --- rows -------------------------------------------------------------------------------------


cdef inline bint takes_rows(
    const Strided* arrays, const dropout_sweep* sweep, int size, ptrdiff_t summed
) noexcept nogil:
    """Say whether a kernel takes the rows of these arrays as they are. Where columns are summed, they are these rows'."""
    return (
        arrays.axes == 2
        and arrays.count[1] >= LONG_ROW
        and sweep.decision != GAUSSIAN
        and has_plain_rows(&arrays.x, size)
        and has_plain_rows(&arrays.y, size)
        and has_plain_rows(&arrays.residual, size)
        and arrays.saved.data == NULL
        and (summed == 0 or summed == arrays.count[1] or arrays.y.data == NULL)
    )


cdef inline bint has_plain_rows(const Operand* operand, int size) noexcept nogil:
    return operand.data == NULL or (operand.stride[1] == size and not operand.swapped)


cdef inline ptrdiff_t gap_of(const Strided* arrays, const Operand* operand, int size) noexcept nogil:
    return 0 if operand.data == NULL else operand.stride[0] - arrays.count[1] * size


# --- pieces -----------------------------------------------------------------------------------


cdef void choose_pieces(Strided* arrays, int size) noexcept nogil:
    """Choose how long pieces are. Where rows are transposed, a piece has as many as a square, if they are not too long."""
    cdef Operand* operands[OPERANDS]
    cdef int inner = arrays.axes - 1, axis, k
    cdef ptrdiff_t elements = 1
    operands[0], operands[1], operands[2], operands[3] = &arrays.x, &arrays.y, &arrays.saved, &arrays.residual
    arrays.piece, arrays.border = PIECE, UNIT
    for axis in range(arrays.axes):
        elements *= arrays.count[axis]
    for k in range(OPERANDS):
        operands[k].transposed = (
            operands[k].data != NULL and inner > 0
            and operands[k].stride[inner - 1] == size and operands[k].stride[inner] != size
        )
        if operands[k].transposed:
            arrays.piece = max(PIECE, min(SQUARE * arrays.count[inner], LONGEST_PIECE))
            arrays.border = min(SQUARE * arrays.count[inner], arrays.piece)
    arrays.piece = min(arrays.piece, elements)


cdef ptrdiff_t end_of_piece(const Strided* arrays, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef ptrdiff_t end = first + arrays.piece
    if end >= last:
        return last
    return end - end % arrays.border if end // arrays.border > first // arrays.border else end


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


# --- copies -----------------------------------------------------------------------------------

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
    cdef ptrdiff_t stride = operand.stride[inner], count, rows
    go_to(&place, arrays, operand, first)
    while True:
        count = min(last - first, arrays.count[inner] - place.index[inner])
        rows = rows_of_square(&place, arrays, operand, last - first)
        if rows > 1:
            copy_band(place.data, stride, piece, count, size, operand.swapped, gathers)
            place.index[inner - 1] += rows - 1
            place.data += (rows - 1) * operand.stride[inner - 1]
        elif gathers:
            copy_row(piece, size, place.data, stride, count, size, operand.swapped)
        else:
            copy_row(place.data, stride, piece, size, count, size, operand.swapped)
        piece += rows * count * size
        first += rows * count
        if first == last:
            break
        go_to_next_row(&place, arrays, operand)


cdef inline ptrdiff_t rows_of_square(
    const Place* place, const Strided* arrays, const Operand* operand, ptrdiff_t elements
) noexcept nogil:
    """Return how many rows can be copied together: those of a square, or one."""
    cdef int inner = arrays.axes - 1
    return SQUARE if (
        operand.transposed
        and place.index[inner] == 0
        and place.index[inner - 1] + SQUARE <= arrays.count[inner - 1]
        and SQUARE * arrays.count[inner] <= elements
    ) else 1


cdef inline void copy_band(
    char* array, ptrdiff_t stride, char* piece, ptrdiff_t count, int size, bint swapped, bint gathers
) noexcept nogil:
    """Copy transposed rows, as many as a square has, in squares and what is left of them row by row."""
    cdef ptrdiff_t column = 0, row = count * size, n
    while column + SQUARE <= count:
        for n in range(SQUARE, 2 * SQUARE):     # the ends of the next square's lines, whose beginnings may be here
            prefetch(<const char*> (<uintptr_t> array + (column + n) * stride + SQUARE * size - 1))
        if gathers:
            copy_square_of(piece + column * size, row, array + column * stride, stride, size, swapped)
        else:
            copy_square_of(array + column * stride, stride, piece + column * size, row, size, swapped)
        column += SQUARE
    if column == count:
        return
    array += column * stride
    piece += column * size
    for n in range(SQUARE):
        if gathers:
            copy_row(piece + n * row, size, array + n * size, stride, count - column, size, swapped)
        else:
            copy_row(array + n * size, stride, piece + n * row, size, count - column, size, swapped)


cdef inline void copy_square_of(
    char* to, ptrdiff_t to_distance, const char* source, ptrdiff_t distance, int size, bint swapped
) noexcept nogil:
    if size == 2:
        copy_square(to, to_distance, source, distance, 2, swapped)
    elif size == 4:
        copy_square(to, to_distance, source, distance, 4, swapped)
    else:
        copy_square(to, to_distance, source, distance, 8, swapped)


cdef inline void copy_square(
    char* to, ptrdiff_t to_distance, const char* source, ptrdiff_t distance, int size, bint swapped
) noexcept nogil:
    """Copy lines, whose first elements are so many bytes apart: line n gets element n of each line of the source.

    Each line is read at once and written at once, because lines may displace each other from the cache.
    """
    cdef char lines[SQUARE * SQUARE * 8]
    cdef ptrdiff_t n
    for n in range(SQUARE):
        memcpy(lines + n * SQUARE * size, source + n * distance, SQUARE * size)
    for n in range(SQUARE):
        copy_elements(to + n * to_distance, size, lines + n * size, SQUARE * size, SQUARE, size, swapped)


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
