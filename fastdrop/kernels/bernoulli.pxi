# Random bits -> packed keep decisions. The uniform of an element is compared with the threshold
# bit by bit, from the top, a plane of a group of blocks at a time: what is below is decided, what
# is tied needs another plane. Two bits an element are enough on average.

cdef enum:
    BLOCK = 128                # elements that one block decides a bit of
    BATCH_BLOCKS = 8           # drawn, then applied, together: their bits and elements stay in L1
    BATCH = BATCH_BLOCKS * BLOCK
    BATCH_WORDS = BATCH / 64


cdef inline blocks keep_group(const Key* key, uint64_t first, uint64_t threshold) noexcept nogil:
    """The decisions of GROUP_BLOCKS blocks; 0 < threshold."""
    cdef blocks counter = blocks_count(first)
    cdef blocks below = blocks_set(0, 0)
    cdef blocks tied = blocks_set(<uint64_t> -1, <uint64_t> -1)
    cdef blocks bits
    cdef uint64_t plane = 0
    while True:
        bits = ars(key, blocks_xor(counter, blocks_set(0, plane)), ROUNDS)
        if threshold >> 63:
            below = blocks_below(below, tied, bits)
            tied = blocks_and(tied, bits)
        else:
            tied = blocks_andnot(tied, bits)
        threshold <<= 1
        plane += 1
        if threshold == 0 or not blocks_any(tied):  # the tied are not below a rest of zeros
            return below


cdef void keep_batch(const Key* key, uint64_t first, uint64_t threshold, uint64_t* words) noexcept nogil:
    """The decisions of BATCH_BLOCKS blocks."""
    cdef int block = 0
    while block < BATCH_BLOCKS:
        blocks_store(words + 2 * block, keep_group(key, first + block, threshold))
        block += GROUP_BLOCKS
