# Gaussian dropout: random words -> normals -> y = x * (1 + scale * normal). The words come from the
# generator as the keep decisions do, for counters of their own.

from fastdrop.kernels.kernel cimport dropout_pass

cdef extern from "normal.h":
    enum:
        NORMAL_GROUP    # elements whose normals are made together, of 32 bits each
    void normal_group(const uint64_t* random, float* normals) noexcept nogil

cdef enum:
    NORMAL_BLOCKS = NORMAL_GROUP / 4    # 128 bits are four words
    NOISE = 512                         # elements at a time

# The top 32 bits of a counter say what is drawn: 0 the planes of the decisions, 1 normals.
cdef uint64_t NORMAL_STREAM = <uint64_t> 1 << 32


cdef inline void draw_normals(const Key* key, uint64_t group, float* normals) noexcept nogil:
    cdef uint64_t words[2 * NORMAL_BLOCKS]
    cdef int block = 0
    while block < NORMAL_BLOCKS:
        blocks_store(words + 2 * block, ars(
            key, blocks_xor(blocks_count(group * NORMAL_BLOCKS + block), blocks_set(0, NORMAL_STREAM)), ROUNDS
        ))
        block += GROUP_SIZE
    normal_group(words, normals)


cdef inline void draw_noise(
    const Key* key, uint64_t group, ptrdiff_t count, float scale, float* noise
) noexcept nogil:
    """The noise of at least `count` elements, from the first of a group on."""
    cdef ptrdiff_t n = 0
    cdef int k
    while n < count:
        draw_normals(key, group, noise + n)
        for k in range(NORMAL_GROUP):
            noise[n + k] = <float> 1 + scale * noise[n + k]
        group += 1
        n += NORMAL_GROUP


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


cdef inline void multiply(int dtype, const char* x, char* y, const float* noise, ptrdiff_t count) noexcept nogil:
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


cdef void run_gaussian(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef Key key
    cdef float noise[NOISE + STEP]  # a step may read beyond what it needs
    cdef uint64_t position
    cdef ptrdiff_t phase, count
    cdef int size = itemsize(task.dtype)
    key_schedule(&key, task.seed[0], task.seed[1])
    while first < last:
        position = task.position + first
        phase = position % NORMAL_GROUP
        count = min(NOISE - phase, last - first)
        draw_noise(&key, position // NORMAL_GROUP, phase + count, <float> task.scale, noise)
        if task.dtype == FLOAT32:
            multiply(FLOAT32, task.x + first * size, task.y + first * size, noise + phase, count)
        elif task.dtype == FLOAT64:
            multiply(FLOAT64, task.x + first * size, task.y + first * size, noise + phase, count)
        first += count
