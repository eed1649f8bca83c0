# Packed bits at any bit offset: element n is bit n % 8 of byte n // 8.

cdef inline void shift_down(uint64_t* to, const uint64_t* words, int count, int shift) noexcept nogil:
    """`count` words of the bits that start at bit `shift` < 64; reads one word more."""
    cdef int i
    for i in range(count):
        to[i] = (words[i] >> shift) | (words[i + 1] << 1 << (63 - shift))


cdef inline void load_bits(uint64_t* to, const char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """A batch of `count` packed bits from bit `first` on, and not a byte beyond."""
    cdef uint64_t words[BATCH_WORDS + 1]
    cdef int shift = first & 7
    words[BATCH_WORDS] = 0
    memcpy(words, bits + (first >> 3), (shift + count + 7) >> 3)
    shift_down(to, words, BATCH_WORDS, shift)


cdef inline void store_bits(unsigned char* bits, uint64_t first, const uint64_t* words, ptrdiff_t count) noexcept nogil:
    """A batch of `count` packed bits to bit `first` on; bits before it stay, bits after it are zeros."""
    cdef uint64_t shifted[BATCH_WORDS + 1]
    cdef int shift = first & 7
    cdef int i
    bits += first >> 3
    if shift == 0:
        memcpy(bits, words, (count + 7) >> 3)
        return
    shifted[0] = (words[0] << shift) | (bits[0] & ((1 << shift) - 1))
    for i in range(1, BATCH_WORDS):
        shifted[i] = (words[i] << shift) | (words[i - 1] >> (64 - shift))
    shifted[BATCH_WORDS] = words[BATCH_WORDS - 1] >> (64 - shift)
    memcpy(bits, shifted, (shift + count + 7) >> 3)


cdef inline void clear_after(uint64_t* words, ptrdiff_t count) noexcept nogil:
    """Zeros for all bits of a batch from bit `count` on."""
    cdef ptrdiff_t i = count >> 6
    if count < BATCH:
        words[i] &= (<uint64_t> 1 << (count & 63)) - 1
        memset(words + i + 1, 0, (BATCH_WORDS - 1 - i) * sizeof(uint64_t))
