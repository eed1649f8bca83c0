# Decisions and elements -> results, a word of 64 at a time. Arguments before the task are
# constants where these functions are called, so that every form has a loop of its own.

from fastdrop.kernels.kernel cimport dropout_pass


cdef inline int itemsize(int dtype) noexcept nogil:
    return 4 if dtype == FLOAT32 else 8


cdef inline int lane_count(int dtype) noexcept nogil:
    return 8 if dtype == FLOAT64 else 16


cdef inline uint64_t apply_word(
    int dtype, bint relu, bint streaming, const char* x, char* y, uint64_t keep, lanes scale
) noexcept nogil:
    """`y = scale * x` where kept (and passed by the ReLU), else +0; the bits of what passed."""
    cdef uint64_t passed = 0
    cdef lanes value
    cdef lanes_mask mask
    cdef int i
    for i in range(0, 64, 8):
        if i % lane_count(dtype):
            continue
        value = lanes_load(dtype, x + i * itemsize(dtype))
        mask = mask_expand(dtype, <uint32_t> (keep >> i))
        if relu:
            mask = mask_and(mask, lanes_positive(dtype, value))
            passed |= <uint64_t> mask_pack(dtype, mask) << i
        value = lanes_select(dtype, mask, lanes_mul(dtype, value, scale))
        if streaming:
            lanes_stream(dtype, y + i * itemsize(dtype), value)
        else:
            lanes_store(dtype, y + i * itemsize(dtype), value)
    return passed if relu else keep


cdef inline uint64_t apply_part(
    int dtype, bint relu, const char* x, char* y, uint64_t keep, lanes scale, ptrdiff_t count
) noexcept nogil:
    """The same for `count` < 64 elements."""
    cdef char padded[64 * 8]
    memset(padded, 0, 64 * itemsize(dtype))
    memcpy(padded, x, count * itemsize(dtype))
    keep = apply_word(dtype, relu, False, padded, padded, keep & low_bits(count), scale)
    memcpy(y, padded, count * itemsize(dtype))
    return keep


cdef inline void apply_words(
    int dtype, bint relu, bint streaming,
    const dropout_pass* task, ptrdiff_t first, const unsigned char* bits, uint64_t bit, int count
) noexcept nogil:
    """`count` words of elements from `first` on; their decisions are in `bits` from `bit` on."""
    cdef lanes scale = lanes_fill(dtype, task.scale)
    cdef uint64_t keep
    cdef int i
    for i in range(count):
        keep = apply_word(
            dtype, relu, streaming, task.x + first * itemsize(dtype), task.y + first * itemsize(dtype),
            load_word(bits, bit), scale,
        )
        if task.mask != NULL:
            store_word(task.mask, task.first_bit + first, keep)
        first += 64
        bit += 64


cdef inline void apply_as(
    int dtype, bint relu, bint streaming,
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* bits, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """All elements, while the first planes of the chunk ahead are drawn: the generator is bound by
    arithmetic and this loop by memory, so that together they take little longer than either."""
    cdef Group group
    cdef int i = 0, plane, planes
    cdef ptrdiff_t count
    cdef uint64_t keep
    if ahead != NULL and GROUP_BLOCKS == 8:
        planes = first_planes(draw.threshold)
        while i < ahead.count and first + 1024 <= last:
            group = group_first(ahead, i)
            for plane in range(8):
                if plane < planes:
                    compare_plane(draw, &group, plane)
                apply_words(dtype, relu, streaming, task, first, bits, bit, 2)
                first += 128
                bit += 128
            group_store(ahead, i, group)
            i += GROUP_BLOCKS
    if ahead != NULL:
        draw_first(draw, ahead, i)
    count = (last - first) // 64
    apply_words(dtype, relu, streaming, task, first, bits, bit, count)
    first += 64 * count
    bit += 64 * count
    if first < last:
        keep = apply_part(
            dtype, relu, task.x + first * itemsize(dtype), task.y + first * itemsize(dtype),
            load_part(bits, bit, last - first), lanes_fill(dtype, task.scale), last - first,
        )
        if task.mask != NULL:
            store_part(task.mask, task.first_bit + first, keep, last - first)


cdef inline void apply_dtype(
    int dtype,
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* bits, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    if task.streaming:
        if task.relu:
            apply_as(dtype, True, True, task, first, last, bits, bit, draw, ahead)
        else:
            apply_as(dtype, False, True, task, first, last, bits, bit, draw, ahead)
    elif task.relu:
        apply_as(dtype, True, False, task, first, last, bits, bit, draw, ahead)
    else:
        apply_as(dtype, False, False, task, first, last, bits, bit, draw, ahead)


cdef void apply(
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* bits, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Elements first, ..., last - 1 of a pass; their decisions are in `bits` from `bit` on."""
    if task.x == NULL:
        if ahead != NULL:
            draw_first(draw, ahead, 0)
        copy_bits(task.mask, task.first_bit + first, bits, bit, last - first)
    elif task.dtype == FLOAT32:
        apply_dtype(FLOAT32, task, first, last, bits, bit, draw, ahead)
    elif task.dtype == FLOAT64:
        apply_dtype(FLOAT64, task, first, last, bits, bit, draw, ahead)


cdef inline uint64_t nonzero_word(int dtype, const char* y) noexcept nogil:
    """Which of 64 elements are not zero."""
    cdef uint64_t bits = 0
    cdef int i
    for i in range(0, 64, 8):
        if i % lane_count(dtype) == 0:
            bits |= <uint64_t> mask_pack(
                dtype, lanes_nonzero(dtype, lanes_load(dtype, y + i * itemsize(dtype)))
            ) << i
    return bits


cdef inline void nonzero_as(int dtype, const char* y, ptrdiff_t count, uint64_t* bits) noexcept nogil:
    cdef char padded[64 * 8]
    while count >= 64:
        bits[0] = nonzero_word(dtype, y)
        bits += 1
        y += 64 * itemsize(dtype)
        count -= 64
    if count:
        memset(padded, 0, sizeof(padded))
        memcpy(padded, y, count * itemsize(dtype))
        bits[0] = nonzero_word(dtype, padded)


cdef void nonzero(int dtype, const char* y, ptrdiff_t count, uint64_t* bits) noexcept nogil:
    """Which of `count` elements are not zero, packed."""
    if dtype == FLOAT32:
        nonzero_as(FLOAT32, y, count, bits)
    elif dtype == FLOAT64:
        nonzero_as(FLOAT64, y, count, bits)
