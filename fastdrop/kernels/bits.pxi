# Packed bits at any bit offset, a word of 64 at a time: element n is bit n % 8 of byte n // 8.

cdef inline uint64_t low_bits(ptrdiff_t count) noexcept nogil:
    """A word whose lowest `count` < 64 bits are set."""
    return (<uint64_t> 1 << count) - 1


cdef inline uint64_t load_word(const unsigned char* bits, uint64_t first) noexcept nogil:
    """64 bits from bit `first` on, and not a byte beyond."""
    cdef uint64_t word
    cdef int shift = first & 7
    bits += first >> 3
    memcpy(&word, bits, 8)
    if shift:
        word = (word >> shift) | (<uint64_t> bits[8] << (64 - shift))
    return word


cdef inline uint64_t load_part(const unsigned char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """`count` < 64 bits, and zeros."""
    cdef unsigned char end[9]
    memset(end, 0, sizeof(end))
    memcpy(end, bits + (first >> 3), ((first & 7) + count + 7) >> 3)
    return load_word(end, first & 7) & low_bits(count)


cdef inline void store_word(unsigned char* bits, uint64_t first, uint64_t word) noexcept nogil:
    """64 bits to bit `first` on; bits before it stay, the rest of the last byte is zeros."""
    cdef int shift = first & 7
    bits += first >> 3
    if shift:
        bits[8] = word >> (64 - shift)
        word = (word << shift) | (bits[0] & low_bits(shift))
    memcpy(bits, &word, 8)


cdef inline void store_part(unsigned char* bits, uint64_t first, uint64_t word, ptrdiff_t count) noexcept nogil:
    """`count` < 64 bits; those after them in `word` are zeros."""
    cdef unsigned char end[9]
    end[0] = bits[first >> 3]
    store_word(end, first & 7, word)
    memcpy(bits + (first >> 3), end, ((first & 7) + count + 7) >> 3)


cdef inline void copy_bits(
    unsigned char* to, uint64_t to_first, const unsigned char* bits, uint64_t first, ptrdiff_t count
) noexcept nogil:
    """`count` bits from one place to another; bits before them stay, the rest of the last byte is zeros."""
    cdef ptrdiff_t head = min(<ptrdiff_t> (-to_first & 7), count), word, words
    cdef uint64_t low, high
    cdef int shift
    if head:    # up to a byte of the destination
        store_part(to, to_first, load_part(bits, first, head), head)
        to_first += head
        first += head
        count -= head
    to += to_first >> 3
    bits += first >> 3
    shift = first & 7
    words = count // 64
    if shift == 0:
        memcpy(to, bits, 8 * words)
    else:
        if words:
            words -= 1   # which also reads the word after it
        for word in range(words):
            memcpy(&low, bits + 8 * word, 8)
            memcpy(&high, bits + 8 * word + 8, 8)
            low = (low >> shift) | (high << (64 - shift))
            memcpy(to + 8 * word, &low, 8)
    to += 8 * words
    bits += 8 * words
    count -= 64 * words
    if count >= 64:
        store_word(to, 0, load_word(bits, shift))
        to += 8
        bits += 8
        count -= 64
    if count:
        store_part(to, 0, load_part(bits, shift, count), count)


cdef inline void clear_bits(unsigned char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """`count` zeros; bits before them stay, the rest of the last byte is zeros."""
    cdef ptrdiff_t head = min(<ptrdiff_t> (-first & 7), count)
    if head:
        store_part(bits, first, 0, head)
    memset(bits + ((first + head) >> 3), 0, (count - head + 7) >> 3)
