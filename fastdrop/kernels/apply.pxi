# Decisions and elements -> results, 64 elements (a word of decisions) at a time.

cdef inline int itemsize(int dtype) noexcept nogil:
    return 4 if dtype == FLOAT32 else 8


cdef inline uint64_t apply_word(
    int dtype, bint relu, bint streaming, const char* x, char* y, uint64_t keep, lanes scale
) noexcept nogil:
    """`y = scale * x` where kept (and passed by the ReLU), else +0; the bits of what passed."""
    cdef uint64_t passed = 0
    cdef lanes value
    cdef lanes_mask mask
    cdef int i
    for i in range(0, 64, 8):
        if i % (LANES_BYTES // itemsize(dtype)):
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


cdef inline void apply_batch(
    int dtype, bint relu, bint streaming, const char* x, char* y, ptrdiff_t count,
    const uint64_t* keep, uint64_t* passed, lanes scale
) noexcept nogil:
    cdef ptrdiff_t word = 0
    cdef ptrdiff_t rest = count & 63
    cdef char buffer[64 * 8]
    while word < count >> 6:
        passed[word] = apply_word(dtype, relu, streaming, x, y, keep[word], scale)
        x += 64 * itemsize(dtype)
        y += 64 * itemsize(dtype)
        word += 1
    if rest:
        memset(buffer, 0, sizeof(buffer))
        memcpy(buffer, x, rest * itemsize(dtype))
        passed[word] = apply_word(dtype, relu, False, buffer, buffer, keep[word], scale)
        memcpy(y, buffer, rest * itemsize(dtype))


cdef inline uint64_t nonzero_word(int dtype, const char* y) noexcept nogil:
    """Which of 64 elements are not zero."""
    cdef uint64_t bits = 0
    cdef int i
    for i in range(0, 64, 8):
        if i % (LANES_BYTES // itemsize(dtype)) == 0:
            bits |= <uint64_t> mask_pack(
                dtype, lanes_nonzero(dtype, lanes_load(dtype, y + i * itemsize(dtype)))
            ) << i
    return bits


cdef inline void nonzero_batch(int dtype, const char* y, ptrdiff_t count, uint64_t* bits) noexcept nogil:
    cdef ptrdiff_t word = 0
    cdef ptrdiff_t rest = count & 63
    cdef char buffer[64 * 8]
    while word < count >> 6:
        bits[word] = nonzero_word(dtype, y + 64 * word * itemsize(dtype))
        word += 1
    if rest:
        memset(buffer, 0, sizeof(buffer))
        memcpy(buffer, y + 64 * word * itemsize(dtype), rest * itemsize(dtype))
        bits[word] = nonzero_word(dtype, buffer)
