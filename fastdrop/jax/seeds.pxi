# A seed of the stream from what a call is given: its four words, or a threefry key. A key gives the words of
# `jax.random.bits(key, (4,))`, without the operations of XLA that this would take.

cdef enum:
    WORDS = 0               # the four words of a seed, least significant first
    PARTITIONABLE = 1       # a threefry key, under jax_threefry_partitionable
    ORIGINAL = 2            # a threefry key, without it


cdef inline int words_given(int derive) noexcept nogil:
    return 4 if derive == WORDS else 2


cdef void seed_from(int derive, const uint32_t* given, uint64_t* seed) noexcept nogil:
    cdef uint32_t[4] words
    cdef uint32_t[2] block
    cdef uint32_t i
    if derive == PARTITIONABLE:
        for i in range(4):
            block[0], block[1] = 0, i
            threefry(given, block)
            words[i] = block[0] ^ block[1]
    elif derive == ORIGINAL:
        for i in range(2):
            block[0], block[1] = i, i + 2
            threefry(given, block)
            words[i], words[i + 2] = block[0], block[1]
    else:
        for i in range(4):
            words[i] = given[i]
    seed[0] = words[0] | <uint64_t> words[1] << 32
    seed[1] = words[2] | <uint64_t> words[3] << 32


cdef void threefry(const uint32_t* key, uint32_t* x) noexcept nogil:
    """Encrypt two words in place by Threefry-2x32 with 20 rounds (Salmon et al. 2011)."""
    cdef uint32_t[3] schedule
    cdef int[8] turns = [13, 15, 26, 6, 17, 29, 16, 24]
    cdef int group, i
    schedule[0], schedule[1], schedule[2] = key[0], key[1], key[0] ^ key[1] ^ 0x1BD11BDA
    x[0] += schedule[0]
    x[1] += schedule[1]
    for group in range(5):
        for i in range(4):
            x[0] += x[1]
            x[1] = x[0] ^ rotated(x[1], turns[4 * (group & 1) + i])
        x[0] += schedule[(group + 1) % 3]
        x[1] += schedule[(group + 2) % 3] + group + 1


cdef inline uint32_t rotated(uint32_t x, int bits) noexcept nogil:
    return x << bits | x >> (32 - bits)
