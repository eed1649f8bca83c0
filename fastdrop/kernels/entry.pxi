# A run of a pass: decide a chunk, apply it, and so on.

from cpython.pycapsule cimport PyCapsule_New


from fastdrop.kernels.kernel cimport ALL_KEPT, DRAWN, GAUSSIAN, SAVED_BITS, SAVED_OUTPUT, dropout_kernel


cdef void run_drawn(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Chunks follow the blocks of the stream; one is applied while the next is drawn. What lies
    past the last boundary is applied with the next, for which the last block is carried over."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Draw draw
    cdef int phase = (task.position + first) % BLOCK
    cdef ptrdiff_t left = (phase + (last - first) + BLOCK - 1) // BLOCK  # blocks
    cdef ptrdiff_t begin = first - phase  # the element that a chunk begins with
    cdef ptrdiff_t end
    key_schedule(&draw.key, task.seed[0], task.seed[1])
    draw.threshold = task.threshold
    now.block = (task.position + first) // BLOCK
    now.count = min(left, CHUNK_BLOCKS)
    now.undecided = 0
    draw_first(&draw, now, 0)
    while left:
        draw_rest(&draw, now)
        left -= now.count
        end = last
        if left:
            end = begin + CHUNK
            end -= past_boundary(task, end)
            carry_last_block(now, ahead)
            ahead.block = now.block + now.count
            ahead.count = min(left, CHUNK_BLOCKS)
            ahead.undecided = 0
        apply(task, first, end, carried(now), first - begin + BLOCK, &draw, ahead if left else NULL)
        first = end
        begin += CHUNK
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
            bit = task.first_bit + first
        elif task.decision == SAVED_OUTPUT:
            nonzero(task.dtype, task.saved + first * itemsize(task.dtype), end - first, given)
        apply(task, first, end, keep, bit, NULL, NULL)
        first = end


cdef void run(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    if task.decision == DRAWN:
        run_drawn(task, first, last)
    elif task.decision == GAUSSIAN:
        run_gaussian(task, first, last)
    else:
        run_given(task, first, last)
    if task.streaming:
        stream_end()


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.run = run

kernel = PyCapsule_New(&this_kernel, "fastdrop.kernel", NULL)
