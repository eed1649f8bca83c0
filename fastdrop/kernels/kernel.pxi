# A run of a pass: decide a chunk, apply it, and so on. A kernel module names its vocabulary and
# includes this, which includes the rest.

include "vocabulary.pxi"
include "ars.pxi"
include "bernoulli.pxi"
include "bits.pxi"
include "apply.pxi"
include "noise.pxi"
include "probe.pxi"

from cpython.pycapsule cimport PyCapsule_New

from fastdrop.kernels.sweep cimport (
    ALL_KEPT, DRAWN, ELEMENT_TYPES, GAUSSIAN, KERNEL_TAG, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT, dropout_kernel, ensure,
)


cdef struct Stretch:
    ptrdiff_t end       # the element after it
    ptrdiff_t begin     # the element that its next chunk begins with, drawn or not
    uint64_t block      # that chunk's first
    ptrdiff_t left      # blocks


cdef inline Stretch stretch_from(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """The rest, from `first` on, of the stretch that this element lies in."""
    cdef Stretch stretch
    cdef ptrdiff_t number, element = first - sweep.base
    cdef uint64_t position = sweep.position + element
    cdef int phase
    ensure(first < last, "a stretch has an element")
    stretch.end = last
    if sweep.stretch:
        ensure(element >= 0, "no run with a stretch begins before its base")
        number = element // sweep.stretch
        stretch.end = min(sweep.base + (number + 1) * sweep.stretch, last)
        position += number * sweep.jump
    phase = position % BLOCK
    stretch.begin = first - phase
    stretch.block = position // BLOCK
    stretch.left = (phase + (stretch.end - first) + BLOCK - 1) // BLOCK
    return stretch


cdef inline void next_chunk(Stretch* stretch, Chunk* chunk) noexcept nogil:
    chunk.begin = stretch.begin
    chunk.block = stretch.block
    chunk.listed = False
    chunk.count = min(stretch.left, CHUNK_BLOCKS)
    chunk.drawn = 0
    chunk.undecided = 0
    stretch.begin += CHUNK
    stretch.block += CHUNK_BLOCKS
    stretch.left -= chunk.count


cdef void run_drawn(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const Draw* draw) noexcept nogil:
    """Chunks follow the blocks of the stream; one is applied while the next is drawn. What lies
    past the last boundary is applied with the next, for which the last block is carried over."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Stretch stretch = stretch_from(sweep, first, last)
    cdef ptrdiff_t end
    next_chunk(&stretch, now)
    while first < last:
        draw_first(draw, now)
        draw_rest(draw, now)
        end = last
        if stretch.left:
            end = stretch.begin - past_boundary(sweep, stretch.begin)
            carry_last_block(now, ahead)
            next_chunk(&stretch, ahead)
        apply(sweep, first, end, carried(now), first - now.begin + BLOCK, draw, ahead if end < last else NULL)
        first = end
        now, ahead = ahead, now


cdef ptrdiff_t list_stretches(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, Chunk* chunk) noexcept nogil:
    """A chunk of as many stretches as it holds blocks of; returns the element after them."""
    cdef Segment* segment
    cdef Stretch stretch
    cdef ptrdiff_t some, n
    chunk.listed = True
    chunk.segments = chunk.count = chunk.drawn = 0
    chunk.undecided = 0
    while first < last and chunk.count < CHUNK_BLOCKS:
        stretch = stretch_from(sweep, first, last)
        if chunk.segments and stretch.left > CHUNK_BLOCKS - chunk.count:
            break
        some = min(stretch.left, CHUNK_BLOCKS)
        segment = &chunk.segment[chunk.segments]
        segment.first = first
        segment.end = stretch.end
        if some < stretch.left:     # a stretch that is longer than a chunk goes on at a boundary
            segment.end = stretch.begin + some * BLOCK
            segment.end -= past_boundary(sweep, segment.end)
        segment.bit = chunk.count * BLOCK + (first - stretch.begin)
        for n in range(some):
            chunk.counters.word[BLOCK_WORDS * (chunk.count + n)] = stretch.block + n
            chunk.counters.word[BLOCK_WORDS * (chunk.count + n) + 1] = 0
        chunk.count += some
        chunk.segments += 1
        first = segment.end
    return first


cdef void run_stretches(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, const Draw* draw) noexcept nogil:
    """The same where the stream jumps between stretches: a chunk is put together from several."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Segment segment
    cdef int n
    first = list_stretches(sweep, first, last, now)
    while now.count:
        draw_first(draw, now)
        draw_rest(draw, now)
        first = list_stretches(sweep, first, last, ahead)
        for n in range(now.segments):
            segment = now.segment[n]
            apply(sweep, segment.first, segment.end, own_bits(now), segment.bit, draw, ahead)
        now, ahead = ahead, now


cdef void run_given(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Decisions that need no drawing."""
    cdef chunk_words words
    cdef unsigned char* given = <unsigned char*> words.word
    cdef const unsigned char* keep = given
    cdef uint64_t bit = 0
    cdef ptrdiff_t end
    memset(given, 0xFF if sweep.decision == ALL_KEPT else 0, sizeof(words))
    while first < last:
        end = first + CHUNK
        end = min(end - past_boundary(sweep, end), last)
        if sweep.decision == SAVED_BITS:
            keep = <const unsigned char*> sweep.saved
            bit = sweep.saved_bit + first
        elif sweep.decision == SAVED_OUTPUT:
            nonzero(sweep.dtype, sweep.saved + first * itemsize(sweep.dtype), end - first, given)
        apply(sweep, first, end, keep, bit, NULL, NULL)
        first = end


cdef void run_blank(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Zeros, whatever the elements are."""
    cdef char* y = sweep.y + first * itemsize(sweep.dtype)
    cdef char* end = sweep.y + last * itemsize(sweep.dtype)
    cdef ptrdiff_t head
    cdef lanes zeros
    if sweep.mask != NULL:
        clear_bits(sweep.mask, first, last - first)
    if sweep.streaming:
        zeros = lanes_fill(FLOAT32, 0)
        head = min(<ptrdiff_t> (-<uintptr_t> y % ALIGNMENT), end - y)
        memset(y, 0, head)
        y += head
        while end - y >= 64:
            lanes_stream(FLOAT32, y, zeros)
            y += 64
    memset(y, 0, end - y)


cdef void run(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef Draw draw
    ensure(0 <= first < last, "a run has an element")
    ensure(0 <= sweep.dtype < ELEMENT_TYPES, "the dtype is known")
    ensure(sweep.x == NULL or sweep.y != NULL, "there is a result where there are elements")
    if sweep.decision == DRAWN:
        start_draw(&draw, sweep.seed[0], sweep.seed[1], sweep.threshold)
        if sweep.stretch:
            run_stretches(sweep, first, last, &draw)
        else:
            run_drawn(sweep, first, last, &draw)
    elif sweep.decision == GAUSSIAN:
        run_gaussian(sweep, first, last)
    elif sweep.decision == NONE_KEPT and sweep.x != NULL and not is_general(sweep):
        run_blank(sweep, first, last)
    else:
        run_given(sweep, first, last)


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.run = run
this_kernel.finish = stream_end
this_kernel.add = add
this_kernel.round = round_sums

kernel = PyCapsule_New(&this_kernel, KERNEL_TAG, NULL)
