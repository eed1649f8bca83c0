"""The calls as XLA runs them: foreign functions on raw buffers, without the GIL and without Python.

A handler is asked for its version when it is registered, and from then on it is called once per execution. XLA
accepts a handler whose version lies between 0.1 and its own, so one build serves many versions of jaxlib.

A call may come with leading axes that `vmap` added. The seed says how many: it has one axis of words, and whatever
axes it has before that one are those of `vmap`. Each of these rows has a seed and packed bits of its own.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, strlen

from fastdrop cimport capi
from fastdrop.kernels.sweep cimport BUILD_TAG

from fastdrop.core.dispatch import same_build

same_build(BUILD_TAG, __name__)

include "interface.pxi"
include "seeds.pxi"

cdef int host_minor = -1    # the version 0.x that XLA stated at registration


# --- what XLA asks at registration -----------------------------------------------------------


cdef bint asks_for_metadata(const Frame* call) noexcept nogil:
    return call.extensions != NULL and call.extensions.type == METADATA


cdef void* describe(const Frame* call) noexcept nogil:
    """State the version of the interface. XLA refuses 0.0, which says that its structures are not those known here.

    jaxlib before 0.8 does not state its own version, and takes no handler that is newer than itself.
    """
    global host_minor
    cdef Metadata* about = (<MetadataExtension*> call.extensions).metadata
    about.api_version.size = sizeof(Version)
    about.api_version.extensions = NULL
    about.api_version.major = MAJOR
    about.api_version.minor = 0
    if has_known_layout(call):
        about.api_version.minor = OLDEST_MINOR
        if call.api != NULL:
            host_minor = call.api.api_version.minor
            about.api_version.minor = max(OLDEST_MINOR, min(host_minor, NEWEST_MINOR))
    if about.size >= sizeof(Metadata):
        about.traits = 0
    return NULL


cdef bint has_known_layout(const Frame* call) noexcept nogil:
    return (
        call.size >= sizeof(Frame) and call.arguments.size >= sizeof(Buffers)
        and call.results.size >= sizeof(Buffers) and call.attributes.size >= sizeof(Attributes)
        and (call.api == NULL or call.api.api_version.major == MAJOR)
    )


# --- what a call is given --------------------------------------------------------------------


cdef void* failure(const Frame* call, int code, const char* message) noexcept nogil:
    """Return an error, which XLA raises and destroys."""
    cdef ErrorRequest request
    request.size = <size_t> (<char*> &request.code + sizeof(request.code) - <char*> &request)
    request.extensions = NULL
    request.message = message
    request.code = code
    return call.api.create_error(&request)


cdef void* refuse_unknown(const Frame* call) noexcept nogil:
    """Return an error for a frame that is not laid out as the one that was registered for, else NULL."""
    if has_known_layout(call) and call.stage == EXECUTE:
        return NULL
    return failure(call, UNIMPLEMENTED, "fastdrop does not know this version of XLA's interface")


cdef bint are_buffers(const Buffers* arrays, int64_t count) noexcept nogil:
    cdef int64_t i
    if arrays.count != count:
        return False
    for i in range(count):
        if arrays.types[i] != BUFFER or arrays.items[i].size < sizeof(Buffer):
            return False
    return True


cdef const void* attribute(const Frame* call, const char* name, int dtype) noexcept nogil:
    """Return where the value of a scalar attribute is, or NULL if there is none of this name and dtype."""
    cdef const Attributes* given = &call.attributes
    cdef size_t length = strlen(name)
    cdef int64_t i
    for i in range(given.count):
        if given.names[i].length == length and memcmp(given.names[i].start, name, length) == 0:
            if given.types[i] == SCALAR and given.items[i].dtype == dtype:
                return given.items[i].value
    return NULL


cdef int dtype_of(const Buffer* array) noexcept nogil:
    """The number that the kernels give the dtype of an array, or -1."""
    if array.dtype == XLA_F32:
        return capi.FLOAT32
    if array.dtype == XLA_F64:
        return capi.FLOAT64
    if array.dtype == XLA_F16:
        return capi.FLOAT16
    if array.dtype == XLA_BF16:
        return capi.BFLOAT16
    return -1


cdef ptrdiff_t itemsize(const Buffer* array) noexcept nogil:
    return 8 if array.dtype == XLA_F64 else 4 if array.dtype == XLA_F32 else 2


cdef int64_t elements(const Buffer* array, int64_t first, int64_t last) noexcept nogil:
    """The number of elements of the axes first, ..., last - 1."""
    cdef int64_t size = 1, axis
    for axis in range(first, last):
        size *= array.dims[axis]
    return size


# --- rows: what vmap made of the calls -------------------------------------------------------


# Arrays of equal size and dtype, whose first axes are those of vmap.
cdef struct Rows:
    int dtype
    int64_t count
    # Elements, bytes of elements and bytes of bits per row.
    int64_t size
    ptrdiff_t bytes
    ptrdiff_t packed


cdef bint measure(Rows* rows, const Buffer* x, const Buffer* y, const Buffer* bits, int64_t axes) noexcept nogil:
    """Measure arrays of elements and their bits, and tell whether they fit each other."""
    rows.dtype = dtype_of(x)
    if rows.dtype < 0 or y.dtype != x.dtype or bits.dtype != XLA_U8 or axes < 0 or x.rank < axes:
        return False
    rows.count = elements(x, 0, axes)
    rows.size = elements(x, axes, x.rank)
    rows.bytes = rows.size * itemsize(x)
    rows.packed = (rows.size + 7) // 8
    return (
        elements(y, 0, y.rank) == rows.count * rows.size
        and elements(bits, 0, bits.rank) == rows.count * rows.packed
    )


# --- the calls -------------------------------------------------------------------------------


cdef void* forward(Frame* call) noexcept nogil:
    """(x, seed) -> (y, bits)."""
    if asks_for_metadata(call):
        return describe(call)
    cdef void* unknown = refuse_unknown(call)
    if unknown != NULL:
        return unknown
    if not are_buffers(&call.arguments, 2) or not are_buffers(&call.results, 2):
        return failure(call, INVALID_ARGUMENT, "fastdrop: the arguments must be x and seed, the results y and bits")
    cdef const double* keep_prob = <const double*> attribute(call, "keep_prob", XLA_F64)
    cdef const double* scale = <const double*> attribute(call, "scale", XLA_F64)
    cdef const int32_t* relu = <const int32_t*> attribute(call, "relu", XLA_S32)
    cdef const int32_t* derive = <const int32_t*> attribute(call, "derive", XLA_S32)
    if keep_prob == NULL or scale == NULL or relu == NULL or derive == NULL:
        return failure(call, INVALID_ARGUMENT, "fastdrop: keep_prob, scale, relu and derive must be given")
    return forward_rows(call, keep_prob[0], scale[0], relu[0], derive[0])


cdef void* forward_rows(const Frame* call, double keep_prob, double scale, bint relu, int derive) noexcept nogil:
    cdef const Buffer* x = call.arguments.items[0]
    cdef const Buffer* seed = call.arguments.items[1]
    cdef Buffer* y = call.results.items[0]
    cdef Buffer* bits = call.results.items[1]
    cdef int64_t axes = seed.rank - 1, words = words_given(derive), row
    cdef capi.fastdrop_stream stream
    cdef Rows rows
    cdef int status
    if seed.dtype != XLA_U32 or axes < 0 or seed.dims[axes] != words:
        return failure(call, INVALID_ARGUMENT, "fastdrop: the seed must be words of uint32")
    if not measure(&rows, x, y, bits, axes) or elements(seed, 0, axes) != rows.count:
        return failure(call, INVALID_ARGUMENT, "fastdrop: x, y, bits and seed must fit each other")
    stream.offset = 0
    for row in range(rows.count):
        seed_from(derive, <const uint32_t*> seed.data + row * words, stream.seed)
        status = capi.forward(
            rows.dtype, relu, <const char*> x.data + row * rows.bytes, <char*> y.data + row * rows.bytes,
            <unsigned char*> bits.data + row * rows.packed, rows.size, keep_prob, scale, &stream,
        )
        if status != capi.OK:
            return failure(call, INVALID_ARGUMENT, capi.status_text(status))
    return NULL


cdef void* backward(Frame* call) noexcept nogil:
    """(dy, bits) -> dx."""
    if asks_for_metadata(call):
        return describe(call)
    cdef void* unknown = refuse_unknown(call)
    if unknown != NULL:
        return unknown
    if not are_buffers(&call.arguments, 2) or not are_buffers(&call.results, 1):
        return failure(call, INVALID_ARGUMENT, "fastdrop: the arguments must be dy and bits, the result dx")
    cdef const double* scale = <const double*> attribute(call, "scale", XLA_F64)
    if scale == NULL:
        return failure(call, INVALID_ARGUMENT, "fastdrop: scale must be given")
    return backward_rows(call, scale[0])


cdef void* backward_rows(const Frame* call, double scale) noexcept nogil:
    cdef const Buffer* dy = call.arguments.items[0]
    cdef const Buffer* bits = call.arguments.items[1]
    cdef Buffer* dx = call.results.items[0]
    cdef Rows rows
    cdef int64_t row
    cdef int status
    if not measure(&rows, dy, dx, bits, bits.rank - 1) or bits.dims[bits.rank - 1] != rows.packed:
        return failure(call, INVALID_ARGUMENT, "fastdrop: dy, dx and bits must fit each other")
    for row in range(rows.count):
        status = capi.backward(
            rows.dtype, <const char*> dy.data + row * rows.bytes,
            <const unsigned char*> bits.data + row * rows.packed, <char*> dx.data + row * rows.bytes,
            rows.size, scale,
        )
        if status != capi.OK:
            return failure(call, INVALID_ARGUMENT, capi.status_text(status))
    return NULL


# --- what Python sees ------------------------------------------------------------------------


def capsules():
    """The handlers, forward and backward, as `jax.ffi.register_ffi_target` takes them."""
    return PyCapsule_New(<void*> &forward, NULL, NULL), PyCapsule_New(<void*> &backward, NULL, NULL)


def interface_version():
    """The version of the interface that XLA stated at registration, or None where it stated none."""
    return None if host_minor < 0 else f"{MAJOR}.{host_minor}"


derivations = {"words": WORDS, "partitionable": PARTITIONABLE, "original": ORIGINAL}
