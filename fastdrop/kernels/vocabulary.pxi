# The vector vocabulary as Cython sees it. Each instruction set's header in simd/ defines these
# names, and nothing else; a `dtype` is always a constant, so every choice on it is made by the
# compiler.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from fastdrop.kernels.kernel cimport FLOAT32, FLOAT64

cdef extern from *:
    # GROUP_BLOCKS blocks of 128 bits, in as many registers as it takes.
    const int GROUP_BLOCKS
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
    bint blocks_any(blocks a) noexcept nogil
    blocks blocks_load(const uint64_t* words) noexcept nogil
    void blocks_store(uint64_t* words, blocks a) noexcept nogil

    # 16 elements, or 8 float64.
    ctypedef struct lanes:
        pass
    lanes lanes_load(int dtype, const char* source) noexcept nogil
    void lanes_store(int dtype, char* to, lanes a) noexcept nogil
    void lanes_stream(int dtype, char* to, lanes a) noexcept nogil   # past the cache; `to` is aligned
    lanes lanes_fill(int dtype, double value) noexcept nogil
    lanes lanes_mul(int dtype, lanes a, lanes b) noexcept nogil
    lanes lanes_select(int dtype, lanes_mask m, lanes a) noexcept nogil  # a, or +0

    # A yes or no for each lane.
    ctypedef struct lanes_mask:
        pass
    lanes_mask lanes_positive(int dtype, lanes a) noexcept nogil     # not a <= 0, so NaN too
    lanes_mask lanes_nonzero(int dtype, lanes a) noexcept nogil      # not a == 0, so NaN too
    lanes_mask mask_and(lanes_mask a, lanes_mask b) noexcept nogil
    lanes_mask mask_expand(int dtype, uint32_t bits) noexcept nogil  # higher bits are ignored
    uint32_t mask_pack(int dtype, lanes_mask m) noexcept nogil

    void prefetch(const char* address) noexcept nogil
    void stream_end() noexcept nogil                                 # after the last lanes_stream
