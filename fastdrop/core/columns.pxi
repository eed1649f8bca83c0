# Sums over columns, in float64. The rows of a strip are added in order, and the strips are added in order, so that the
# result depends on neither the slices nor the threads.


cdef void add_columns(const Columns* columns, const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Add results first, ..., last - 1 to the sums of their strips, row by row."""
    cdef double* sums
    cdef ptrdiff_t row, column, count
    while first < last:
        row = first // columns.row
        column = first - row * columns.row
        count = min(columns.row - column, last - first)
        sums = columns.sums + row // columns.strip * columns.row
        kernel.add_to_sums(sweep.dtype, sweep.y + first * itemsize(sweep.dtype), sums + column, count)
        first += count


cdef void sum_strips(const Plan* plan) noexcept nogil:
    cdef const Columns* columns = plan.columns
    cdef ptrdiff_t strip, column
    cdef double total
    if columns == NULL:
        return
    for column in range(columns.row):
        total = 0
        for strip in range(columns.strips):
            total += columns.sums[strip * columns.row + column]
        columns.sums[column] = total
    kernel.round_sums(plan.sweep.dtype, columns.sums, columns.total, columns.row)
