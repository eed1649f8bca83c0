# The gradient of a bias is a sum of elements per column. Sums are float64, and are rounded once, at the end.

cdef inline void add_step(
    int dtype, const char* elements, ptrdiff_t distance, ptrdiff_t rows, const double* sums, double* to
) noexcept nogil:
    """Add rows of 16 elements to 16 sums, which stay in registers meanwhile."""
    cdef lanes low = lanes_load(FLOAT64, <const char*> sums)
    cdef lanes high = lanes_load(FLOAT64, <const char*> (sums + STEP // 2))
    cdef ptrdiff_t row
    for row in range(rows):
        low = lanes_add(FLOAT64, low, lanes_load_wide(dtype, elements))
        high = lanes_add(FLOAT64, high, lanes_load_wide(dtype, elements + STEP // 2 * itemsize(dtype)))
        elements += distance
    lanes_store(FLOAT64, <char*> to, low)
    lanes_store(FLOAT64, <char*> (to + STEP // 2), high)


cdef inline void add_narrow(
    int dtype, const char* elements, ptrdiff_t distance, ptrdiff_t rows, double* sums, ptrdiff_t columns
) noexcept nogil:
    """Add rows of fewer elements than a step, which are padded."""
    cdef char padded[STEP_BYTES]
    cdef double few[STEP]
    cdef ptrdiff_t row
    memset(padded, 0, sizeof(padded))
    memset(few, 0, sizeof(few))
    memcpy(few, sums, 8 * columns)
    for row in range(rows):
        memcpy(padded, elements + row * distance, columns * itemsize(dtype))
        add_step(dtype, padded, 0, 1, few, few)
    memcpy(sums, few, 8 * columns)


cdef inline void add_as(
    int dtype, const char* elements, ptrdiff_t distance, ptrdiff_t rows, double* sums, ptrdiff_t columns
) noexcept nogil:
    """Add rows 16 columns at a time. The last step begins before columns that are left, and its other sums go nowhere."""
    cdef double last[STEP]
    cdef ptrdiff_t column = 0, rest = columns % STEP
    if columns < STEP:
        add_narrow(dtype, elements, distance, rows, sums, columns)
        return
    while column + STEP <= columns:
        add_step(dtype, elements + column * itemsize(dtype), distance, rows, sums + column, sums + column)
        column += STEP
    if rest:
        column = columns - STEP
        add_step(dtype, elements + column * itemsize(dtype), distance, rows, sums + column, last)
        memcpy(sums + columns - rest, last + STEP - rest, 8 * rest)


cdef void add_to_sums(
    int dtype, const char* elements, ptrdiff_t distance, ptrdiff_t rows, double* sums, ptrdiff_t columns
) noexcept nogil:
    if dtype == FLOAT32:
        add_as(FLOAT32, elements, distance, rows, sums, columns)
    elif dtype == FLOAT64:
        add_as(FLOAT64, elements, distance, rows, sums, columns)
    elif dtype == FLOAT16:
        add_as(FLOAT16, elements, distance, rows, sums, columns)
    else:
        add_as(BFLOAT16, elements, distance, rows, sums, columns)


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


cdef inline void round_step(int dtype, const double* sums, char* elements) noexcept nogil:
    cdef float values[STEP]
    cdef int i
    for i in range(STEP):
        values[i] = to_odd(sums[i]) if dtype == FLOAT16 else <float> sums[i]
    lanes_store(dtype, elements, lanes_load(FLOAT32, <const char*> values))


cdef inline void round_as(int dtype, const double* sums, char* elements, ptrdiff_t count) noexcept nogil:
    cdef double last[STEP]
    cdef char padded[STEP * 4]
    cdef ptrdiff_t n = 0
    while n + STEP <= count:
        round_step(dtype, sums + n, elements + n * itemsize(dtype))
        n += STEP
    if n < count:
        memset(last, 0, sizeof(last))
        memcpy(last, sums + n, 8 * (count - n))
        round_step(dtype, last, padded)
        memcpy(elements + n * itemsize(dtype), padded, (count - n) * itemsize(dtype))


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
