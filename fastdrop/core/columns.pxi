# Sums over columns, in float64. The rows of a strip are added in order, and the strips are added in order, so that the
# result depends on neither the slices nor the threads.

cdef enum:
    TILE = 2 * UNIT     # elements of a tile
    TILE_ROWS = 4       # the fewest rows of one that is not copied, whatever their length


cdef void run_tiles(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Run a part, which has whole rows, and add its results to the sums of their strips.

    This goes tile by tile: some rows, or UNIT columns of them. Its results are added while they are in the cache, and each
    sum is read and written once for all rows of the tile.
    """
    cdef const Columns* columns = plan.columns
    cdef dropout_sweep sweep = plan.sweep[0]
    cdef char* room = room_of(plan, thread)
    cdef ptrdiff_t row = first // columns.row, end = last // columns.row, rows, column, count
    while row < end:
        rows = min(min(rows_of_tile(plan), columns.strip - row % columns.strip), end - row)
        column = 0
        while column < columns.row:
            count = min(columns.row - column, UNIT)
            run_tile(plan, &sweep, row * columns.row + column, count, rows, room)
            add_tile(columns, &sweep, row, column, rows, count)
            column += count
        row += rows


cdef inline ptrdiff_t rows_of_tile(const Plan* plan) noexcept nogil:
    """Return how many rows a tile has at most. Where arrays are copied, there is room for one piece at a time."""
    if plan.strided == NULL:
        return max(TILE // plan.columns.row, TILE_ROWS)
    return plan.strided.piece // plan.columns.row if plan.columns.row <= UNIT else 1


cdef inline void run_tile(
    const Plan* plan, dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t count, ptrdiff_t rows, char* room
) noexcept nogil:
    """Run `rows` times `count` elements, from element `first` on."""
    cdef ptrdiff_t row = plan.columns.row, n
    if count == row:
        run_piece(plan, sweep, first, first + rows * row, room)
        return
    for n in range(rows):
        run_piece(plan, sweep, first + n * row, first + n * row + count, room)


cdef inline void add_tile(
    const Columns* columns, const dropout_sweep* sweep, ptrdiff_t row, ptrdiff_t column, ptrdiff_t rows, ptrdiff_t count
) noexcept nogil:
    cdef int size = itemsize(sweep.dtype)
    cdef ptrdiff_t distance = columns.row * size + sweep.y_gap
    kernel.add_to_sums(
        sweep.dtype, sweep.y + row * distance + column * size, distance, rows,
        columns.sums + row // columns.strip * columns.row + column, count,
    )


cdef void sum_strips(const Plan* plan) noexcept nogil:
    """Add up the strips, from the first on. No sum of a strip is -0, so the first is as good as zero plus the first."""
    cdef const Columns* columns = plan.columns
    cdef ptrdiff_t strip, column
    if columns == NULL:
        return
    for strip in range(1, columns.strips):
        for column in range(columns.row):
            columns.sums[column] += columns.sums[strip * columns.row + column]
    kernel.round_sums(plan.sweep.dtype, columns.sums, columns.total, columns.row)
