# ARS makes 128 random bits from a counter and a key: J. K. Salmon, M. A. Moraes, R. O. Dror and D. E. Shaw, "Parallel
# random numbers: as easy as 1, 2, 3", SC11, 2011. Its rounds are those of AES, and a Weyl sequence makes their keys.

cdef enum:
    ROUNDS = 7          # The authors recommend 7. Their 5 rounds pass BigCrush.
    MOST_ROUNDS = 10    # The known answers have up to 10.

cdef struct Key:
    # Word r is half of the key of round r. Round 0 adds nothing but its key.
    uint64_t low[MOST_ROUNDS + 1]
    uint64_t high[MOST_ROUNDS + 1]


cdef inline void key_schedule(Key* key, uint64_t low, uint64_t high) noexcept nogil:
    cdef int r
    for r in range(MOST_ROUNDS + 1):
        key.low[r] = low
        key.high[r] = high
        low += <uint64_t> 0x9E3779B97F4A7C15   # the golden ratio
        high += <uint64_t> 0xBB67AE8584CAA73B  # sqrt(3) - 1


cdef inline blocks round_key(const Key* key, int r) noexcept nogil:
    return blocks_set(key.low[r], key.high[r])


cdef inline blocks ars_start(const Key* key, blocks counter) noexcept nogil:
    """Return the state before the first round."""
    return blocks_xor(counter, round_key(key, 0))


cdef inline blocks ars_finish(const Key* key, blocks state, int done, int rounds) noexcept nogil:
    """Return the bits that a state becomes, of whose `rounds` rounds `done` are done."""
    cdef int r
    for r in range(done + 1, rounds):
        state = blocks_aes(state, round_key(key, r))
    return blocks_aes_last(state, round_key(key, rounds))


cdef inline blocks ars(const Key* key, blocks counter, int rounds) noexcept nogil:
    return ars_finish(key, ars_start(key, counter), 0, rounds)


# --- many blocks together ---------------------------------------------------------------------

cdef extern from "simd/bitslices.h":
    enum:
        BITSLICED       # whether this is faster than a group at a time
        BITSLICE_LANES  # blocks that are drawn together
    ctypedef struct bitslices_key:
        uint64_t base   # the low words of counters, but for their LOW_BITS
    void bitslices_start(
        bitslices_key* draw, const uint64_t* key_low, const uint64_t* key_high, uint64_t base, const uint64_t* high
    ) noexcept nogil
    void bitslices_draw(const bitslices_key* draw, const uint64_t* low, uint64_t* words) noexcept nogil

cdef enum:
    LOW_BITS = 0xFFFF
    NO_BASE = 1     # before any bit slices are prepared
    # Bit slices cost the same for few blocks as for many. For fewer than these, tables cost less.
    LEAST_BITSLICED = BITSLICE_LANES / 2 + 1
