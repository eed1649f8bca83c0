"""A layout is built from a shape and strides, and expanded for a kernel stretch by stretch.

A kernel knows one stretch, or equally long ones at equal distances in the stream (`stretch` and `jump` of a sweep).
"""

from libc.string cimport memcpy, memset

from fastdrop.kernels.sweep cimport ALL_KEPT, BUILD_TAG, DRAWN, GAUSSIAN, NONE_KEPT, UNIT, ensure

include "../kernels/bits.pxi"

cdef enum:
    LONG_STRETCH = 512      # elements that are worth a call of the kernel
    LAID = 32 * UNIT        # the most decisions that are laid side by side

build_tag = BUILD_TAG       # dispatch compares it with its own


# --- built ------------------------------------------------------------------------------------


cdef bint lay_out(Layout* layout, tuple shape, tuple strides) except -1:
    cdef list axes = joined(shape, strides)
    cdef int axis
    if len(axes) > MAX_AXES:
        raise ValueError(f"a layout must have at most {MAX_AXES} axes, got {len(axes)}")
    length, stride = axes.pop() if axes and axes[-1][1] <= 1 else (1, 1)
    if stride == 1 and not axes:
        return False
    layout.length = length
    layout.uniform = stride == 0
    layout.axes = len(axes)
    for axis in range(layout.axes):
        layout.count[axis], layout.stride[axis] = axes[axis]
    return True


cdef list joined(tuple shape, tuple strides):
    """Return as few pairs of a length and a stride as there can be."""
    cdef list axes = []
    for length, stride in zip(shape, strides):
        if length == 1:
            continue
        if axes and axes[-1][1] == stride * length:
            axes[-1] = (axes[-1][0] * length, stride)
        else:
            axes.append((length, stride))
    return axes


# --- expanded ---------------------------------------------------------------------------------


cdef void sweep_by_layout(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    if sweep.decision == DRAWN or sweep.decision == GAUSSIAN:
        sweep_drawn_stretches(kernel, sweep, layout, first, last)
    elif layout.length >= LONG_STRETCH:
        sweep_long_stretches(kernel, sweep, layout, first, last)
    else:
        sweep_short_stretches(kernel, sweep, layout, first, last)


cdef uint64_t offset_of(const Layout* layout, ptrdiff_t number, int axes) noexcept nogil:
    """Return where the decisions begin of what has index `number`, in C order, on the first `axes` axes."""
    cdef uint64_t offset = 0
    cdef int axis = axes - 1
    while axis >= 0:
        offset += <uint64_t> (number % layout.count[axis]) * layout.stride[axis]
        number //= layout.count[axis]
        axis -= 1
    return offset


cdef inline ptrdiff_t end_of_stretch(const Layout* layout, ptrdiff_t element) noexcept nogil:
    """Return the element after the stretch of an element."""
    return (element // layout.length + 1) * layout.length


cdef inline uint64_t saved_bit_of(const dropout_sweep* sweep, const Layout* layout, ptrdiff_t element) noexcept nogil:
    """Return the index of the bit that decides on an element."""
    cdef uint64_t stretch_begin = offset_of(layout, element // layout.length, layout.axes)
    return sweep.saved_bit + stretch_begin + (0 if layout.uniform else <uint64_t> (element % layout.length))


cdef void sweep_drawn_stretches(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Let the kernel take together what lies at equal distances in the stream: all stretches along the last axis but one.
    """
    cdef dropout_sweep part = sweep[0]
    cdef int axis = layout.axes - 1
    cdef ptrdiff_t length, number, end
    ensure(axis >= 0 and not layout.uniform, "a drawn layout has stretches, of decisions side by side")
    length = layout.length * layout.count[axis]
    part.stretch = layout.length
    part.jump = layout.stride[axis] - layout.length
    while first < last:
        number = first // length
        end = min((number + 1) * length, last)
        part.base = number * length
        part.position = sweep.position + offset_of(layout, number, axis)
        kernel.sweep_range(&part, first, end)
        first = end


cdef void sweep_long_stretches(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Call the kernel stretch by stretch. It does not read one that is dropped as a whole."""
    cdef dropout_sweep part = sweep[0]
    cdef ptrdiff_t end
    cdef uint64_t bit
    while first < last:
        end = min(end_of_stretch(layout, first), last)
        bit = saved_bit_of(sweep, layout, first)
        if layout.uniform:
            part.decision = ALL_KEPT if is_set(sweep.saved, bit) else NONE_KEPT
        else:
            part.saved_bit = bit - first
        kernel.sweep_range(&part, first, end)
        first = end


cdef void sweep_short_stretches(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Lay the decisions on some elements side by side, and let the kernel apply them."""
    cdef uint64_t bits[LAID / 64]
    cdef dropout_sweep part = sweep[0]
    cdef ptrdiff_t end
    part.saved = <const char*> bits
    while first < last:
        end = min(first + UNIT, last)
        if is_transposed(layout) and UNIT < 8 * layout.count[layout.axes - 1] <= LAID:
            end = min(end_of_rows(layout, first), last)
        lay_side_by_side(bits, sweep, layout, first, end)
        part.saved_bit = -<uint64_t> first      # bit 0 decides on `first`
        kernel.sweep_range(&part, first, end)
        first = end


cdef inline bint is_transposed(const Layout* layout) noexcept nogil:
    """Say whether the decisions on successive rows of the last axis lie side by side."""
    cdef int axis = layout.axes - 1
    return layout.length == 1 and axis > 0 and layout.stride[axis - 1] == 1


cdef inline ptrdiff_t end_of_rows(const Layout* layout, ptrdiff_t element) noexcept nogil:
    """Return the element after eight rows, of which an element's row is the first."""
    cdef ptrdiff_t length = layout.count[layout.axes - 1]
    return (element // length + 8) * length


cdef void lay_side_by_side(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Copy the decisions on at most LAID elements, the one on `first` to bit 0."""
    ensure(last - first <= LAID, "the bits have room")
    memset(bits, 0, (last - first + 63) // 64 * 8)
    if layout.length == 1 and layout.axes:
        lay_transposed(bits, sweep, layout, first, last)
    elif not (layout.uniform and layout.axes == 1 and layout.stride[0] == 1):
        lay_stretches(bits, sweep, layout, first, last)
    elif layout.length <= 64:
        lay_repeated_in_words(bits, sweep, layout, first, last)
    else:
        lay_repeated(bits, sweep, layout, first, last)


cdef inline void lay_stretches(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    cdef ptrdiff_t end, element = first
    while element < last:
        end = min(end_of_stretch(layout, element), last)
        add_bits(
            bits, element - first, end - element, sweep.saved, saved_bit_of(sweep, layout, element), layout.uniform)
        element = end


cdef inline void lay_repeated(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Copy decisions that lie side by side, each once for every element of its stretch."""
    cdef uint64_t bit = sweep.saved_bit + first // layout.length
    cdef ptrdiff_t element = first, end = min(end_of_stretch(layout, first), last)
    while element < last:
        add_bits(bits, element - first, end - element, sweep.saved, bit, True)
        element, end = end, min(end + layout.length, last)
        bit += 1


cdef inline void lay_repeated_in_words(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """`lay_repeated` for stretches of at most 64 elements, which writes each word once."""
    cdef uint64_t bit = sweep.saved_bit + first // layout.length, word = 0, run
    cdef ptrdiff_t element = first, end = min(end_of_stretch(layout, first), last), place
    while element < last:
        place = (element - first) & 63
        run = -<uint64_t> is_set(sweep.saved, bit) >> (64 - (end - element))
        word |= run << place
        if place + end - element >= 64:
            bits[(element - first) >> 6] = word
            word = run >> (63 - place) >> 1
        element, end = end, min(end + layout.length, last)
        bit += 1
    if (last - first) & 63:
        bits[(last - first) >> 6] = word


cdef inline void lay_transposed(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Copy decisions that are apart for successive elements, along rows of the last axis.

    Where those of successive rows lie side by side, it takes eight rows at a time: eight bits by eight.
    """
    cdef int axis = layout.axes - 1
    cdef bint adjacent = is_transposed(layout)
    cdef ptrdiff_t length = layout.count[axis], row = first // length, columns, rows, element = first
    cdef ptrdiff_t rows_left = 0    # of those whose bits go on where the last row's did
    cdef uint64_t bit = 0
    while element < last:
        if rows_left == 0:
            bit = sweep.saved_bit + offset_of(layout, element, layout.axes)
            rows_left = layout.count[axis - 1] - row % layout.count[axis - 1] if adjacent else 1
        columns, rows = min((row + 1) * length, last) - element, 1
        if columns == length:
            rows = min(8, rows_left, (last - element) // length)
        add_transposed(bits, element - first, length, rows, columns, sweep.saved, bit, layout.stride[axis])
        # A row that begins within itself is not gone on from, because its bits began at a later column.
        rows_left = rows_left - rows if columns == length else 0
        row, element, bit = row + rows, element + rows * columns, bit + rows


cdef inline void add_transposed(
    uint64_t* to, ptrdiff_t first, ptrdiff_t length, ptrdiff_t rows, ptrdiff_t columns,
    const char* bits, uint64_t bit, uint64_t stride,
) noexcept nogil:
    """Copy the bits of at most eight rows to zeros from bit `first` on, one row `length` bits after the other.

    The bit of row r and column c is at bit + r + c * stride.
    """
    cdef uint64_t square
    cdef ptrdiff_t column, k
    for column in range(0, columns, 8):
        square = 0
        for k in range(min(columns - column, 8)):
            square |= few_bits(<const unsigned char*> bits, bit + (column + k) * stride, rows) << 8 * k
        square = transposed(square)
        for k in range(rows):
            or_word(to, first + k * length + column, square >> 8 * k & 0xFF)


cdef inline uint64_t few_bits(const unsigned char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """Return the `count` <= 8 bits from bit `first` on. It touches no byte that holds none of them."""
    cdef uint64_t shift = first & 7
    cdef unsigned int word = bits[first >> 3]
    if shift + count > 8:
        word |= <unsigned int> bits[(first >> 3) + 1] << 8
    return word >> shift & low_bits(count)


cdef inline uint64_t transposed(uint64_t square) noexcept nogil:
    """Return eight bytes whose byte j has the bits j of the bytes of `square` (Warren, Hacker's Delight, 7-3)."""
    cdef uint64_t swapped = (square ^ square >> 7) & 0x00AA00AA00AA00AAu
    square ^= swapped ^ swapped << 7
    swapped = (square ^ square >> 14) & 0x0000CCCC0000CCCCu
    square ^= swapped ^ swapped << 14
    swapped = (square ^ square >> 28) & 0x00000000F0F0F0F0u
    return square ^ swapped ^ swapped << 28


cdef inline void or_word(uint64_t* to, ptrdiff_t first, uint64_t word) noexcept nogil:
    """Add the bits of a word to those from bit `first` on. Those that it does not have stay as they are."""
    cdef uint64_t rest = word >> (63 - (first & 63)) >> 1
    to[first >> 6] |= word << (first & 63)
    if rest:
        to[(first >> 6) + 1] |= rest


cdef inline bint is_set(const char* bits, uint64_t index) noexcept nogil:
    return bits[index >> 3] >> (index & 7) & 1


cdef inline void add_bits(
    uint64_t* to, ptrdiff_t first, ptrdiff_t count, const char* bits, uint64_t bit, bint uniform
) noexcept nogil:
    """Copy `count` bits from `bit` on, or that bit so many times if `uniform`, to zeros from bit `first` on."""
    cdef ptrdiff_t some
    cdef uint64_t word, every = -<uint64_t> is_set(bits, bit) if uniform else 0
    while count:
        some = min(count, 63)   # as many as low_bits makes
        word = low_bits(some) & every if uniform else load_part(<const unsigned char*> bits, bit, some)
        or_word(to, first, word)
        first += some
        bit += some
        count -= some
