"""Where decisions lie: built from a shape and strides, and expanded for a kernel stretch by stretch.

A kernel knows one stretch, or equally long ones at equal distances in the stream (`stretch` and `jump` of a pass).
"""

from libc.string cimport memcpy, memset

from fastdrop.kernels.sweep cimport ALL_KEPT, BUILD_TAG, DRAWN, GAUSSIAN, NONE_KEPT, UNIT, ensure

include "../kernels/bits.pxi"

cdef enum:
    LONG_STRETCH = 512      # elements that are worth a run of the kernel

build_tag = BUILD_TAG       # which dispatch compares with its own


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
    """Pairs of a length and a stride, as few as there can be."""
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


cdef void run_range(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    if sweep.decision == DRAWN or sweep.decision == GAUSSIAN:
        run_drawn(kernel, sweep, layout, first, last)
    elif layout.length >= LONG_STRETCH:
        run_long_stretches(kernel, sweep, layout, first, last)
    else:
        run_short_stretches(kernel, sweep, layout, first, last)


cdef uint64_t stretch_offset(const Layout* layout, ptrdiff_t number, int axes) noexcept nogil:
    """Where the decisions begin of what has index `number`, in C order, on the first `axes` axes."""
    cdef uint64_t offset = 0
    cdef int axis = axes - 1
    while axis >= 0:
        offset += <uint64_t> (number % layout.count[axis]) * layout.stride[axis]
        number //= layout.count[axis]
        axis -= 1
    return offset


cdef void run_drawn(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """As many stretches together as lie at equal distances in the stream: those along the last axis before them."""
    cdef dropout_sweep part = sweep[0]
    cdef int axis = layout.axes - 1
    cdef ptrdiff_t size, number, end
    ensure(axis >= 0 and not layout.uniform, "a drawn layout has stretches, of decisions side by side")
    size = layout.length * layout.count[axis]
    part.stretch = layout.length
    part.jump = layout.stride[axis] - layout.length
    while first < last:
        number = first // size
        end = min((number + 1) * size, last)
        part.base = number * size
        part.position = sweep.position + stretch_offset(layout, number, axis)
        kernel.run(&part, first, end)
        first = end


cdef void run_long_stretches(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Stretch by stretch; one that is dropped as a whole is not read."""
    cdef dropout_sweep part = sweep[0]
    cdef ptrdiff_t number, end
    cdef uint64_t bit
    while first < last:
        number = first // layout.length
        end = min((number + 1) * layout.length, last)
        bit = sweep.saved_bit + stretch_offset(layout, number, layout.axes)
        if layout.uniform:
            part.decision = ALL_KEPT if is_set(sweep.saved, bit) else NONE_KEPT
        else:
            part.saved_bit = bit - number * layout.length   # element 0 has it, if it were in this stretch
        kernel.run(&part, first, end)
        first = end


cdef void run_short_stretches(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """The decisions on a unit of elements are laid side by side, then applied."""
    cdef uint64_t bits[UNIT / 64]
    cdef dropout_sweep part = sweep[0]
    cdef ptrdiff_t end
    part.saved = <const char*> bits
    while first < last:
        end = min(first + UNIT, last)
        lay_side_by_side(bits, sweep, layout, first, end)
        part.saved_bit = -<uint64_t> first      # the bit of `first` is bit 0
        kernel.run(&part, first, end)
        first = end


cdef void lay_side_by_side(
    uint64_t* bits, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """The decisions on at most UNIT elements, the first one's in bit 0."""
    cdef ptrdiff_t number, end, element = first
    cdef uint64_t bit
    ensure(last - first <= UNIT, "the bits of a unit have room")
    memset(bits, 0, UNIT // 8)
    while element < last:
        number = element // layout.length
        end = min((number + 1) * layout.length, last)
        bit = sweep.saved_bit + stretch_offset(layout, number, layout.axes)
        if not layout.uniform:
            bit += element - number * layout.length
        add_bits(bits, element - first, end - element, sweep.saved, bit, layout.uniform)
        element = end


cdef inline bint is_set(const char* bits, uint64_t index) noexcept nogil:
    return bits[index >> 3] >> (index & 7) & 1


cdef inline void add_bits(
    uint64_t* to, ptrdiff_t first, ptrdiff_t count, const char* bits, uint64_t bit, bint uniform
) noexcept nogil:
    """Set those of `count` bits, zero so far, whose decision, or whose common decision, is set."""
    cdef ptrdiff_t some
    if uniform and not is_set(bits, bit):
        return
    while count:
        some = min(count, 64 - (first & 63), 63)
        to[first >> 6] |= (
            low_bits(some) if uniform else load_part(<const unsigned char*> bits, bit, some)) << (first & 63)
        first += some
        bit += some
        count -= some
