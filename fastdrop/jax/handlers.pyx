"""The calls as XLA runs them: foreign functions on raw buffers, without the GIL and without Python.

A handler is asked for its version when it is registered, and from then on it is called once per execution. XLA
accepts a handler whose version lies between 0.1 and its own, so one build serves many versions of jaxlib.

A call may come with leading axes that `vmap` added. The seed says how many: it has one axis of words, and whatever
axes it has before that one are those of `vmap`. Each of these rows has a seed and packed bits of its own.
"""

from cpython.pycapsule cimport PyCapsule_New
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, strlen

from fastdrop cimport capi
from fastdrop.core cimport dispatch
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
    ptrdiff_t itemsize
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
    rows.itemsize = itemsize(x)
    rows.bytes = rows.size * rows.itemsize
    rows.packed = (rows.size + 7) // 8
    return (
        elements(y, 0, y.rank) == rows.count * rows.size
        and elements(bits, 0, bits.rank) == rows.count * rows.packed
    )


# --- the work, in parts ----------------------------------------------------------------------

cdef enum:
    PART = 1 << 15          # elements per part, which a kernel runs on one thread; a whole number of units


# A call whose arguments have been checked. Running it cannot fail.
cdef struct Work:
    Rows rows
    const char* x
    char* y
    unsigned char* bits
    double scale
    # What only the forward call has: a seed per row. NULL for the backward call.
    const uint32_t* seed
    int derive
    bint relu
    double keep_prob


cdef int64_t parts_of(const Work* work) noexcept nogil:
    """The number of parts: PART elements of a row or less, or as many whole rows as have PART elements."""
    if work.rows.size > PART:
        return work.rows.count * parts_in_row(work)
    return (work.rows.count + rows_in_part(work) - 1) // rows_in_part(work)


cdef int64_t parts_in_row(const Work* work) noexcept nogil:
    return (work.rows.size + PART - 1) // PART


cdef int64_t rows_in_part(const Work* work) noexcept nogil:
    return PART // max(work.rows.size, 1)


cdef void run_part(const Work* work, int64_t part) noexcept nogil:
    cdef int64_t row, first
    if work.rows.size > PART:
        row = part // parts_in_row(work)
        first = part % parts_in_row(work) * PART
        run_stretch(work, row, first, min(first + PART, work.rows.size))
        return
    for row in range(part * rows_in_part(work), min((part + 1) * rows_in_part(work), work.rows.count)):
        run_stretch(work, row, 0, work.rows.size)


cdef void run_stretch(const Work* work, int64_t row, int64_t first, int64_t last) noexcept nogil:
    """Run the elements first, ..., last - 1 of a row."""
    cdef ptrdiff_t start = row * work.rows.bytes + first * work.rows.itemsize
    cdef unsigned char* bits = work.bits + row * work.rows.packed + first // 8
    cdef capi.fastdrop_stream stream
    if work.seed == NULL:
        capi.backward(work.rows.dtype, work.x + start, bits, work.y + start, last - first, work.scale)
        return
    seed_from(work.derive, work.seed + row * words_given(work.derive), stream.seed)
    stream.offset = first
    capi.forward(
        work.rows.dtype, work.relu, work.x + start, work.y + start, bits, last - first, work.keep_prob, work.scale,
        &stream,
    )


include "pool.pxi"


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
    cdef int64_t axes = seed.rank - 1
    cdef capi.fastdrop_stream stream
    cdef Work work
    cdef int status
    if seed.dtype != XLA_U32 or axes < 0 or seed.dims[axes] != words_given(derive):
        return failure(call, INVALID_ARGUMENT, "fastdrop: the seed must be words of uint32")
    if not measure(&work.rows, x, y, bits, axes) or elements(seed, 0, axes) != work.rows.count:
        return failure(call, INVALID_ARGUMENT, "fastdrop: x, y, bits and seed must fit each other")
    stream.offset = 0
    status = capi.forward(work.rows.dtype, relu, NULL, NULL, NULL, 0, keep_prob, scale, &stream)
    if status != capi.OK:
        return failure(call, INVALID_ARGUMENT, capi.status_text(status))
    work.x, work.y, work.bits = <const char*> x.data, <char*> y.data, <unsigned char*> bits.data
    work.seed = <const uint32_t*> seed.data
    work.derive, work.relu, work.keep_prob, work.scale = derive, relu, keep_prob, scale
    run_job(call, &work)
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
    cdef Work work
    if not measure(&work.rows, dy, dx, bits, bits.rank - 1) or bits.dims[bits.rank - 1] != work.rows.packed:
        return failure(call, INVALID_ARGUMENT, "fastdrop: dy, dx and bits must fit each other")
    work.x, work.y, work.bits = <const char*> dy.data, <char*> dx.data, <unsigned char*> bits.data
    work.seed = NULL
    work.scale = scale
    run_job(call, &work)
    return NULL


# --- what Python sees ------------------------------------------------------------------------


def capsules():
    """The handlers, forward and backward, as `jax.ffi.register_ffi_target` takes them."""
    return PyCapsule_New(<void*> &forward, NULL, NULL), PyCapsule_New(<void*> &backward, NULL, NULL)


def interface_version():
    """The version of the interface that XLA stated at registration, or None where it stated none."""
    return None if host_minor < 0 else f"{MAJOR}.{host_minor}"


derivations = {"words": WORDS, "partitionable": PARTITIONABLE, "original": ORIGINAL}
