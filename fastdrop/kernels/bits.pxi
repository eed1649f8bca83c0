# Packed bits begin at any bit, and are read and written 64 at a time. Element n is bit n % 8 of byte n // 8. No function
# here touches a byte that holds none of its bits.

cdef inline uint64_t low_bits(ptrdiff_t count) noexcept nogil:
    """Return a word whose lowest `count` < 64 bits are set."""
    return (<uint64_t> 1 << count) - 1


cdef inline uint64_t load_word(const unsigned char* bits, uint64_t first) noexcept nogil:
    """Return the 64 bits from bit `first` on."""
    cdef uint64_t word
    cdef int shift = first & 7
    bits += first >> 3
    memcpy(&word, bits, 8)
    if shift:
        word = (word >> shift) | (<uint64_t> bits[8] << (64 - shift))
    return word


cdef inline uint64_t load_part(const unsigned char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """Return the `count` < 64 bits from bit `first` on, and zeros above them."""
    cdef unsigned char end[9]
    memset(end, 0, sizeof(end))
    memcpy(end, bits + (first >> 3), ((first & 7) + count + 7) >> 3)
    return load_word(end, first & 7) & low_bits(count)


# What is stored begins after bits that stay as they are. Bits after it, in its last byte, become zeros.


cdef inline void store_word(unsigned char* bits, uint64_t first, uint64_t word) noexcept nogil:
    """Store 64 bits from bit `first` on."""
    cdef int shift = first & 7
    bits += first >> 3
    if shift:
        bits[8] = word >> (64 - shift)
        word = (word << shift) | (bits[0] & low_bits(shift))
    memcpy(bits, &word, 8)


cdef inline void store_part(unsigned char* bits, uint64_t first, uint64_t word, ptrdiff_t count) noexcept nogil:
    """Store `count` < 64 bits from bit `first` on. The word has zeros above them."""
    cdef unsigned char end[9]
    end[0] = bits[first >> 3]
    store_word(end, first & 7, word)
    memcpy(bits + (first >> 3), end, ((first & 7) + count + 7) >> 3)


cdef inline ptrdiff_t up_to_byte(uint64_t first, ptrdiff_t count) noexcept nogil:
    """Return how many of `count` bits lie before the first byte that begins with one of them."""
    return min(<ptrdiff_t> (-first & 7), count)


cdef inline void copy_bits(
    unsigned char* to, uint64_t to_first, const unsigned char* bits, uint64_t first, ptrdiff_t count
) noexcept nogil:
    """Copy `count` bits from bit `first` of one place to bit `to_first` of another."""
    cdef ptrdiff_t head = up_to_byte(to_first, count)
    if head > 0:
        store_part(to, to_first, load_part(bits, first, head), head)
    copy_to_byte(to + ((to_first + head) >> 3), bits + ((first + head) >> 3), (first + head) & 7, count - head)


cdef inline void copy_to_byte(
    unsigned char* to, const unsigned char* bits, int shift, ptrdiff_t count
) noexcept nogil:
    """Copy `count` bits from bit `shift` < 8 to bit 0."""
    cdef ptrdiff_t words = count // 64, rest = count % 64
    if shift == 0:
        memcpy(to, bits, 8 * words)
    elif words:
        copy_shifted_words(to, bits, shift, words)
    if rest:
        store_part(to + 8 * words, 0, load_part(bits + 8 * words, shift, rest), rest)


cdef inline void copy_shifted_words(
    unsigned char* to, const unsigned char* bits, int shift, ptrdiff_t words
) noexcept nogil:
    """Copy 64 * words bits from bit `shift`, which is not 0, to bit 0.

    The loop reads two words for each that it writes. The last word is apart, because it needs but a byte of the next.
    """
    cdef uint64_t low, high
    cdef ptrdiff_t word
    for word in range(words - 1):
        memcpy(&low, bits + 8 * word, 8)
        memcpy(&high, bits + 8 * word + 8, 8)
        low = (low >> shift) | (high << (64 - shift))
        memcpy(to + 8 * word, &low, 8)
    store_word(to + 8 * (words - 1), 0, load_word(bits + 8 * (words - 1), shift))


cdef inline void clear_bits(unsigned char* bits, uint64_t first, ptrdiff_t count) noexcept nogil:
    """Store `count` zeros from bit `first` on."""
    cdef ptrdiff_t head = up_to_byte(first, count)
    if head > 0:
        store_part(bits, first, 0, head)
    memset(bits + ((first + head) >> 3), 0, (count - head + 7) >> 3)
