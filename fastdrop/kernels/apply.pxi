# Decisions and elements become results, in steps of 16 elements and 16 bits. A dtype and a form of the loop are constants
# at every call, so each pair of them is compiled to a loop of its own.

from fastdrop.kernels.sweep cimport dropout_sweep, itemsize

cdef enum:
    STEP = 16           # elements
    STEP_BYTES = 8 * STEP   # at most
    LANES_BYTES = 64    # of elements that are not 16 bits wide; float64 fills two of these per step
    GROUP_STEPS = GROUP_SIZE * BLOCK / STEP
    CACHE_LINE = 64     # bytes
    # Streams fetch so many bytes ahead. The hardware's own fetching ends with the page.
    AHEAD = 4096

    # A form of the loop is a sum of these.
    RELU = 1
    MASKED = 2          # The bits of what passed the ReLU are wanted.
    STREAMING = 4
    BIAS = 8
    RESIDUAL = 16
    SHIFTED = 32        # What is dropped does not become zero, or a number is added to all.
    RARE = 64           # The loop looks for the last three as it runs.
    GENERAL = BIAS | RESIDUAL | SHIFTED | RARE


cdef inline int arithmetic(int dtype) noexcept nogil:
    """Return the dtype that a dtype is computed in, which is also that of a bias."""
    return FLOAT64 if dtype == FLOAT64 else FLOAT32


# --- a step -----------------------------------------------------------------------------------

# What a loop needs besides x, y and bits. All but the scale is for the forms of GENERAL.
cdef struct Loop:
    lanes scale
    lanes dropped
    lanes shift
    # Whether `dropped` or `shift` is not zero.
    bint shifted
    # The next element of the residual.
    const char* residual
    # The next number of the bias, the end of the bias, and its bytes.
    const char* bias
    const char* bias_end
    ptrdiff_t period


cdef inline Loop loop_from(
    int dtype, int form, const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t first
) noexcept nogil:
    """Return the loop that begins with element `first`, which is in this row."""
    cdef Loop loop
    cdef int size = itemsize(arithmetic(dtype))
    loop.scale = lanes_fill(dtype, sweep.scale)
    if form & GENERAL:
        loop.dropped = lanes_fill(dtype, sweep.dropped)
        loop.shift = lanes_fill(dtype, sweep.shift)
        loop.shifted = sweep.dropped != 0 or sweep.shift != 0
        loop.residual = sweep.residual
        if loop.residual != NULL:
            loop.residual += row * sweep.residual_gap + first * itemsize(dtype)
        loop.bias = loop.bias_end = sweep.bias
        loop.period = sweep.period * size
        if loop.bias != NULL:
            loop.bias += first % sweep.period * size
            loop.bias_end += loop.period
    return loop


cdef inline lanes add_bias(int dtype, Loop* loop, lanes value) noexcept nogil:
    value = lanes_add(dtype, value, lanes_load(arithmetic(dtype), loop.bias))
    loop.bias += LANES_BYTES
    if loop.bias >= loop.bias_end:
        loop.bias -= loop.period
    return value


cdef inline lanes add_shift(int dtype, Loop* loop, lanes_mask mask, lanes value) noexcept nogil:
    """Replace what is not in the mask by what dropped elements become, and add the shift."""
    return lanes_add(dtype, lanes_choose(dtype, mask, value, loop.dropped), loop.shift)


cdef inline lanes add_residual(int dtype, Loop* loop, lanes value) noexcept nogil:
    value = lanes_add(dtype, lanes_load(dtype, loop.residual), value)
    loop.residual += LANES_BYTES if dtype == FLOAT64 else STEP * itemsize(dtype)
    return value


cdef inline void apply_step(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed,
) noexcept nogil:
    """Compute 16 results and, of a form that is MASKED, the bits of what passed."""
    cdef lanes value
    cdef lanes_mask mask
    cdef int i
    for i in range(2 if dtype == FLOAT64 else 1):
        if form & STREAMING:
            prefetch(x + LANES_BYTES * i + AHEAD)
        value = lanes_load(dtype, x + LANES_BYTES * i)
        if form & BIAS and (not form & RARE or loop.bias != NULL):
            value = add_bias(dtype, loop, value)
        mask = mask_load(dtype, keep + i)
        if form & RELU:
            mask = mask_positive(dtype, mask, value)
            if form & MASKED:
                mask_store(dtype, passed + i, mask)
        value = lanes_scale(dtype, mask, value, loop.scale)
        if form & SHIFTED and (not form & RARE or loop.shifted):
            value = add_shift(dtype, loop, mask, value)
        if form & RESIDUAL and (not form & RARE or loop.residual != NULL):
            value = add_residual(dtype, loop, value)
        if form & STREAMING:
            lanes_stream(dtype, y + LANES_BYTES * i, value)
        else:
            lanes_store(dtype, y + LANES_BYTES * i, value)


# --- many steps -------------------------------------------------------------------------------


cdef inline void apply_nth(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed, ptrdiff_t step,
) noexcept nogil:
    """Compute a step by its number."""
    cdef int size = STEP * itemsize(dtype)
    apply_step(dtype, form, loop, x + step * size, y + step * size, keep + 2 * step, passed + 2 * step)


cdef inline ptrdiff_t apply_until(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed, ptrdiff_t step, ptrdiff_t stop,
) noexcept nogil:
    """Compute the steps from `step` on, and return `stop`."""
    while step < stop:
        apply_nth(dtype, form, loop, x, y, keep, passed, step)
        step += 1
    return step


cdef inline ptrdiff_t apply_beside_groups(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed,
    ptrdiff_t steps, const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Compute as many steps as the first planes of whole groups decide, between these planes."""
    cdef int plane, planes = first_planes(draw.threshold)
    cdef ptrdiff_t step = 0
    cdef Group group
    while ahead.drawn < ahead.count and step + GROUP_STEPS <= steps:
        group = group_first(draw, ahead, ahead.drawn)
        for plane in range(FIRST_PLANES):
            if plane < planes:
                compare_plane(draw, &group, plane, first_plane_bits(draw, &group, plane))
            step = apply_until(dtype, form, loop, x, y, keep, passed, step, step + GROUP_STEPS // FIRST_PLANES)
        group_store(ahead, group)
    return step


cdef inline void apply_while_drawing(
    int dtype, int form, Loop* loop,
    const char* x, char* y, const unsigned char* keep, unsigned char* passed,
    ptrdiff_t steps, const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Compute all steps, and draw first planes of the chunk ahead between them where that is faster.

    Arithmetic bounds the drawing. Where memory bounds the steps, they hide each other's waits side by side: beyond the
    cache always, and in the cache where the drawing is not done as chains, which leave no waits to hide. Without
    vectors arithmetic bounds both.
    """
    cdef ptrdiff_t step = 0
    if GROUP_SIZE > 1 and ahead != NULL and (form & STREAMING or not CHAINED):
        step = apply_beside_groups(dtype, form, loop, x, y, keep, passed, steps, draw, ahead)
    apply_until(dtype, form, loop, x, y, keep, passed, step, steps)


# --- a range ----------------------------------------------------------------------------------

# Loops and chunks begin at boundaries, because a store that straddles two cache lines costs two. A boundary is where a
# cache line of the result begins, or a step after it. Where no element of the result begins with a cache line, a
# boundary is where a byte of the mask begins. So it is in rows with gaps, because a part of a step at the beginning of
# each costs more, unless their stores bypass the cache.


cdef inline bint can_align(int dtype, const dropout_sweep* sweep) noexcept nogil:
    return sweep.x != NULL and <uintptr_t> sweep.y % itemsize(dtype) == 0 and (sweep.row == 0 or sweep.streaming)


cdef inline ptrdiff_t between_boundaries(int dtype, const dropout_sweep* sweep) noexcept nogil:
    """Return how many elements lie from one boundary to the next: a power of two."""
    return min(CACHE_LINE // itemsize(dtype), STEP) if can_align(dtype, sweep) else 8


cdef inline ptrdiff_t past_boundary(
    int dtype, const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t element
) noexcept nogil:
    """Return how many elements lie from the last boundary to this element, which is in this row."""
    cdef uintptr_t number = element
    if can_align(dtype, sweep):
        number = <uintptr_t> (sweep.y + row * sweep.y_gap + element * itemsize(dtype)) // itemsize(dtype)
    return number & (between_boundaries(dtype, sweep) - 1)


cdef inline ptrdiff_t boundary_before(const dropout_sweep* sweep, ptrdiff_t element) noexcept nogil:
    """Return the last boundary that is not after this element, where rows have no gaps."""
    return element - past_boundary(sweep.dtype, sweep, 0, element)


cdef inline ptrdiff_t boundary_after(
    int dtype, const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t element
) noexcept nogil:
    """Return the first boundary that is not before this element, which is in this row."""
    return element + (-past_boundary(dtype, sweep, row, element) & (between_boundaries(dtype, sweep) - 1))


cdef inline void apply_range(
    int dtype, int form,
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Apply decisions row by row, or at once where rows have no gaps."""
    cdef ptrdiff_t row = first // sweep.row if sweep.row else 0, length = sweep.row if sweep.row else last, end
    while first < last:
        end = min((row + 1) * length, last)
        apply_row(dtype, form, sweep, row, first, end, keep, bit, draw, ahead)
        bit += end - first
        first = end
        row += 1


cdef inline void apply_row(
    int dtype, int form,
    const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Apply decisions in three parts: up to a boundary, in whole steps from there, and what is left of a step."""
    cdef ptrdiff_t body = min(boundary_after(dtype, sweep, row, first), last)
    cdef ptrdiff_t tail = body + (last - body) // STEP * STEP
    apply_padded(dtype, form, sweep, row, first, body, keep, bit)
    apply_body(dtype, form, sweep, row, body, tail, keep, bit + (body - first), draw, ahead)
    apply_padded(dtype, form, sweep, row, tail, last, keep, bit + (tail - first))


cdef inline void apply_padded(
    int dtype, int form, const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t first, ptrdiff_t last,
    const unsigned char* keep, uint64_t bit
) noexcept nogil:
    """Apply decisions to fewer elements than a step, which are padded with zeros that are not kept."""
    cdef char padded[STEP_BYTES]
    cdef char padded_residual[STEP_BYTES]
    cdef ptrdiff_t count = last - first
    cdef int size = itemsize(dtype)
    cdef uint64_t bits
    cdef Loop loop
    if count == 0:
        return
    loop = loop_from(dtype, form, sweep, row, first)
    bits = load_part(keep, bit, count)
    memset(padded, 0, STEP * size)
    memcpy(padded, sweep.x + row * sweep.x_gap + first * size, count * size)
    if form & RESIDUAL and sweep.residual != NULL:
        memset(padded_residual, 0, STEP * size)
        memcpy(padded_residual, loop.residual, count * size)
        loop.residual = padded_residual
    apply_step(
        dtype, (form | MASKED) & ~STREAMING, &loop, padded, padded, <unsigned char*> &bits, <unsigned char*> &bits)
    memcpy(sweep.y + row * sweep.y_gap + first * size, padded, count * size)
    if form & RELU and sweep.mask != NULL:
        store_part(sweep.mask, first, bits, count)


cdef inline void apply_body(
    int dtype, int form,
    const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Apply decisions in whole steps. A step's bits begin with a byte: those that do not are copied."""
    cdef chunk_words keep_copy, passed_copy
    cdef unsigned char* passed = <unsigned char*> passed_copy.word
    cdef bint shares_byte = first & 7
    cdef const char* x = sweep.x + first * itemsize(dtype)
    cdef char* y = sweep.y + first * itemsize(dtype)
    cdef Loop loop
    if sweep.row:   # elsewhere no loop shall depend on gaps
        x += row * sweep.x_gap
        y += row * sweep.y_gap
    if bit & 7:
        copy_bits(<unsigned char*> keep_copy.word, 0, keep, bit, last - first)
        keep = <unsigned char*> keep_copy.word
    else:
        keep += bit >> 3
    if form & MASKED and not shares_byte:
        passed = sweep.mask + (first >> 3)
    loop = loop_from(dtype, form, sweep, row, first)   # no earlier, as no call keeps what is in vector registers
    apply_while_drawing(dtype, form, &loop, x, y, keep, passed, (last - first) // STEP, draw, ahead)
    if form & MASKED and shares_byte:
        copy_bits(sweep.mask, first, passed, 0, last - first)


# --- the choice of a loop ---------------------------------------------------------------------


cdef inline void apply_by_form(
    int dtype,
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Apply decisions by the loop of their form. Rare forms share a loop, which looks at the form as it runs."""
    cdef int form = form_of(sweep)
    if form == 0:
        apply_range(dtype, 0, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU:
        apply_range(dtype, RELU, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | MASKED:
        apply_range(dtype, RELU | MASKED, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | BIAS:
        apply_range(dtype, RELU | BIAS, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | MASKED | BIAS:
        apply_range(dtype, RELU | MASKED | BIAS, sweep, first, last, keep, bit, draw, ahead)
    elif form == RESIDUAL:
        apply_range(dtype, RESIDUAL, sweep, first, last, keep, bit, draw, ahead)
    elif form == SHIFTED:
        apply_range(dtype, SHIFTED, sweep, first, last, keep, bit, draw, ahead)
    elif form == STREAMING:
        apply_range(dtype, STREAMING, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | STREAMING:
        apply_range(dtype, RELU | STREAMING, sweep, first, last, keep, bit, draw, ahead)
    elif form == RELU | MASKED | STREAMING:
        apply_range(dtype, RELU | MASKED | STREAMING, sweep, first, last, keep, bit, draw, ahead)
    else:
        apply_range(dtype, form | GENERAL, sweep, first, last, keep, bit, draw, ahead)


cdef inline int form_of(const dropout_sweep* sweep) noexcept nogil:
    cdef int form = RELU if sweep.relu else 0
    if sweep.relu and sweep.mask != NULL:
        form |= MASKED
    if sweep.streaming:
        form |= STREAMING
    if sweep.bias != NULL:
        form |= BIAS
    if sweep.residual != NULL:
        form |= RESIDUAL
    if sweep.dropped != 0 or sweep.shift != 0:
        form |= SHIFTED
    return form


# These are four functions because a compiler gives up optimising one that holds all of these loops.

cdef void apply_float32(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_by_form(FLOAT32, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_float64(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_by_form(FLOAT64, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_float16(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_by_form(FLOAT16, sweep, first, last, keep, bit, draw, ahead)


cdef void apply_bfloat16(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    apply_by_form(BFLOAT16, sweep, first, last, keep, bit, draw, ahead)


cdef inline void apply_by_dtype(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    if sweep.dtype == FLOAT32:
        apply_float32(sweep, first, last, keep, bit, draw, ahead)
    elif sweep.dtype == FLOAT64:
        apply_float64(sweep, first, last, keep, bit, draw, ahead)
    elif sweep.dtype == FLOAT16:
        apply_float16(sweep, first, last, keep, bit, draw, ahead)
    else:
        apply_bfloat16(sweep, first, last, keep, bit, draw, ahead)


cdef void apply_decisions(
    const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const unsigned char* keep, uint64_t bit,
    const Draw* draw, Chunk* ahead,
) noexcept nogil:
    """Compute elements first, ..., last - 1, at most CHUNK, and their part of the mask.

    The decision on `first` is bit number `bit` of `keep`. First planes of the chunk `ahead`, which may be NULL, are
    drawn meanwhile.
    """
    if sweep.x != NULL:
        apply_by_dtype(sweep, first, last, keep, bit, draw, ahead)
    if sweep.mask != NULL and not sweep.relu:
        copy_bits(sweep.mask, first, keep, bit, last - first)


# --- decisions of saved results ---------------------------------------------------------------


cdef inline void nonzero_step(int dtype, const char* y, unsigned char* bits) noexcept nogil:
    cdef int i
    for i in range(2 if dtype == FLOAT64 else 1):
        mask_store(dtype, bits + i, mask_nonzero(dtype, lanes_load(dtype, y + LANES_BYTES * i)))


cdef inline void nonzero_as(int dtype, const char* y, ptrdiff_t count, unsigned char* bits) noexcept nogil:
    cdef char padded[STEP_BYTES]
    cdef ptrdiff_t step = 0
    cdef int size = itemsize(dtype)
    while step < count // STEP:
        nonzero_step(dtype, y + step * STEP * size, bits + 2 * step)
        step += 1
    if count % STEP:
        memset(padded, 0, sizeof(padded))
        memcpy(padded, y + step * STEP * size, count % STEP * size)
        nonzero_step(dtype, padded, bits + 2 * step)


cdef void nonzero_bits(int dtype, const char* y, ptrdiff_t count, unsigned char* bits) noexcept nogil:
    """Write packed bits that say which of `count` elements are not zero."""
    if dtype == FLOAT32:
        nonzero_as(FLOAT32, y, count, bits)
    elif dtype == FLOAT64:
        nonzero_as(FLOAT64, y, count, bits)
    elif dtype == FLOAT16:
        nonzero_as(FLOAT16, y, count, bits)
    else:
        nonzero_as(BFLOAT16, y, count, bits)
