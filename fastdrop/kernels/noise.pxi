# Gaussian dropout: random words -> normals -> y = x * (1 + scale * normal). The words come from the
# generator as the keep decisions do, for counters of their own.

from fastdrop.kernels.sweep cimport dropout_sweep

cdef extern from "normal.h":
    enum:
        NORMAL_GROUP    # elements whose noise is made together, of 32 bits each
    void noise_group(const uint64_t* random, float scale, float* noise) noexcept nogil

cdef enum:
    NORMAL_BLOCKS = NORMAL_GROUP / 4    # 128 bits are four words
    NOISE = 512                         # elements at a time

# The top 32 bits of a counter say what is drawn: 0 the planes of the decisions, 1 normals.
cdef uint64_t NORMAL_STREAM = <uint64_t> 1 << 32


cdef void draw_noise(const Key* key, uint64_t group, ptrdiff_t count, float scale, float* noise) noexcept nogil:
    """The noise of at least `count` elements, from the first of a group on. Words are drawn for all
    of them first: what is read soon after it was written in smaller pieces waits for them."""
    cdef uint64_t words[NOISE / 2]
    cdef uint64_t block = group * NORMAL_BLOCKS
    cdef ptrdiff_t groups = (count + NORMAL_GROUP - 1) // NORMAL_GROUP, n = 0
    while n < groups * NORMAL_BLOCKS:
        blocks_store(words + 2 * n, ars(
            key, blocks_xor(blocks_count(block + n), blocks_set(0, NORMAL_STREAM)), ROUNDS
        ))
        n += GROUP_SIZE
    for n in range(groups):
        noise_group(words + n * NORMAL_GROUP // 2, scale, noise + n * NORMAL_GROUP)


cdef inline void multiply_step(int dtype, const char* x, char* y, const float* noise) noexcept nogil:
    cdef double wide[STEP]
    cdef lanes factor
    cdef lanes_mask every = mask_load(dtype, <const unsigned char*> b"\xff\xff")
    cdef int i
    if dtype == FLOAT64:
        for i in range(STEP):
            wide[i] = noise[i]
        for i in range(2):
            factor = lanes_load(FLOAT64, <const char*> (wide + 8 * i))
            lanes_store(dtype, y + 64 * i, lanes_scale(dtype, every, lanes_load(dtype, x + 64 * i), factor))
    else:
        factor = lanes_load(FLOAT32, <const char*> noise)
        lanes_store(dtype, y, lanes_scale(dtype, every, lanes_load(dtype, x), factor))


cdef inline void multiply_as(int dtype, const char* x, char* y, const float* noise, ptrdiff_t count) noexcept nogil:
    cdef char padded[STEP * 8]
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


cdef void multiply(int dtype, const char* x, char* y, const float* noise, ptrdiff_t count) noexcept nogil:
    if dtype == FLOAT32:
        multiply_as(FLOAT32, x, y, noise, count)
    elif dtype == FLOAT64:
        multiply_as(FLOAT64, x, y, noise, count)
    elif dtype == FLOAT16:
        multiply_as(FLOAT16, x, y, noise, count)
    elif dtype == BFLOAT16:
        multiply_as(BFLOAT16, x, y, noise, count)


cdef void run_gaussian(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef Key key
    cdef float noise[NOISE + STEP]  # a step may read beyond what it needs
    cdef uint64_t position = 0
    cdef ptrdiff_t phase, count
    cdef Stretch stretch
    cdef int size = itemsize(sweep.dtype)
    key_schedule(&key, sweep.seed[0], sweep.seed[1])
    memset(noise, 0, sizeof(noise))
    stretch.end = first
    while first < last:
        if first == stretch.end:
            stretch = stretch_from(sweep, first, last)
            position = stretch.block * BLOCK + (first - stretch.begin)
        phase = position % NORMAL_GROUP
        count = min(NOISE - phase, stretch.end - first)
        draw_noise(&key, position // NORMAL_GROUP, phase + count, <float> sweep.scale, noise)
        multiply(sweep.dtype, sweep.x + first * size, sweep.y + first * size, noise + phase, count)
        first += count
        position += count
