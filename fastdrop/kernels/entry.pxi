# A run of a pass: decide a chunk, apply it, and so on.

from cpython.pycapsule cimport PyCapsule_New


from fastdrop.kernels.kernel cimport ALL_KEPT, DRAWN, SAVED_BITS, SAVED_OUTPUT, dropout_kernel


cdef void run_drawn(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """A chunk is applied while the next is drawn. What does not fill a word of 64 elements waits
    for it, and its bits are carried, so that words keep to cache lines and blocks to the stream."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Draw draw
    cdef int phase = (task.position + first) % BLOCK
    cdef ptrdiff_t start = first - phase  # the element that `now` starts with
    cdef ptrdiff_t end
    cdef uint64_t block = (task.position + first) // BLOCK
    cdef ptrdiff_t count = (phase + (last - first) + BLOCK - 1) // BLOCK  # blocks left
    cdef bint more
    key_schedule(&draw.key, task.seed[0], task.seed[1])
    draw.threshold = task.threshold
    now.block = block
    now.count = min(count, CHUNK_BLOCKS)
    draw_first(&draw, now, 0)
    while True:
        draw_end(&draw, now)
        count -= now.count
        block += now.count
        more = count > 0
        end = last
        if more:
            ahead.block = block
            ahead.count = min(count, CHUNK_BLOCKS)
            ahead.carried[0] = now.below[CHUNK_WORDS - 2]
            ahead.carried[1] = now.below[CHUNK_WORDS - 1]
            end = first + ((start + CHUNK - first) & ~<ptrdiff_t> 63)
        apply(task, first, end, <const unsigned char*> now.carried, first - start + BLOCK, &draw, ahead if more else NULL)
        if not more:
            break
        first = end
        start += CHUNK
        now, ahead = ahead, now


cdef void run(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef uint64_t words[CHUNK_WORDS]
    cdef ptrdiff_t end
    if first == last:
        return
    if task.decision == DRAWN:
        run_drawn(task, first, last)
    elif task.decision == SAVED_BITS:
        apply(task, first, last, <const unsigned char*> task.saved, task.first_bit + first, NULL, NULL)
    else:
        memset(words, 0xFF if task.decision == ALL_KEPT else 0, sizeof(words))
        while first < last:
            end = min(first + CHUNK, last)
            if task.decision == SAVED_OUTPUT:
                nonzero(task.dtype, task.saved + first * itemsize(task.dtype), end - first, words)
            apply(task, first, end, <const unsigned char*> words, 0, NULL, NULL)
            first = end
    if task.streaming:
        stream_end()


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.run = run

kernel = PyCapsule_New(&this_kernel, "fastdrop.kernel", NULL)
