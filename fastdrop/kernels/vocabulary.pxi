# The vector vocabulary as Cython sees it. Each instruction set's header in simd/ defines these
# names, and nothing else; a `dtype` is always a constant, so every choice on it is made by the
# compiler.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastdrop.kernels.sweep cimport BFLOAT16, FLOAT16, FLOAT32, FLOAT64

cdef extern from *:
    # Packed bits of a chunk of CHUNK_BLOCKS blocks, aligned, with room for a group more.
    enum:
        CHUNK_BLOCKS
        CHUNK_WORDS
    ctypedef struct chunk_words:
        uint64_t* word

    # GROUP_SIZE blocks of 128 bits, in as many registers as it takes, and how many planes are drawn
    # of all of them before one looks which are undecided.
    enum:
        GROUP_SIZE
        FIRST_PLANES
    ctypedef struct blocks:
        pass
    blocks blocks_set(uint64_t low, uint64_t high) noexcept nogil    # the same in every block
    blocks blocks_count(uint64_t first) noexcept nogil               # first, first + 1, ...
    blocks blocks_xor(blocks a, blocks b) noexcept nogil
    blocks blocks_and(blocks a, blocks b) noexcept nogil
    blocks blocks_andnot(blocks a, blocks b) noexcept nogil          # a & ~b
    blocks blocks_below(blocks below, blocks tied, blocks bits) noexcept nogil  # below | (tied & ~bits)
    blocks blocks_aes(blocks state, blocks key) noexcept nogil       # a round
    blocks blocks_aes_last(blocks state, blocks key) noexcept nogil  # the last, without MixColumns
    uint64_t blocks_which(blocks a) noexcept nogil                   # bit n: word n of 64 bits is not zero
    blocks blocks_load(const uint64_t* words) noexcept nogil
    void blocks_store(uint64_t* words, blocks a) noexcept nogil

    # 16 elements, or 8 of float64. float16 and bfloat16 are float32 between load and store.
    ctypedef struct lanes:
        pass
    lanes lanes_load(int dtype, const char* source) noexcept nogil
    void lanes_store(int dtype, char* to, lanes a) noexcept nogil
    void lanes_stream(int dtype, char* to, lanes a) noexcept nogil   # past the cache; `to` is aligned
    lanes lanes_fill(int dtype, double value) noexcept nogil
    lanes lanes_scale(int dtype, lanes_mask m, lanes a, lanes b) noexcept nogil  # a * b, or +0
    lanes lanes_add(int dtype, lanes a, lanes b) noexcept nogil
    lanes lanes_choose(int dtype, lanes_mask m, lanes a, lanes b) noexcept nogil  # a, or b

    # A yes or no for each lane; in memory a bit.
    ctypedef struct lanes_mask:
        pass
    lanes_mask mask_load(int dtype, const unsigned char* bits) noexcept nogil
    void mask_store(int dtype, unsigned char* bits, lanes_mask m) noexcept nogil
    lanes_mask mask_positive(int dtype, lanes_mask m, lanes a) noexcept nogil  # m, and not a <= 0 (so NaN too)
    lanes_mask mask_nonzero(int dtype, lanes a) noexcept nogil       # not a == 0, so NaN too

    void stream_end() noexcept nogil                                 # after the last lanes_stream
    int lowest_bit(uint64_t word) noexcept nogil                     # its index; `word` is not zero
    void prefetch(const char* from_) noexcept nogil                  # may lie beyond the array
