# fastdrop for other people's Cython: the kernels on raw pointers, without the GIL.
#
# Arrays are contiguous, `size` elements long, aligned as their dtype; results may be the input
# itself (in place) and must not overlap it otherwise. Bits are packed as `fastdrop.Mask` packs
# them, (size + 7) // 8 bytes. Calls are thread-safe, use as many threads as
# fastdrop.get_num_threads() says, one inside another OpenMP region, and return a status: OK, or
# what was wrong, with nothing written.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t


cdef extern from "fastdrop.h" nogil:
    const int API_VERSION "FASTDROP_API_VERSION"
    enum:
        FLOAT32 "FASTDROP_FLOAT32"
        FLOAT64 "FASTDROP_FLOAT64"
        FLOAT16 "FASTDROP_FLOAT16"
        BFLOAT16 "FASTDROP_BFLOAT16"
    enum:
        OK "FASTDROP_OK"
        BAD_DTYPE "FASTDROP_BAD_DTYPE"
        BAD_SIZE "FASTDROP_BAD_SIZE"
        BAD_KEEP_PROB "FASTDROP_BAD_KEEP_PROB"
        BAD_OFFSET "FASTDROP_BAD_OFFSET"
        BAD_POINTER "FASTDROP_BAD_POINTER"
    ctypedef struct fastdrop_stream:
        uint64_t seed[2]
        uint64_t offset

# The API_VERSION of the fastdrop that was found at run time.
cdef int api_version() noexcept nogil

# What a status means, in English.
cdef const char* status_text(int status) noexcept nogil

# The bits that `keep_mask` draws at stream.offset.
cdef int fill_bits(
    unsigned char* bits, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil

# y = scale * x where kept, else +0; with `relu`, dropped where x <= 0 too. `scale` is 1 / keep_prob
# or 1 (mode "vanilla"), rounded to the dtype. `bits` gets what passed, unless it is NULL.
cdef int forward(
    int dtype, bint relu, const void* x, void* y, unsigned char* bits, ptrdiff_t size,
    double keep_prob, double scale, const fastdrop_stream* stream,
) noexcept nogil

# dx = scale * dy where the forward call's bit is set, else +0.
cdef int backward(
    int dtype, const void* dy, const unsigned char* bits, void* dx, ptrdiff_t size, double scale
) noexcept nogil

# dx = scale * dy where y, the output of a forward call with `relu`, is not zero, else +0.
cdef int backward_from_output(
    int dtype, const void* dy, const void* y, void* dx, ptrdiff_t size, double scale
) noexcept nogil
