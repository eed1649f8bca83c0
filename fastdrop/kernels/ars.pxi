# ARS: (counter, key) -> 128 random bits a block. J. K. Salmon, M. A. Moraes, R. O. Dror and
# D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC11, 2011: rounds of AES with a Weyl
# sequence for a key schedule.

cdef enum:
    ROUNDS = 7       # the authors' default; 5 pass BigCrush
    MOST_ROUNDS = 10  # for the known answers

cdef struct Key:
    uint64_t low[MOST_ROUNDS + 1]
    uint64_t high[MOST_ROUNDS + 1]


cdef inline void key_schedule(Key* key, uint64_t low, uint64_t high) noexcept nogil:
    cdef int r
    for r in range(MOST_ROUNDS + 1):
        key.low[r] = low
        key.high[r] = high
        low += <uint64_t> 0x9E3779B97F4A7C15   # golden ratio
        high += <uint64_t> 0xBB67AE8584CAA73B  # sqrt(3) - 1


cdef inline blocks ars_start(const Key* key, blocks counter) noexcept nogil:
    return blocks_xor(counter, blocks_set(key.low[0], key.high[0]))


cdef inline blocks ars_rounds(const Key* key, blocks state, int done, int rounds) noexcept nogil:
    """Those of the rounds that come after the first `done`."""
    cdef int r
    for r in range(done + 1, rounds):
        state = blocks_aes(state, blocks_set(key.low[r], key.high[r]))
    return blocks_aes_last(state, blocks_set(key.low[rounds], key.high[rounds]))


cdef inline blocks ars(const Key* key, blocks counter, int rounds) noexcept nogil:
    return ars_rounds(key, ars_start(key, counter), 0, rounds)
