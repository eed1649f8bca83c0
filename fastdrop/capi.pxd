# The kernels for other packages' Cython code: on raw pointers, without the GIL.
#
# Arrays are contiguous, have `size` elements and are aligned as their dtype. A result may be the
# input itself (in place) and must not overlap it otherwise. Bits are packed as `fastdrop.Mask` packs
# them, in (size + 7) // 8 bytes. The functions are thread-safe. They use fastdrop.get_num_threads()
# threads, and one within another OpenMP region. They return a status: OK, or what was wrong, and then
# nothing has been written.

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
    ctypedef int fastdrop_status "fastdrop_status_v1"
    ctypedef struct fastdrop_stream:
        uint64_t seed[2]
        uint64_t offset

# Returns the API_VERSION of the fastdrop that was found at run time.
cdef int api_version() noexcept nogil

# Returns the meaning of a status, in English.
cdef const char* status_text(fastdrop_status status) noexcept nogil

# Writes the bits that `keep_mask` draws at stream.offset.
cdef fastdrop_status fill_bits(
    unsigned char* bits, ptrdiff_t size, double keep_prob, const fastdrop_stream* stream
) noexcept nogil

# Computes y = scale * x for a kept element and +0 for a dropped one. With `relu`, elements x <= 0 are
# dropped too. `scale` is 1 / keep_prob or 1 (mode "vanilla"), and is rounded to the dtype. `bits` gets
# one bit per element, set where it passed, unless `bits` is NULL.
cdef fastdrop_status forward(
    int dtype, bint relu, const void* x, void* y, unsigned char* bits, ptrdiff_t size,
    double keep_prob, double scale, const fastdrop_stream* stream,
) noexcept nogil

# Computes dx = scale * dy where the bit of the forward call is set, else +0.
cdef fastdrop_status backward(
    int dtype, const void* dy, const unsigned char* bits, void* dx, ptrdiff_t size, double scale
) noexcept nogil

# Computes dx = scale * dy where y, the output of a forward call with `relu`, is not 0, else +0.
cdef fastdrop_status backward_from_output(
    int dtype, const void* dy, const void* y, void* dx, ptrdiff_t size, double scale
) noexcept nogil
