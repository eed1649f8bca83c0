# Gaussian dropout multiplies each element by its noise, 1 + scale * normal. The normals are made of random words, which
# the generator draws as it does for keep decisions, but for counters of their own.

from fastdrop.kernels.sweep cimport dropout_sweep

cdef extern from "normal.h":
    enum:
        NORMAL_GROUP    # elements that share random words, of 32 bits each
        NORMAL_GROUPS   # groups whose noise is made together
    void noise_groups(const uint64_t* random, ptrdiff_t groups, float scale, float* noise) noexcept nogil

cdef enum:
    NORMAL_BLOCKS = NORMAL_GROUP / 4    # per group: 128 bits are for four elements
    NOISE = NORMAL_GROUPS * NORMAL_GROUP    # elements whose noise is drawn before it is used: BITSLICE_LANES blocks

cdef struct NoiseKey:
    Key key
    # Whether there are so many elements that bit slices pay.
    bint bitsliced
    bitslices_key bitslices

# The top 32 bits of a counter say what is drawn: they are 0 for planes, and 1 for normals. This is in the high word.
cdef uint64_t NORMAL_STREAM = <uint64_t> 1 << 32


cdef void start_noise(NoiseKey* key, uint64_t seed_low, uint64_t seed_high, ptrdiff_t count) noexcept nogil:
    """Prepare the noise of `count` elements."""
    key_schedule(&key.key, seed_low, seed_high)
    key.bitsliced = count // 6 >= LEAST_BITSLICED   # a block is for four, but bit slices have to be prepared
    key.bitslices.base = NO_BASE


cdef inline void draw_words_bitsliced(NoiseKey* key, uint64_t block, uint64_t* words) noexcept nogil:
    """Draw the bits of BITSLICE_LANES blocks, whose numbers differ in their LOW_BITS alone."""
    cdef uint64_t low[BITSLICE_LANES]
    cdef uint64_t high[BITSLICE_LANES]
    cdef uint64_t base = block & ~<uint64_t> LOW_BITS
    cdef int lane
    for lane in range(BITSLICE_LANES):
        low[lane] = block - base + lane
        high[lane] = NORMAL_STREAM
    if base != key.bitslices.base:
        bitslices_start(&key.bitslices, key.key.low, key.key.high, base, high)
    bitslices_draw(&key.bitslices, low, words)


cdef inline void draw_words(NoiseKey* key, uint64_t block, ptrdiff_t count, uint64_t* words) noexcept nogil:
    """Draw the bits of at least `count` blocks."""
    cdef ptrdiff_t n = 0
    if BITSLICED:
        if key.bitsliced and count >= LEAST_BITSLICED and (block & LOW_BITS) <= LOW_BITS + 1 - BITSLICE_LANES:
            draw_words_bitsliced(key, block, words)
            return
    while n < count:
        blocks_store(words + BLOCK_WORDS * n, ars(
            &key.key, blocks_xor(blocks_count(block + n), blocks_set(0, NORMAL_STREAM)), ROUNDS
        ))
        n += GROUP_SIZE


cdef void draw_noise(NoiseKey* key, uint64_t group, ptrdiff_t count, float scale, float* noise) noexcept nogil:
    """Draw the noise of at least `count` <= NOISE elements, from the first of a group on.

    The words of all of them are drawn first, because a read that follows smaller writes to its bytes has to wait.
    """
    cdef uint64_t words[NOISE / 2]
    cdef ptrdiff_t groups = (count + NORMAL_GROUP - 1) // NORMAL_GROUP
    draw_words(key, group * NORMAL_BLOCKS, groups * NORMAL_BLOCKS, words)
    noise_groups(words, groups, scale, noise)


cdef inline lanes scaled(int dtype, const char* x, const char* factor) noexcept nogil:
    """Return elements times factors, which are in the dtype of the arithmetic."""
    cdef lanes_mask every = mask_load(dtype, <const unsigned char*> b"\xff\xff")
    return lanes_scale(dtype, every, lanes_load(dtype, x), lanes_load(arithmetic(dtype), factor))


cdef inline void multiply_step(int dtype, const char* x, char* y, const float* noise) noexcept nogil:
    cdef double wide[STEP]
    cdef int i
    if dtype == FLOAT64:
        for i in range(STEP):
            wide[i] = noise[i]
        for i in range(2):
            lanes_store(dtype, y + LANES_BYTES * i, scaled(dtype, x + LANES_BYTES * i, <const char*> (wide + 8 * i)))
    else:
        lanes_store(dtype, y, scaled(dtype, x, <const char*> noise))


cdef inline void multiply_as(int dtype, const char* x, char* y, const float* noise, ptrdiff_t count) noexcept nogil:
    cdef char padded[STEP_BYTES]
    cdef ptrdiff_t n = 0
    cdef int size = itemsize(dtype)
    while n + STEP <= count:
        multiply_step(dtype, x + n * size, y + n * size, noise + n)
        n += STEP
    if n < count:
        memset(padded, 0, sizeof(padded))
        memcpy(padded, x + n * size, (count - n) * size)
        multiply_step(dtype, padded, padded, noise + n)
        memcpy(y + n * size, padded, (count - n) * size)


cdef void multiply_by_noise(int dtype, const char* x, char* y, const float* noise, ptrdiff_t count) noexcept nogil:
    """Multiply `count` elements by their noise. The noise is readable up to a whole step."""
    if dtype == FLOAT32:
        multiply_as(FLOAT32, x, y, noise, count)
    elif dtype == FLOAT64:
        multiply_as(FLOAT64, x, y, noise, count)
    elif dtype == FLOAT16:
        multiply_as(FLOAT16, x, y, noise, count)
    elif dtype == BFLOAT16:
        multiply_as(BFLOAT16, x, y, noise, count)


cdef void sweep_gaussian(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Draw noise and multiply by it, stretch by stretch."""
    cdef NoiseKey key
    cdef float noise[NOISE + STEP]
    cdef Stretch stretch
    start_noise(&key, sweep.seed[0], sweep.seed[1], last - first)
    memset(noise, 0, sizeof(noise))
    while first < last:
        stretch = stretch_from(sweep, first, last)
        sweep_noise(sweep, &key, first, stretch.end, stretch.block * BLOCK + (first - stretch.begin), noise)
        first = stretch.end


cdef inline void sweep_noise(
    const dropout_sweep* sweep, NoiseKey* key, ptrdiff_t first, ptrdiff_t last, uint64_t position, float* noise
) noexcept nogil:
    """Sweep elements whose positions are successive, the first one's being `position`."""
    cdef int size = itemsize(sweep.dtype)
    cdef ptrdiff_t phase, count
    while first < last:
        phase = position % NORMAL_GROUP
        count = min(NOISE - phase, last - first)
        draw_noise(key, position // NORMAL_GROUP, phase + count, <float> sweep.scale, noise)
        multiply_by_noise(sweep.dtype, sweep.x + first * size, sweep.y + first * size, noise + phase, count)
        first += count
        position += count
