# Random bits -> packed keep decisions. The uniform of an element is compared with the threshold
# bit by bit, from the top, a plane of a group of blocks at a time: what is below is decided, what
# is tied needs another plane. Two bits an element are enough on average.
#
# A chunk is drawn in two steps, so that no branch depends on a random bit until few are left to
# decide: the first planes of every block, then the other planes of those blocks, gathered, that
# still have a tie: two in five after 8 planes, one in nine after 10. How many are first is measured:
# a plane more for every block costs less than gathering does, where AES is an instruction.

cdef enum:
    BLOCK = 128             # elements that one block decides a bit of
    BLOCK_WORDS = 2
    CHUNK = CHUNK_BLOCKS * BLOCK
    CARRIED = 8             # words before a chunk's own, of which the last two are used: a cache line
    REST_PLANES = (GROUP_SIZE + 1) / 2  # at a time, once blocks are gathered; a larger group ties longer

cdef struct Group:
    blocks first        # the state after the first round of plane 0
    blocks below
    blocks tied

cdef struct Segment:
    ptrdiff_t first, end    # elements
    int bit                 # of the first one's decision

cdef struct Chunk:
    ptrdiff_t begin     # the element that its first bit decides, or would
    uint64_t block      # its first block, of successive ones
    bint listed         # whether they are not successive, but `counters`; then
    chunk_words counters            # two words a block
    int segments
    Segment segment[CHUNK_BLOCKS]   # says what they decide
    int count           # blocks
    int drawn           # of them, the first planes
    chunk_words below               # packed, after a block of the chunk before: whether U < threshold
    chunk_words tied                # packed: whether another plane has to tell
    uint64_t undecided              # which words have a tie

cdef struct Draw:
    Key key
    uint64_t threshold
    uint64_t plane[FIRST_PLANES]    # what a plane's first round differs by from plane 0's: bytes 8 to 11


cdef inline void start_draw(Draw* draw, uint64_t seed_low, uint64_t seed_high, uint64_t threshold) noexcept nogil:
    """The counters of a block's planes differ in one byte, alone in its column, and that byte is the
    same for every block. So a first round serves all planes: the rest of them is an exclusive or."""
    cdef uint64_t words[BLOCK_WORDS * GROUP_SIZE]
    cdef int plane
    key_schedule(&draw.key, seed_low, seed_high)
    draw.threshold = threshold
    for plane in range(FIRST_PLANES):
        blocks_store(words, blocks_aes(ars_start(&draw.key, blocks_set(0, plane)), blocks_set(0, 0)))
        draw.plane[plane] = words[1]
    for plane in range(FIRST_PLANES - 1, -1, -1):
        draw.plane[plane] ^= draw.plane[0]


cdef inline blocks first_plane_bits(const Draw* draw, const Group* group, int plane) noexcept nogil:
    return ars_rounds(&draw.key, blocks_xor(group.first, blocks_set(0, draw.plane[plane])), 1, ROUNDS)


cdef inline void compare_plane(const Draw* draw, Group* group, int plane, blocks bits) noexcept nogil:
    """Compare a plane with its bit of the threshold, which is zero past the last."""
    if plane <= 63 and draw.threshold >> (63 - plane) & 1:
        group.below = blocks_below(group.below, group.tied, bits)
        group.tied = blocks_and(group.tied, bits)
    else:
        group.tied = blocks_andnot(group.tied, bits)


cdef inline Group group_first(const Draw* draw, const Chunk* chunk, int i) noexcept nogil:
    """The group that starts with block `i` of a chunk, before its first plane."""
    cdef Group group
    cdef blocks counter
    counter = blocks_load(chunk.counters.word + BLOCK_WORDS * i) if chunk.listed else blocks_count(chunk.block + i)
    group.first = blocks_aes(ars_start(&draw.key, counter), blocks_set(draw.key.low[1], draw.key.high[1]))
    group.below = blocks_set(0, 0)
    group.tied = blocks_set(<uint64_t> -1, <uint64_t> -1)
    return group


cdef inline void group_store(Chunk* chunk, Group group) noexcept nogil:
    """The next group after its first planes."""
    cdef int i = chunk.drawn
    blocks_store(chunk.below.word + CARRIED + BLOCK_WORDS * i, group.below)
    blocks_store(chunk.tied.word + BLOCK_WORDS * i, group.tied)
    chunk.undecided |= blocks_which(group.tied) << BLOCK_WORDS * i
    chunk.drawn += GROUP_SIZE


cdef inline void carry_last_block(const Chunk* chunk, Chunk* ahead) noexcept nogil:
    memcpy(ahead.below.word + CARRIED - BLOCK_WORDS,
           chunk.below.word + CARRIED + CHUNK_WORDS - BLOCK_WORDS, 8 * BLOCK_WORDS)


cdef inline const unsigned char* carried(const Chunk* chunk) noexcept nogil:
    """The bits of a chunk, after those of the block before it."""
    return <const unsigned char*> (chunk.below.word + CARRIED - BLOCK_WORDS)


cdef inline const unsigned char* own_bits(const Chunk* chunk) noexcept nogil:
    return <const unsigned char*> (chunk.below.word + CARRIED)


cdef inline int first_planes(uint64_t threshold) noexcept nogil:
    """How many planes to draw before looking: fewer where the rest of the threshold is zero."""
    cdef int planes = 1
    while planes < FIRST_PLANES and threshold << planes:
        planes += 1
    return planes


cdef void draw_first(const Draw* draw, Chunk* chunk) noexcept nogil:
    """The first planes of those groups that have none yet."""
    cdef int planes = first_planes(draw.threshold)
    cdef Group group
    cdef int plane
    while chunk.drawn < chunk.count:
        group = group_first(draw, chunk, chunk.drawn)
        for plane in range(planes):
            compare_plane(draw, &group, plane, first_plane_bits(draw, &group, plane))
        group_store(chunk, group)


cdef inline int gather_tied(const Chunk* chunk, int* index, uint64_t* counters, uint64_t* ties) noexcept nogil:
    """The blocks that still have a tie, side by side; how many they are."""
    cdef uint64_t blocks_left = (chunk.undecided | chunk.undecided >> 1) & <uint64_t> 0x5555555555555555
    cdef int i, found = 0
    if chunk.count < CHUNK_BLOCKS:
        blocks_left &= low_bits(BLOCK_WORDS * chunk.count)
    while blocks_left:
        i = lowest_bit(blocks_left)     # the block's first word
        blocks_left &= blocks_left - 1
        index[found] = i
        counters[2 * found] = chunk.counters.word[i] if chunk.listed else chunk.block + i // BLOCK_WORDS
        counters[2 * found + 1] = 0
        ties[2 * found] = chunk.tied.word[i]
        ties[2 * found + 1] = chunk.tied.word[i + 1]
        found += 1
    # The last group is filled up with blocks that need nothing.
    memset(counters + 2 * found, 0, 16 * GROUP_SIZE)
    memset(ties + 2 * found, 0, 16 * GROUP_SIZE)
    return found


cdef void draw_rest(const Draw* draw, Chunk* chunk) noexcept nogil:
    """The other planes, for the blocks that have a tie."""
    cdef int index[CHUNK_BLOCKS]
    cdef chunk_words counter_words, tie_words
    cdef uint64_t* counters = counter_words.word
    cdef uint64_t* ties = tie_words.word
    cdef Group group
    cdef blocks counter, bits
    cdef int found, i = 0, plane, k
    if draw.threshold << FIRST_PLANES == 0:
        return
    found = gather_tied(chunk, index, counters, ties)
    while i < found:
        counter = blocks_load(counters + 2 * i)
        group.tied = blocks_load(ties + 2 * i)
        group.below = blocks_set(0, 0)
        plane = FIRST_PLANES
        while plane < 64 and draw.threshold << plane and blocks_which(group.tied):
            for k in range(REST_PLANES):
                bits = ars(&draw.key, blocks_xor(counter, blocks_set(0, plane + k)), ROUNDS)
                compare_plane(draw, &group, plane + k, bits)
            plane += REST_PLANES
        blocks_store(ties + 2 * i, group.below)
        i += GROUP_SIZE
    for i in range(found):
        chunk.below.word[CARRIED + index[i]] |= ties[2 * i]
        chunk.below.word[CARRIED + index[i] + 1] |= ties[2 * i + 1]
