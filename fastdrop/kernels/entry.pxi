# A run of a pass: decide a chunk, apply it, and so on.

from cpython.pycapsule cimport PyCapsule_New

from fastdrop.kernels.kernel cimport (
    ALL_KEPT, DRAWN, GAUSSIAN, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT, dropout_kernel,
)


cdef struct Row:
    ptrdiff_t end       # the element after it
    ptrdiff_t begin     # the element that its next chunk begins with, drawn or not
    uint64_t block      # that chunk's first
    ptrdiff_t left      # blocks


cdef inline Row row_of(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """The rest from `first` on of a row: of elements with successive positions."""
    cdef Row row
    cdef uint64_t position = task.position + first
    cdef int phase
    row.end = last
    if task.row:
        row.end = min(first // task.row * task.row + task.row, last)
        position += first // task.row * task.jump
    phase = position % BLOCK
    row.begin = first - phase
    row.block = position // BLOCK
    row.left = (phase + (row.end - first) + BLOCK - 1) // BLOCK
    return row


cdef inline void next_chunk(Row* row, Chunk* chunk) noexcept nogil:
    chunk.begin = row.begin
    chunk.block = row.block
    chunk.count = min(row.left, CHUNK_BLOCKS)
    chunk.undecided = 0
    row.begin += CHUNK
    row.block += CHUNK_BLOCKS
    row.left -= chunk.count


cdef void run_drawn(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Chunks follow the blocks of the stream; one is applied while the next is drawn. What lies
    past the last boundary is applied with the next, for which the last block is carried over."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Draw draw
    cdef Row row
    cdef ptrdiff_t end
    if first == last:
        return
    key_schedule(&draw.key, task.seed[0], task.seed[1])
    draw.threshold = task.threshold
    row = row_of(task, first, last)
    next_chunk(&row, now)
    draw_first(&draw, now, 0)
    while first < last:
        draw_rest(&draw, now)
        if row.left:
            end = row.begin - past_boundary(task, row.begin)
            carry_last_block(now, ahead)
            next_chunk(&row, ahead)
        else:
            end = row.end
            if end < last:
                row = row_of(task, end, last)
                next_chunk(&row, ahead)
        apply(task, first, end, carried(now), first - now.begin + BLOCK, &draw, ahead if end < last else NULL)
        first = end
        now, ahead = ahead, now


cdef void run_given(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Decisions that need no drawing."""
    cdef chunk_words words
    cdef unsigned char* given = <unsigned char*> words.word
    cdef const unsigned char* keep = given
    cdef uint64_t bit = 0
    cdef ptrdiff_t end
    memset(given, 0xFF if task.decision == ALL_KEPT else 0, sizeof(words))
    while first < last:
        end = first + CHUNK
        end = min(end - past_boundary(task, end), last)
        if task.decision == SAVED_BITS:
            keep = <const unsigned char*> task.saved
            bit = task.saved_bit + first
        elif task.decision == SAVED_OUTPUT:
            nonzero(task.dtype, task.saved + first * itemsize(task.dtype), end - first, given)
        apply(task, first, end, keep, bit, NULL, NULL)
        first = end


cdef void run_blank(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Zeros, whatever the elements are."""
    memset(task.y + first * itemsize(task.dtype), 0, (last - first) * itemsize(task.dtype))
    if task.mask != NULL:
        clear_bits(task.mask, task.first_bit + first, last - first)


cdef void run(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    if task.decision == DRAWN:
        run_drawn(task, first, last)
    elif task.decision == GAUSSIAN:
        run_gaussian(task, first, last)
    elif task.decision == NONE_KEPT and task.x != NULL and not is_general(task):
        run_blank(task, first, last)
    else:
        run_given(task, first, last)
    if task.streaming:
        stream_end()


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.run = run
this_kernel.add = add

kernel = PyCapsule_New(&this_kernel, "fastdrop.kernel", NULL)
