# Random bits become packed keep decisions. The uniform U of each element is compared with the threshold T bit by bit,
# from the top, one plane of a group of blocks at a time. An element whose bit differs from the threshold's is decided;
# one that is tied needs another plane. On average two bits per element are enough.
#
# A chunk is drawn in two steps, so that no branch depends on a random bit until few elements are left to decide. The
# first step draws the first planes of every block. The second step gathers the blocks that still have a tie (two in
# five after 8 planes, one in nine after 10) and draws their other planes. FIRST_PLANES was chosen by measurement:
# where AES is an instruction, one plane more for every block costs less than gathering does. There are three ways to draw
# the first planes, with the same result: group by group, as chains, and in bit slices.

from fastdrop.kernels.sweep cimport BLOCK

cdef enum:
    BLOCK_WORDS = 2
    CHUNK = CHUNK_BLOCKS * BLOCK    # elements
    # A chunk's bits follow the last block of the chunk before, and begin at a cache line. This is in words.
    CARRIED = 8
    # Gathered blocks are compared in so many planes before a kernel looks again. In a larger group some element stays
    # tied for more planes.
    REST_PLANES = (GROUP_SIZE + 1) / 2

cdef struct Group:
    # The states of plane 0 after the first round.
    blocks first_round
    # Bits that say U < T, and bits that say that the planes so far are equal to the threshold's.
    blocks below
    blocks tied

# Elements first, ..., end - 1, on which successive bits of a chunk decide.
cdef struct Segment:
    ptrdiff_t first
    ptrdiff_t end
    # The index of the first element's bit among the chunk's.
    int bit

cdef struct Chunk:
    # The element that the chunk's first bit decides. It may lie before the range, where nothing uses the bit.
    ptrdiff_t begin
    # The index in the stream of the first block. The others follow it, unless the blocks are listed.
    uint64_t block
    # Whether blocks of several stretches are listed: two words of `counters` each.
    bint listed
    chunk_words counters
    # The number of segments of a chunk that is listed, and the elements that they decide.
    int segments
    Segment segment[CHUNK_BLOCKS]
    # The number of blocks, and of those, in whole groups, whose first planes are drawn.
    int count
    int drawn
    # Packed bits, from word CARRIED on, that say U < T as far as it is known.
    chunk_words below
    # Packed bits that say that the first planes do not decide.
    chunk_words tied
    # Bit n says that word n of `tied` is not zero.
    uint64_t undecided

cdef struct Draw:
    Key key
    uint64_t threshold
    # The D_p of start_draw, as high words.
    uint64_t difference[FIRST_PLANES]
    # Whether the first planes are drawn as chains.
    bint chained
    chains_key chains
    # How many blocks are drawn together in bit slices, each with all of its first planes: 0 if none are.
    int bitsliced
    bitslices_key bitslices


# --- the first planes -------------------------------------------------------------------------


cdef inline void start_draw(Draw* draw, uint64_t seed_low, uint64_t seed_high, uint64_t threshold) noexcept nogil:
    """Prepare what all blocks have in common.

    The first round R1 serves all planes of a block. Where c is the counter of plane 0 and e_p is p in byte 8,
    R1(c ^ e_p) = R1(c) ^ D_p, and D_p does not depend on the block. Byte 8 of c is 0 in every block, so SubBytes changes
    it by an amount that depends on p and the key alone. ShiftRows leaves it in its column, which gets no other byte that
    depends on p, and MixColumns is linear. So D_p lies in bytes 8 to 11, the low half of the high word.
    """
    cdef uint64_t plane_0
    cdef int plane
    key_schedule(&draw.key, seed_low, seed_high)
    draw.threshold = threshold
    plane_0 = first_round_high(&draw.key, 0)
    draw.difference[0] = 0
    for plane in range(1, FIRST_PLANES):
        draw.difference[plane] = first_round_high(&draw.key, plane) ^ plane_0


cdef inline uint64_t first_round_high(const Key* key, int plane) noexcept nogil:
    """Return the high word of block 0 of a plane after the first round, without the round's key."""
    cdef uint64_t words[BLOCK_WORDS * GROUP_SIZE]
    blocks_store(words, blocks_aes(ars_start(key, blocks_set(0, plane)), blocks_set(0, 0)))
    return words[1]


cdef inline blocks first_plane_bits(const Draw* draw, const Group* group, int plane) noexcept nogil:
    """Return the bits of one of the first planes."""
    return ars_finish(&draw.key, blocks_xor(group.first_round, blocks_set(0, draw.difference[plane])), 1, ROUNDS)


cdef inline bint has_one_from(uint64_t threshold, int plane) noexcept nogil:
    """Say whether some bit of the threshold from `plane` < 64 on is one. If none is, what is tied is not below."""
    return threshold << plane != 0


cdef inline void compare_plane(const Draw* draw, Group* group, int plane, blocks bits) noexcept nogil:
    """Compare a plane with its bit of the threshold, which is zero after plane 63."""
    if plane <= 63 and draw.threshold >> (63 - plane) & 1:
        group.below = blocks_below(group.below, group.tied, bits)
        group.tied = blocks_and(group.tied, bits)
    else:
        group.tied = blocks_andnot(group.tied, bits)


cdef inline uint64_t block_number(const Chunk* chunk, int block) noexcept nogil:
    """Return the index in the stream of a block of a chunk."""
    return chunk.counters.word[BLOCK_WORDS * block] if chunk.listed else chunk.block + block


cdef inline Group group_first(const Draw* draw, const Chunk* chunk, int block) noexcept nogil:
    """Return the group that begins with a block of a chunk, before its first plane."""
    cdef Group group
    cdef blocks counter
    if chunk.listed:
        counter = blocks_load(chunk.counters.word + BLOCK_WORDS * block)
    else:
        counter = blocks_count(chunk.block + block)
    group.first_round = blocks_aes(ars_start(&draw.key, counter), round_key(&draw.key, 1))
    group.below = blocks_set(0, 0)
    group.tied = blocks_set(<uint64_t> -1, <uint64_t> -1)
    return group


cdef inline void group_store(Chunk* chunk, Group group) noexcept nogil:
    """Store the chunk's next group after its first planes."""
    cdef int word = BLOCK_WORDS * chunk.drawn
    blocks_store(chunk.below.word + CARRIED + word, group.below)
    blocks_store(chunk.tied.word + word, group.tied)
    chunk.undecided |= blocks_which(group.tied) << word
    chunk.drawn += GROUP_SIZE


cdef inline int first_planes(uint64_t threshold) noexcept nogil:
    """Return how many planes to draw first: no more than the threshold has bits before it ends in zeros."""
    cdef int planes = 1
    while planes < FIRST_PLANES and has_one_from(threshold, planes):
        planes += 1
    return planes


cdef void draw_first(Draw* draw, Chunk* chunk) noexcept nogil:
    """Draw the first planes of those groups that have none yet."""
    cdef int planes = first_planes(draw.threshold)
    cdef Group group
    cdef int plane
    if BITSLICED:
        draw_bitsliced(draw, chunk, planes)
    if CHAINED and draw.chained:
        draw_chained(draw, chunk)
    while chunk.drawn < chunk.count:
        group = group_first(draw, chunk, chunk.drawn)
        for plane in range(planes):
            compare_plane(draw, &group, plane, first_plane_bits(draw, &group, plane))
        group_store(chunk, group)


# --- the first planes as chains ---------------------------------------------------------------

cdef enum:
    # For fewer blocks it takes longer to prepare the keys than to draw.
    LEAST_CHAINED = 8
    # The chains of a register have done two rounds when those of the register before end.
    CHAINS_BEGUN = 2


cdef inline void plan_chains(Draw* draw, ptrdiff_t count) noexcept nogil:
    """Decide whether chains pay for `count` blocks. Chains always draw all of the first planes."""
    draw.chained = count >= LEAST_CHAINED and first_planes(draw.threshold) == FIRST_PLANES
    if draw.chained:
        chains_prepare(&draw.chains, draw.key.low, draw.key.high, draw.difference, draw.threshold)


cdef inline reg next_first_round(const Draw* draw, const Chunk* chunk, int block) noexcept nogil:
    """Return plane 0, after the first round, of the register that begins with a block of a chunk."""
    if chunk.listed:
        return chains_first_round(&draw.chains, reg_load(chunk.counters.word + BLOCK_WORDS * block))
    return chains_first_round(&draw.chains, reg_count(chunk.block + block, 0))


cdef inline chains turn_chains(const Draw* draw, Chunk* chunk, chains state, reg following) noexcept nogil:
    """Finish the chunk's next register, and begin the one that follows it."""
    cdef int word = BLOCK_WORDS * chunk.drawn
    cdef uint64_t which
    state = chains_turn(
        &draw.chains, state, following, chunk.below.word + CARRIED + word, chunk.tied.word + word, &which)
    chunk.undecided |= which << word
    chunk.drawn += REG_BLOCKS
    return state


cdef void draw_chained(const Draw* draw, Chunk* chunk) noexcept nogil:
    cdef chains state = chains_begin(&draw.chains, next_first_round(draw, chunk, chunk.drawn))
    cdef reg following
    cdef int r
    while chunk.drawn < chunk.count:
        following = next_first_round(draw, chunk, chunk.drawn + REG_BLOCKS)
        for r in range(CHAINS_BEGUN + 1, ROUNDS):
            state = chains_round(&draw.chains, state, r)
        state = turn_chains(draw, chunk, state, following)


# --- the first planes in bit slices -----------------------------------------------------------


cdef inline void plan_bitslices(Draw* draw, ptrdiff_t count) noexcept nogil:
    """Decide whether bit slices pay for `count` blocks. If so, lane p * draw.bitsliced + n gets plane p of block n."""
    cdef int planes = first_planes(draw.threshold)
    draw.bitsliced = 0
    if min(count // 2, CHUNK_BLOCKS) * planes >= LEAST_BITSLICED:
        draw.bitsliced = min(BITSLICE_LANES // planes, CHUNK_BLOCKS)
        draw.bitslices.base = NO_BASE


cdef void draw_bitsliced(Draw* draw, Chunk* chunk, int planes) noexcept nogil:
    """Draw first planes of a chunk in bit slices, as long as that pays. Lanes that are left over draw in vain."""
    cdef uint64_t low[BITSLICE_LANES]
    cdef uint64_t words[BLOCK_WORDS * BITSLICE_LANES]
    cdef int count, plane
    memset(low, 0, sizeof(low))
    while draw.bitsliced and (chunk.count - chunk.drawn) * planes >= LEAST_BITSLICED:
        count = min(draw.bitsliced, chunk.count - chunk.drawn)
        if not gather_low_bits(draw, chunk, count, low):
            break
        for plane in range(1, planes):
            memcpy(low + plane * draw.bitsliced, low, 8 * count)
        bitslices_draw(&draw.bitslices, low, words)
        compare_bitsliced(draw, chunk, planes, count, words)


cdef inline bint gather_low_bits(Draw* draw, const Chunk* chunk, int count, uint64_t* low) noexcept nogil:
    """Set `low` for plane 0 of the next blocks, and prepare their bit slices. Return False if other bits differ too."""
    cdef uint64_t base = block_number(chunk, chunk.drawn) & ~<uint64_t> LOW_BITS, different = 0
    cdef uint64_t high[BITSLICE_LANES]
    cdef int n
    for n in range(count):
        low[n] = block_number(chunk, chunk.drawn + n) ^ base
        different |= low[n]
    if different > LOW_BITS:
        return False
    if base != draw.bitslices.base:
        for n in range(BITSLICE_LANES):
            high[n] = n // draw.bitsliced
        bitslices_start(&draw.bitslices, draw.key.low, draw.key.high, base, high)
    return True


cdef inline void compare_bitsliced(
    const Draw* draw, Chunk* chunk, int planes, int count, const uint64_t* words
) noexcept nogil:
    """Compare the first planes of a chunk's next blocks. The words of a plane follow those of the plane before."""
    cdef uint64_t* below = chunk.below.word + CARRIED + BLOCK_WORDS * chunk.drawn
    cdef uint64_t* tied = chunk.tied.word + BLOCK_WORDS * chunk.drawn
    cdef int plane, n
    memset(below, 0, 8 * BLOCK_WORDS * count)
    memset(tied, 0xFF, 8 * BLOCK_WORDS * count)
    for plane in range(planes):
        compare_words(draw.threshold >> (63 - plane) & 1, below, tied, words, BLOCK_WORDS * count)
        words += BLOCK_WORDS * draw.bitsliced
    for n in range(BLOCK_WORDS * count):
        chunk.undecided |= <uint64_t> (tied[n] != 0) << (BLOCK_WORDS * chunk.drawn + n)
    chunk.drawn += count


cdef inline void compare_words(
    bint threshold_bit, uint64_t* below, uint64_t* tied, const uint64_t* bits, int count
) noexcept nogil:
    """Compare a plane with its bit of the threshold."""
    cdef int n
    for n in range(count):
        if threshold_bit:
            below[n] |= tied[n] & ~bits[n]
            tied[n] &= bits[n]
        else:
            tied[n] &= ~bits[n]


# --- the other planes -------------------------------------------------------------------------

# The blocks of a chunk that have a tie after the first planes, side by side, then a group of zeros.
cdef struct TiedBlocks:
    int count
    # The index of a block's first word among the chunk's.
    int word[CHUNK_BLOCKS]
    # Two words per block.
    chunk_words counters
    chunk_words tied


cdef void draw_rest(const Draw* draw, Chunk* chunk) noexcept nogil:
    """Draw the other planes of the blocks that have a tie."""
    cdef TiedBlocks gathered
    cdef chunk_words below
    cdef int word = 0
    if not has_one_from(draw.threshold, FIRST_PLANES):
        return
    gather_tied(chunk, &gathered)
    while word < BLOCK_WORDS * gathered.count:
        blocks_store(below.word + word, below_in_rest(
            draw, blocks_load(gathered.counters.word + word), blocks_load(gathered.tied.word + word)))
        word += BLOCK_WORDS * GROUP_SIZE
    add_below(&gathered, below.word, chunk)


cdef inline void gather_tied(const Chunk* chunk, TiedBlocks* gathered) noexcept nogil:
    # Bit 2 * n says whether block n has a tie.
    cdef uint64_t blocks_left = (chunk.undecided | chunk.undecided >> 1) & <uint64_t> 0x5555555555555555
    cdef uint64_t* counters = gathered.counters.word
    cdef uint64_t* tied = gathered.tied.word
    cdef int word, count = 0
    if chunk.count < CHUNK_BLOCKS:
        blocks_left &= low_bits(BLOCK_WORDS * chunk.count)
    while blocks_left:
        word = lowest_bit(blocks_left)
        blocks_left &= blocks_left - 1
        gathered.word[count] = word
        counters[BLOCK_WORDS * count] = block_number(chunk, word // BLOCK_WORDS)
        counters[BLOCK_WORDS * count + 1] = 0
        tied[BLOCK_WORDS * count] = chunk.tied.word[word]
        tied[BLOCK_WORDS * count + 1] = chunk.tied.word[word + 1]
        count += 1
    gathered.count = count
    # The last group is filled up with blocks that have no tie.
    memset(counters + BLOCK_WORDS * count, 0, 8 * BLOCK_WORDS * GROUP_SIZE)
    memset(tied + BLOCK_WORDS * count, 0, 8 * BLOCK_WORDS * GROUP_SIZE)


cdef inline blocks below_in_rest(const Draw* draw, blocks counter, blocks tied) noexcept nogil:
    """Compare a group's tied elements in the planes from FIRST_PLANES on, and return which of them are below."""
    cdef Group group
    cdef int plane = FIRST_PLANES, k
    group.tied = tied
    group.below = blocks_set(0, 0)
    while plane < 64 and has_one_from(draw.threshold, plane) and blocks_which(group.tied):
        for k in range(REST_PLANES):
            compare_plane(draw, &group, plane + k, ars(
                &draw.key, blocks_xor(counter, blocks_set(0, plane + k)), ROUNDS))
        plane += REST_PLANES
    return group.below


cdef inline void add_below(const TiedBlocks* gathered, const uint64_t* below, Chunk* chunk) noexcept nogil:
    cdef uint64_t* chunk_below = chunk.below.word + CARRIED
    cdef int n
    for n in range(gathered.count):
        chunk_below[gathered.word[n]] |= below[BLOCK_WORDS * n]
        chunk_below[gathered.word[n] + 1] |= below[BLOCK_WORDS * n + 1]


# --- the bits of a chunk ----------------------------------------------------------------------


cdef inline void carry_last_block(const Chunk* chunk, Chunk* ahead) noexcept nogil:
    """Put a full chunk's last block before the bits of the chunk that follows it."""
    memcpy(
        ahead.below.word + CARRIED - BLOCK_WORDS,
        chunk.below.word + CARRIED + CHUNK_WORDS - BLOCK_WORDS,
        8 * BLOCK_WORDS,
    )


cdef inline const unsigned char* bits_after_carried(const Chunk* chunk) noexcept nogil:
    """Return the bits of a chunk after those of the block that was carried over."""
    return <const unsigned char*> (chunk.below.word + CARRIED - BLOCK_WORDS)


cdef inline const unsigned char* own_bits(const Chunk* chunk) noexcept nogil:
    return <const unsigned char*> (chunk.below.word + CARRIED)
