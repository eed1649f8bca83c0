# A run of a pass: decide a batch, apply it, and so on.

from cpython.pycapsule cimport PyCapsule_New

cdef extern from "kernel.h":
    enum:
        FLOAT32
        FLOAT64
        DRAWN
        SAVED_BITS
        SAVED_OUTPUT
        ALL_KEPT
        NONE_KEPT
    ctypedef struct dropout_pass:
        int dtype
        int relu
        int decision
        int streaming
        const char* x
        char* y
        double scale
        const char* saved
        unsigned char* mask
        uint64_t first_bit
        uint64_t seed[2]
        uint64_t position
        uint64_t threshold
    ctypedef struct dropout_kernel:
        const char* name
        void (*run)(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil


cdef struct Drawing:
    Key key
    uint64_t threshold
    uint64_t block                     # the next to be drawn
    int shift                          # how far into a block an element of the run lies, mod 128
    bint carried                       # whether words[0:2] hold the block before
    uint64_t words[2 + BATCH_WORDS + 1]


cdef void drawing_start(Drawing* drawing, const dropout_pass* task, ptrdiff_t first) noexcept nogil:
    cdef uint64_t position = task.position + first
    key_schedule(&drawing.key, task.seed[0], task.seed[1])
    drawing.threshold = task.threshold
    drawing.block = position // BLOCK
    drawing.shift = position % BLOCK
    drawing.carried = False
    drawing.words[2 + BATCH_WORDS] = 0


cdef ptrdiff_t drawing_next(Drawing* drawing, uint64_t* keep) noexcept nogil:
    """The next batch of decisions. Blocks are aligned in the stream: where the run is not, its bits
    are shifted, and a first batch is short of a block, which the next one begins with."""
    cdef int start = drawing.shift
    cdef ptrdiff_t count = BATCH
    if drawing.shift == 0:
        keep_batch(&drawing.key, drawing.block, drawing.threshold, keep)
    else:
        drawing.words[0] = drawing.words[BATCH_WORDS]
        drawing.words[1] = drawing.words[BATCH_WORDS + 1]
        keep_batch(&drawing.key, drawing.block, drawing.threshold, drawing.words + 2)
        if not drawing.carried:
            drawing.carried = True
            start += BLOCK
            count -= BLOCK
        shift_down(keep, drawing.words + start // 64, count // 64, start % 64)
    drawing.block += BATCH_BLOCKS
    return count


cdef inline void run_as(
    int dtype, bint relu, bint streaming, const dropout_pass* task, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """A run with its dtype and form as constants, so that each has a loop of its own."""
    cdef Drawing drawing
    cdef uint64_t keep[BATCH_WORDS]
    cdef uint64_t passed[BATCH_WORDS]
    cdef lanes scale = lanes_fill(dtype, task.scale)
    cdef ptrdiff_t count
    if task.decision == DRAWN:
        drawing_start(&drawing, task, first)
    else:
        memset(keep, 0xFF if task.decision == ALL_KEPT else 0, sizeof(keep))
    while first < last:
        count = BATCH
        if task.decision == DRAWN:
            count = drawing_next(&drawing, keep)
        if count > last - first:
            count = last - first
        if task.decision == SAVED_BITS:
            load_bits(keep, task.saved, task.first_bit + first, count)
        elif task.decision == SAVED_OUTPUT:
            nonzero_batch(dtype, task.saved + first * itemsize(dtype), count, keep)
        clear_after(keep, count)
        apply_batch(
            dtype, relu, streaming, task.x + first * itemsize(dtype),
            task.y + first * itemsize(dtype), count, keep, passed, scale
        )
        if task.mask != NULL:
            store_bits(task.mask, task.first_bit + first, passed, count)
        first += count
    if streaming:
        stream_end()


cdef void run_bits(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """A run without elements: the decisions alone."""
    cdef Drawing drawing
    cdef uint64_t keep[BATCH_WORDS]
    cdef ptrdiff_t count = BATCH
    memset(keep, 0xFF if task.decision == ALL_KEPT else 0, sizeof(keep))
    drawing_start(&drawing, task, first)
    while first < last:
        if task.decision == DRAWN:
            count = drawing_next(&drawing, keep)
        if count > last - first:
            count = last - first
        clear_after(keep, count)
        store_bits(task.mask, task.first_bit + first, keep, count)
        first += count


cdef void run(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    if task.x == NULL:
        run_bits(task, first, last)
    elif task.dtype == FLOAT32:
        if task.streaming:
            if task.relu:
                run_as(FLOAT32, True, True, task, first, last)
            else:
                run_as(FLOAT32, False, True, task, first, last)
        elif task.relu:
            run_as(FLOAT32, True, False, task, first, last)
        else:
            run_as(FLOAT32, False, False, task, first, last)
    else:
        if task.streaming:
            if task.relu:
                run_as(FLOAT64, True, True, task, first, last)
            else:
                run_as(FLOAT64, False, True, task, first, last)
        elif task.relu:
            run_as(FLOAT64, True, False, task, first, last)
        else:
            run_as(FLOAT64, False, False, task, first, last)


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.run = run

kernel = PyCapsule_New(&this_kernel, "fastdrop.kernel", NULL)
