# The gradient of a bias is a sum of elements per column. Sums are float64, and are rounded once, at the end.

cdef inline void add_as(int dtype, const char* elements, double* sums, ptrdiff_t count) noexcept nogil:
    cdef float values[STEP]
    cdef char padded[STEP * 4]
    cdef ptrdiff_t n = 0
    cdef int i, some = STEP
    while n < count:
        if count - n < STEP:
            some = count - n
            memset(padded, 0, sizeof(padded))
            memcpy(padded, elements, some * itemsize(dtype))
            elements = padded
        lanes_store(FLOAT32, <char*> values, lanes_load(dtype, elements))
        for i in range(some):
            sums[n + i] += values[i]
        elements += STEP * itemsize(dtype)
        n += STEP


cdef void add_to_sums(int dtype, const char* elements, double* sums, ptrdiff_t count) noexcept nogil:
    cdef double value
    cdef ptrdiff_t n
    if dtype == FLOAT64:
        for n in range(count):
            memcpy(&value, elements + 8 * n, 8)
            sums[n] += value
    elif dtype == FLOAT32:
        add_as(FLOAT32, elements, sums, count)
    elif dtype == FLOAT16:
        add_as(FLOAT16, elements, sums, count)
    else:
        add_as(BFLOAT16, elements, sums, count)


cdef inline float to_odd(double value) noexcept nogil:
    """Return a value that is a float32, or else the float32 beside it whose last bit is odd.

    When it is rounded again, to a shorter dtype, it gives what `value` gives when it is rounded once (S. Boldo,
    G. Melquiond, "Emulation of FMA and correctly rounded sums: proved algorithms using rounding to odd", IEEE
    Transactions on Computers 57, 2008).
    """
    cdef float near = <float> value
    cdef double back = near
    cdef uint32_t bits
    if back == value or value != value:
        return near
    memcpy(&bits, &near, 4)
    if not bits & 1:    # the odd neighbour is on the other side of `value`
        bits += 1 if (back < value) == (back >= 0) else -1
        memcpy(&near, &bits, 4)
    return near


cdef inline void round_as(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil:
    cdef float values[STEP]
    cdef char padded[STEP * 4]
    cdef ptrdiff_t n = 0
    cdef int i, some = STEP
    memset(values, 0, sizeof(values))
    while n < count:
        some = min(some, count - n)
        for i in range(some):
            values[i] = to_odd(sums[n + i]) if dtype == FLOAT16 else <float> sums[n + i]
        lanes_store(dtype, padded, lanes_load(FLOAT32, <const char*> values))
        memcpy(elements + n * itemsize(dtype), padded, some * itemsize(dtype))
        n += STEP


cdef void round_sums(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil:
    """Round sums to elements as NumPy's `astype` does."""
    if dtype == FLOAT64:
        memcpy(elements, sums, 8 * count)
    elif dtype == FLOAT32:
        round_as(FLOAT32, sums, elements, count)
    elif dtype == FLOAT16:
        round_as(FLOAT16, sums, elements, count)
    else:
        round_as(BFLOAT16, sums, elements, count)
