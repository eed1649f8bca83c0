# XLA's C interface for foreign functions, as far as it is used here. Neither jaxlib nor its headers are needed to
# compile it: the layout is binary and versioned. Every structure begins with its size as the writer knows it, and a
# newer version only adds fields at the end. A field of type Extension* heads a list of optional parts.

cdef enum:
    MAJOR = 0
    OLDEST_MINOR = 1        # the minor versions that have the layout below
    NEWEST_MINOR = 3
    METADATA = 1            # a type of Extension
    BUFFER = 1              # a type of an argument or a result
    SCALAR = 3              # a type of an attribute
    EXECUTE = 3             # a stage
    INVALID_ARGUMENT = 3    # codes of errors
    UNIMPLEMENTED = 12
    XLA_S32 = 4             # dtypes
    XLA_U8 = 6
    XLA_U32 = 8
    XLA_F16 = 10
    XLA_F32 = 11
    XLA_F64 = 12
    XLA_BF16 = 16

cdef struct Extension:
    size_t size
    int32_t type
    Extension* next

cdef struct Version:
    size_t size
    Extension* extensions
    int32_t major
    int32_t minor

cdef struct Metadata:
    size_t size
    Version api_version
    uint32_t traits

cdef struct MetadataExtension:
    Extension base
    Metadata* metadata

cdef struct ErrorRequest:
    size_t size
    Extension* extensions
    const char* message
    int32_t code

cdef struct DestroyRequest:
    size_t size
    Extension* extensions
    void* error

cdef struct ScheduleRequest:
    size_t size
    Extension* extensions
    void* context
    void (*task)(void*) noexcept nogil
    void* data

ctypedef void* (*CreateError)(ErrorRequest*) noexcept nogil
ctypedef void (*DestroyError)(DestroyRequest*) noexcept nogil
ctypedef void* (*Schedule)(ScheduleRequest*) noexcept nogil

cdef struct Api:
    size_t size
    Extension* extensions
    Version api_version
    const void* internal
    CreateError create_error
    const void* get_message
    DestroyError destroy_error
    void* unused[8]
    Schedule schedule

cdef struct Buffer:
    size_t size
    Extension* extensions
    int32_t dtype
    void* data
    int64_t rank
    int64_t* dims

# Arguments, and results too.
cdef struct Buffers:
    size_t size
    Extension* extensions
    int64_t count
    int32_t* types
    Buffer** items

cdef struct Span:
    const char* start
    size_t length

cdef struct Scalar:
    int32_t dtype
    void* value

cdef struct Attributes:
    size_t size
    Extension* extensions
    int64_t count
    int32_t* types
    Span** names
    Scalar** items

cdef struct Frame:
    size_t size
    Extension* extensions
    const Api* api
    void* context
    int32_t stage
    Buffers arguments
    Buffers results
    Attributes attributes
