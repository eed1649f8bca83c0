# Decisions and elements -> results, sixteen elements and sixteen bits at a time. A dtype or a form
# is a constant where these functions are called, so that each has a loop of its own.

from fastdrop.kernels.kernel cimport dropout_pass

cdef enum:
    STEP = 16           # elements
    GROUP_STEPS = GROUP_SIZE * BLOCK / STEP
    ALIGNMENT = 64      # a cache line


cdef inline int itemsize(int dtype) noexcept nogil:
    return 8 if dtype == FLOAT64 else 4


cdef inline void apply_step(
    int dtype, bint relu, bint masked, bint streaming,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed, lanes scale
) noexcept nogil:
    """`y = scale * x` where kept (and passed by the ReLU), else +0; the bits of what passed."""
    cdef lanes value
    cdef lanes_mask mask
    cdef int i
    for i in range(2 if dtype == FLOAT64 else 1):
        value = lanes_load(dtype, x + 64 * i)
        mask = mask_load(dtype, keep + i)
        if relu:
            mask = mask_positive(dtype, mask, value)
            if masked:
                mask_store(dtype, passed + i, mask)
        value = lanes_scale(dtype, mask, value, scale)
        if streaming:
            lanes_stream(dtype, y + 64 * i, value)
        else:
            lanes_store(dtype, y + 64 * i, value)


cdef inline void apply_steps(
    int dtype, bint relu, bint masked, bint streaming,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed, double factor,
    ptrdiff_t steps, const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """All steps, while the first planes of the chunk ahead are drawn: drawing is bound by
    arithmetic and this by memory, so that side by side they hide each other's waits."""
    cdef lanes scale = lanes_fill(dtype, factor)
    cdef int size = STEP * itemsize(dtype)
    cdef int i = 0, plane, planes
    cdef ptrdiff_t step = 0, stop
    cdef Group group
    if ahead != NULL:
        planes = first_planes(draw.threshold)
        while i < ahead.count and step + GROUP_STEPS <= steps:
            group = group_first(ahead, i)
            for plane in range(FIRST_PLANES):
                if plane < planes:
                    compare_plane(draw, &group, plane)
                stop = step + GROUP_STEPS // FIRST_PLANES
                while step < stop:
                    apply_step(dtype, relu, masked, streaming, x + step * size, y + step * size,
                               keep + 2 * step, passed + 2 * step, scale)
                    step += 1
            group_store(ahead, i, group)
            i += GROUP_SIZE
        draw_first(draw, ahead, i)
    while step < steps:
        apply_step(dtype, relu, masked, streaming, x + step * size, y + step * size,
                   keep + 2 * step, passed + 2 * step, scale)
        step += 1


cdef inline bint can_align(const dropout_pass* task) noexcept nogil:
    return task.x != NULL and <uintptr_t> task.y % itemsize(task.dtype) == 0


cdef inline ptrdiff_t boundary(const dropout_pass* task) noexcept nogil:
    """Elements from one cache line of the result to the next, or from one byte of the mask."""
    return ALIGNMENT // itemsize(task.dtype) if can_align(task) else 8


cdef inline ptrdiff_t past_boundary(const dropout_pass* task, ptrdiff_t element) noexcept nogil:
    """How many elements lie between the last boundary and this one. Loops and chunks begin at
    boundaries: a store that straddles two cache lines costs two."""
    if can_align(task):
        return <uintptr_t> (task.y + element * itemsize(task.dtype)) % ALIGNMENT // itemsize(task.dtype)
    return (task.first_bit + element) % 8


cdef inline void apply_part(
    int dtype, bint relu, const dropout_pass* task, ptrdiff_t first, ptrdiff_t count,
    const unsigned char* keep, uint64_t bit
) noexcept nogil:
    """Fewer elements than a step."""
    cdef char padded[STEP * 8]
    cdef uint64_t bits
    if count == 0:
        return
    bits = load_part(keep, bit, count)
    memset(padded, 0, STEP * itemsize(dtype))
    memcpy(padded, task.x + first * itemsize(dtype), count * itemsize(dtype))
    apply_step(dtype, relu, True, False, padded, padded, <unsigned char*> &bits, <unsigned char*> &bits,
               lanes_fill(dtype, task.scale))
    memcpy(task.y + first * itemsize(dtype), padded, count * itemsize(dtype))
    if relu and task.mask != NULL:
        store_part(task.mask, task.first_bit + first, bits, count)


cdef inline void apply_as(
    int dtype, bint relu, bint masked, bint streaming,
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    cdef chunk_words keep_words, passed_words
    cdef unsigned char* passed = <unsigned char*> passed_words.word
    cdef ptrdiff_t head, body
    cdef uint64_t mask_bit
    cdef bint aside
    head = (boundary(task) - past_boundary(task, first)) % boundary(task)
    head = min(head, last - first)
    apply_part(dtype, relu, task, first, head, keep, bit)
    first += head
    bit += head
    body = (last - first) & ~<ptrdiff_t> (STEP - 1)

    # The loop wants its bits to start with a byte.
    keep += bit >> 3
    bit &= 7
    if bit:
        copy_bits(<unsigned char*> keep_words.word, 0, keep, bit, last - first)
        keep = <unsigned char*> keep_words.word
        bit = 0
    mask_bit = task.first_bit + first
    aside = mask_bit & 7
    if masked and not aside:
        passed = task.mask + (mask_bit >> 3)

    apply_steps(
        dtype, relu, masked, streaming, task.x + first * itemsize(dtype), task.y + first * itemsize(dtype),
        keep, passed, task.scale, body // STEP, draw, ahead,
    )
    if masked and aside:
        copy_bits(task.mask, mask_bit, passed, 0, body)
    apply_part(dtype, relu, task, first + body, last - first - body, keep, body)


cdef inline void apply_form(
    int dtype, bint relu, bint masked,
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    if task.streaming:
        apply_as(dtype, relu, masked, True, task, first, last, keep, bit, draw, ahead)
    else:
        apply_as(dtype, relu, masked, False, task, first, last, keep, bit, draw, ahead)


cdef inline void apply_dtype(
    int dtype,
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    if not task.relu:
        apply_form(dtype, False, False, task, first, last, keep, bit, draw, ahead)
    elif task.mask == NULL:
        apply_form(dtype, True, False, task, first, last, keep, bit, draw, ahead)
    else:
        apply_form(dtype, True, True, task, first, last, keep, bit, draw, ahead)


cdef void apply(
    const dropout_pass* task, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """At most CHUNK elements of a pass from `first` on; their decisions are in `keep` from `bit` on."""
    if task.x == NULL:
        if ahead != NULL:
            draw_first(draw, ahead, 0)
    elif task.dtype == FLOAT32:
        apply_dtype(FLOAT32, task, first, last, keep, bit, draw, ahead)
    elif task.dtype == FLOAT64:
        apply_dtype(FLOAT64, task, first, last, keep, bit, draw, ahead)
    if task.mask != NULL and not task.relu:
        copy_bits(task.mask, task.first_bit + first, keep, bit, last - first)


cdef inline void nonzero_as(int dtype, const char* y, ptrdiff_t count, unsigned char* bits) noexcept nogil:
    cdef char padded[STEP * 8]
    cdef ptrdiff_t step = 0
    cdef int i, size = STEP * itemsize(dtype)
    while step < count // STEP:
        for i in range(2 if dtype == FLOAT64 else 1):
            mask_store(dtype, bits + 2 * step + i, mask_nonzero(dtype, lanes_load(dtype, y + step * size + 64 * i)))
        step += 1
    if count % STEP:
        memset(padded, 0, sizeof(padded))
        memcpy(padded, y + step * size, count % STEP * itemsize(dtype))
        for i in range(2 if dtype == FLOAT64 else 1):
            mask_store(dtype, bits + 2 * step + i, mask_nonzero(dtype, lanes_load(dtype, padded + 64 * i)))


cdef void nonzero(int dtype, const char* y, ptrdiff_t count, unsigned char* bits) noexcept nogil:
    """Which of `count` elements are not zero, packed."""
    if dtype == FLOAT32:
        nonzero_as(FLOAT32, y, count, bits)
    elif dtype == FLOAT64:
        nonzero_as(FLOAT64, y, count, bits)
