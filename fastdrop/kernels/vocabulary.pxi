# This declares the vector vocabulary to Cython. The header of each instruction set in simd/ defines these names and no
# others. A `dtype` is a constant at every call, so the compiler makes every choice that depends on it.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastdrop.kernels.sweep cimport BFLOAT16, FLOAT16, FLOAT32, FLOAT64

cdef extern from *:
    # The packed bits of a chunk of CHUNK_BLOCKS blocks, with some room before and after (see common.h).
    enum:
        CHUNK_BLOCKS
        CHUNK_WORDS
    ctypedef struct chunk_words:
        uint64_t* word

    # A group of GROUP_SIZE blocks of 128 bits fills as many registers as it needs. FIRST_PLANES planes of all its
    # blocks are drawn before a kernel looks which elements are still tied.
    enum:
        GROUP_SIZE
        FIRST_PLANES
    ctypedef struct blocks:
        pass
    blocks blocks_set(uint64_t low, uint64_t high) noexcept nogil    # every block is high << 64 | low
    blocks blocks_count(uint64_t first) noexcept nogil               # the blocks are first, first + 1, ...
    blocks blocks_xor(blocks a, blocks b) noexcept nogil             # a ^ b
    blocks blocks_and(blocks a, blocks b) noexcept nogil             # a & b
    blocks blocks_andnot(blocks a, blocks b) noexcept nogil          # a & ~b
    blocks blocks_below(blocks below, blocks tied, blocks bits) noexcept nogil  # below | (tied & ~bits)
    blocks blocks_aes(blocks state, blocks key) noexcept nogil       # a round of AES
    blocks blocks_aes_last(blocks state, blocks key) noexcept nogil  # the last round, without MixColumns
    uint64_t blocks_which(blocks a) noexcept nogil                   # bit n says whether word n is not zero
    blocks blocks_load(const uint64_t* words) noexcept nogil
    void blocks_store(uint64_t* words, blocks a) noexcept nogil

    # The first planes of REG_BLOCKS blocks, drawn side by side (see chains.h). CHAINED says whether that is faster.
    enum:
        CHAINED
        REG_BLOCKS
        CHAIN_ROUNDS
    ctypedef struct reg:
        pass
    reg reg_load(const uint64_t* words) noexcept nogil
    reg reg_count(uint64_t first, int more) noexcept nogil          # the blocks are first + more, first + more + 1, ...
    ctypedef struct chains:
        pass
    ctypedef struct chains_key:
        pass
    void chains_prepare(
        chains_key* draw, const uint64_t* key_low, const uint64_t* key_high, const uint64_t* difference,
        uint64_t threshold
    ) noexcept nogil
    reg chains_first_round(const chains_key* draw, reg counters) noexcept nogil
    chains chains_begin(const chains_key* draw, reg first_round) noexcept nogil
    chains chains_round(const chains_key* draw, chains state, int round) noexcept nogil
    chains chains_turn(
        const chains_key* draw, chains state, reg next_first_round, uint64_t* to_below, uint64_t* to_tied,
        uint64_t* which
    ) noexcept nogil

    # `lanes` holds 16 elements, or 8 of float64. Those of float16 and bfloat16 are float32 between load and store.
    ctypedef struct lanes:
        pass
    lanes lanes_load(int dtype, const char* source) noexcept nogil
    lanes lanes_load_wide(int dtype, const char* source) noexcept nogil     # 8 elements of any dtype, as float64
    void lanes_store(int dtype, char* to, lanes a) noexcept nogil
    void lanes_stream(int dtype, char* to, lanes a) noexcept nogil   # bypasses the cache; `to` is aligned
    lanes lanes_fill(int dtype, double value) noexcept nogil         # every lane is `value`, rounded
    lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b) noexcept nogil  # a * b where m, else +0
    lanes lanes_add(int dtype, lanes a, lanes b) noexcept nogil      # a + b
    lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b) noexcept nogil  # a where m, else b

    # `lanes_mask` holds a yes or no for each lane. In memory it is a bit for each lane.
    ctypedef struct lanes_mask:
        pass
    lanes_mask mask_load(int dtype, const unsigned char* bits) noexcept nogil
    void mask_store(int dtype, unsigned char* bits, lanes_mask m) noexcept nogil
    lanes_mask mask_positive(int dtype, lanes_mask m, lanes a) noexcept nogil  # m and not a <= 0, so NaN is positive
    lanes_mask mask_nonzero(int dtype, lanes a) noexcept nogil       # not a == 0, so NaN is not zero

    void stream_end() noexcept nogil                                 # follows the last lanes_stream
    int lowest_bit(uint64_t word) noexcept nogil                     # the index of the lowest bit of a word > 0
    void prefetch(const char* from_) noexcept nogil                  # `from_` may lie beyond the array
