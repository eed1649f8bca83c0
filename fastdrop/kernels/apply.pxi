# Decisions and elements -> results, sixteen elements and sixteen bits at a time. A dtype or a plain
# form is a constant where these functions are called, so that each has a loop of its own.

from fastdrop.kernels.sweep cimport dropout_sweep, itemsize

cdef enum:
    STEP = 16           # elements
    GROUP_STEPS = GROUP_SIZE * BLOCK / STEP
    ALIGNMENT = 64      # a cache line
    AHEAD = 4096        # bytes fetched ahead of a stream: a page, where the hardware's own fetching ends

    # Forms of the loop.
    RELU = 1
    MASKED = 2          # the ReLU's decisions are wanted
    STREAMING = 4
    GENERAL = 8         # with bias, residual, or something else than zero for what is dropped


cdef inline int arithmetic(int dtype) noexcept nogil:
    """The dtype that a dtype is computed in, which is also that of a bias."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


cdef struct Loop:
    lanes scale
    lanes dropped
    lanes shift
    bint shifted            # whether either of the two is there
    const char* residual
    const char* bias
    ptrdiff_t column        # of the bias, of the next element
    ptrdiff_t period


cdef inline Loop loop_from(int dtype, bint general, const dropout_sweep* sweep, ptrdiff_t first) noexcept nogil:
    """What a loop over elements from `first` on needs besides `x` and bits."""
    cdef Loop loop
    loop.scale = lanes_fill(dtype, sweep.scale)
    if general:
        loop.dropped = lanes_fill(dtype, sweep.dropped)
        loop.shift = lanes_fill(dtype, sweep.shift)
        loop.shifted = sweep.dropped != 0 or sweep.shift != 0
        loop.residual = sweep.residual
        if loop.residual != NULL:
            loop.residual += first * itemsize(dtype)
        loop.bias = sweep.bias
        loop.period = sweep.period
        loop.column = first % sweep.period if sweep.bias != NULL else 0
    return loop


cdef inline lanes add_bias(int dtype, Loop* loop, lanes value) noexcept nogil:
    if loop.bias != NULL:
        value = lanes_add(dtype, value, lanes_load(
            arithmetic(dtype), loop.bias + loop.column * itemsize(arithmetic(dtype))))
        loop.column += 8 if dtype == FLOAT64 else 16
        if loop.column >= loop.period:
            loop.column -= loop.period
    return value


cdef inline lanes add_residual(int dtype, Loop* loop, lanes_mask mask, lanes value) noexcept nogil:
    if loop.shifted:
        value = lanes_add(dtype, lanes_choose(dtype, mask, value, loop.dropped), loop.shift)
    if loop.residual != NULL:
        value = lanes_add(dtype, lanes_load(dtype, loop.residual), value)
        loop.residual += 64 if dtype == FLOAT64 else STEP * itemsize(dtype)
    return value


cdef inline void apply_step(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed,
) noexcept nogil:
    """`y = scale * (x + bias)` where kept (and passed by the ReLU), else what is dropped; then shift
    and residual; the bits of what passed."""
    cdef lanes value
    cdef lanes_mask mask
    cdef int i
    for i in range(2 if dtype == FLOAT64 else 1):
        if form & STREAMING:
            prefetch(x + 64 * i + AHEAD)
        value = lanes_load(dtype, x + 64 * i)
        if form & GENERAL:
            value = add_bias(dtype, loop, value)
        mask = mask_load(dtype, keep + i)
        if form & RELU:
            mask = mask_positive(dtype, mask, value)
            if form & MASKED:
                mask_store(dtype, passed + i, mask)
        value = lanes_scale(dtype, mask, value, loop.scale)
        if form & GENERAL:
            value = add_residual(dtype, loop, mask, value)
        if form & STREAMING:
            lanes_stream(dtype, y + 64 * i, value)
        else:
            lanes_store(dtype, y + 64 * i, value)


cdef inline void apply_steps(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed,
    ptrdiff_t steps, const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """All steps, while first planes of the chunk ahead are drawn: drawing is bound by arithmetic
    and this by memory, so that side by side they hide each other's waits."""
    cdef int size = STEP * itemsize(dtype)
    cdef int plane, planes
    cdef ptrdiff_t step = 0, stop
    cdef Group group
    if ahead != NULL and GROUP_SIZE > 1:    # without vectors both are bound by arithmetic
        planes = first_planes(draw.threshold)
        while ahead.drawn < ahead.count and step + GROUP_STEPS <= steps:
            group = group_first(draw, ahead, ahead.drawn)
            for plane in range(FIRST_PLANES):
                if plane < planes:
                    compare_plane(draw, &group, plane, first_plane_bits(draw, &group, plane))
                stop = step + GROUP_STEPS // FIRST_PLANES
                while step < stop:
                    apply_step(dtype, form, loop, x + step * size, y + step * size, keep + 2 * step, passed + 2 * step)
                    step += 1
            group_store(ahead, group)
    while step < steps:
        apply_step(dtype, form, loop, x + step * size, y + step * size, keep + 2 * step, passed + 2 * step)
        step += 1


cdef inline bint can_align(const dropout_sweep* sweep) noexcept nogil:
    return sweep.x != NULL and <uintptr_t> sweep.y % itemsize(sweep.dtype) == 0


cdef inline ptrdiff_t boundary(const dropout_sweep* sweep) noexcept nogil:
    """Elements from one cache line of the result to the next, but no more than a step; or from one
    byte of the mask."""
    return min(ALIGNMENT // itemsize(sweep.dtype), STEP) if can_align(sweep) else 8


cdef inline ptrdiff_t past_boundary(const dropout_sweep* sweep, ptrdiff_t element) noexcept nogil:
    """How many elements lie between the last boundary and this one. Loops and chunks begin at
    boundaries: a store that straddles two cache lines costs two."""
    if can_align(sweep):
        return <uintptr_t> (sweep.y + element * itemsize(sweep.dtype)) // itemsize(sweep.dtype) % boundary(sweep)
    return element % 8


cdef inline void apply_part(
    int dtype, int form, const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t count,
    const unsigned char* keep, uint64_t bit
) noexcept nogil:
    """Fewer elements than a step."""
    cdef char padded[STEP * 8]
    cdef char padded_residual[STEP * 8]
    cdef uint64_t bits
    cdef Loop loop
    if count == 0:
        return
    loop = loop_from(dtype, form & GENERAL, sweep, first)
    bits = load_part(keep, bit, count)
    memset(padded, 0, STEP * itemsize(dtype))
    memcpy(padded, sweep.x + first * itemsize(dtype), count * itemsize(dtype))
    if form & GENERAL and sweep.residual != NULL:
        memset(padded_residual, 0, STEP * itemsize(dtype))
        memcpy(padded_residual, loop.residual, count * itemsize(dtype))
        loop.residual = padded_residual
    apply_step(dtype, (form | MASKED) & ~STREAMING, &loop, padded, padded,
               <unsigned char*> &bits, <unsigned char*> &bits)
    memcpy(sweep.y + first * itemsize(dtype), padded, count * itemsize(dtype))
    if form & RELU and sweep.mask != NULL:
        store_part(sweep.mask, first, bits, count)  # the padding is not kept, so not passed


cdef inline void apply_as(
    int dtype, int form,
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    cdef chunk_words keep_words, passed_words
    cdef unsigned char* passed = <unsigned char*> passed_words.word
    cdef ptrdiff_t head, body
    cdef uint64_t mask_bit
    cdef bint aside
    cdef Loop loop
    head = (boundary(sweep) - past_boundary(sweep, first)) % boundary(sweep)
    head = min(head, last - first)
    apply_part(dtype, form, sweep, first, head, keep, bit)
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
    mask_bit = first
    aside = mask_bit & 7
    if form & MASKED and not aside:
        passed = sweep.mask + (mask_bit >> 3)

    loop = loop_from(dtype, form & GENERAL, sweep, first)
    apply_steps(
        dtype, form, &loop, sweep.x + first * itemsize(dtype), sweep.y + first * itemsize(dtype),
        keep, passed, body // STEP, draw, ahead,
    )
    if form & MASKED and aside:
        copy_bits(sweep.mask, mask_bit, passed, 0, body)
    apply_part(dtype, form, sweep, first + body, last - first - body, keep, body)


cdef inline bint is_general(const dropout_sweep* sweep) noexcept nogil:
    return sweep.bias != NULL or sweep.residual != NULL or sweep.dropped != 0 or sweep.shift != 0


cdef inline void apply_dtype(
    int dtype,
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Each form with a loop of its own."""
    cdef int form = (RELU if sweep.relu else 0) | (STREAMING if sweep.streaming else 0)
    if sweep.relu and sweep.mask != NULL:
        form |= MASKED
    if is_general(sweep):
        form |= GENERAL
    if form == 0:
        apply_as(dtype, 0, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU:
        apply_as(dtype, RELU, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | MASKED:
        apply_as(dtype, RELU | MASKED, sweep, first, last, keep, bit, draw, ahead)
    elif form == STREAMING:
        apply_as(dtype, STREAMING, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | STREAMING:
        apply_as(dtype, RELU | STREAMING, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | MASKED | STREAMING:
        apply_as(dtype, RELU | MASKED | STREAMING, sweep, first, last, keep, bit, draw, ahead)
    else:
        apply_as(dtype, form | GENERAL, sweep, first, last, keep, bit, draw, ahead)


# Functions of their own: a compiler gives up on optimising one that holds all of these loops.

cdef void apply_float32(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_dtype(FLOAT32, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_float64(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_dtype(FLOAT64, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_float16(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_dtype(FLOAT16, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_bfloat16(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_dtype(BFLOAT16, sweep, first, last, keep, bit, draw, ahead)


cdef void apply(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """At most CHUNK elements of a pass from `first` on; their decisions are in `keep` from `bit` on."""
    if sweep.x == NULL:
        pass
    elif sweep.dtype == FLOAT32:
        apply_float32(sweep, first, last, keep, bit, draw, ahead)
    elif sweep.dtype == FLOAT64:
        apply_float64(sweep, first, last, keep, bit, draw, ahead)
    elif sweep.dtype == FLOAT16:
        apply_float16(sweep, first, last, keep, bit, draw, ahead)
    else:
        apply_bfloat16(sweep, first, last, keep, bit, draw, ahead)
    if sweep.mask != NULL and not sweep.relu:
        copy_bits(sweep.mask, first, keep, bit, last - first)


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
    elif dtype == FLOAT16:
        nonzero_as(FLOAT16, y, count, bits)
    else:
        nonzero_as(BFLOAT16, y, count, bits)


cdef inline void add_as(int dtype, const char* elements, double* sums, ptrdiff_t count) noexcept nogil:
    cdef float values[STEP]
    cdef char padded[STEP * 4]
    cdef ptrdiff_t n = 0
    cdef int i, some = STEP
    while n < count:
        if count - n < STEP:
            some = count - n
            memset(padded, 0, sizeof(padded))
            memcpy(padded, elements, some * itemsize(dtype))
            elements = padded
        lanes_store(FLOAT32, <char*> values, lanes_load(dtype, elements))
        for i in range(some):
            sums[n + i] += values[i]
        elements += STEP * itemsize(dtype)
        n += STEP


cdef void add(int dtype, const char* elements, double* sums, ptrdiff_t count) noexcept nogil:
    """Add `count` elements to as many sums."""
    cdef double value
    cdef ptrdiff_t n
    if dtype == FLOAT64:
        for n in range(count):
            memcpy(&value, elements + 8 * n, 8)
            sums[n] += value
    elif dtype == FLOAT32:
        add_as(FLOAT32, elements, sums, count)
    elif dtype == FLOAT16:
        add_as(FLOAT16, elements, sums, count)
    else:
        add_as(BFLOAT16, elements, sums, count)


cdef inline void round_as(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil:
    cdef float values[STEP]
    cdef char padded[STEP * 4]
    cdef ptrdiff_t n = 0
    cdef int i, some = STEP
    memset(values, 0, sizeof(values))
    while n < count:
        some = min(some, count - n)
        for i in range(some):
            values[i] = to_odd(sums[n + i]) if dtype == FLOAT16 else <float> sums[n + i]
        lanes_store(dtype, padded, lanes_load(FLOAT32, <const char*> values))
        memcpy(elements + n * itemsize(dtype), padded, some * itemsize(dtype))
        n += STEP


cdef inline float to_odd(double value) noexcept nogil:
    """The float32 beside `value` whose last bit is odd, unless `value` is one itself: rounded again, to a shorter
    dtype, it gives what `value` rounded once does (S. Boldo, G. Melquiond, "Emulation of FMA and correctly rounded
    sums: proved algorithms using rounding to odd", IEEE Transactions on Computers 57, 2008)."""
    cdef float near = <float> value
    cdef double back = near
    cdef uint32_t bits
    if back == value or value != value:
        return near
    memcpy(&bits, &near, 4)
    if not bits & 1:    # an even neighbour: the odd one is on the other side of `value`
        bits += 1 if (back < value) == (back >= 0) else -1
        memcpy(&near, &bits, 4)
    return near


cdef void round_sums(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil:
    """Round `count` sums to elements, as NumPy's `astype` does."""
    if dtype == FLOAT64:
        memcpy(elements, sums, 8 * count)
    elif dtype == FLOAT32:
        round_as(FLOAT32, sums, elements, count)
    elif dtype == FLOAT16:
        round_as(FLOAT16, sums, elements, count)
    else:
        round_as(BFLOAT16, sums, elements, count)
