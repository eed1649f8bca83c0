# A kernel sweeps a range of elements: it decides a chunk, applies it, and goes on to the next. The module of an
# instruction set names its vocabulary and includes this file, which includes the others.

include "vocabulary.pxi"
include "ars.pxi"
include "bits.pxi"
include "bernoulli.pxi"
include "apply.pxi"
include "noise.pxi"
include "sums.pxi"
include "probe.pxi"

from cpython.pycapsule cimport PyCapsule_New

from fastdrop.kernels.sweep cimport (
    ALL_KEPT, DRAWN, ELEMENT_TYPES, GAUSSIAN, KERNEL_TAG, NONE_KEPT, SAVED_BITS, SAVED_OUTPUT, dropout_kernel, ensure,
)


# --- stretches --------------------------------------------------------------------------------

# Successive blocks that decide what is left of a stretch. The first block may also decide elements before it, and the
# last one elements after it.
cdef struct Stretch:
    # The element after the stretch's last.
    ptrdiff_t end
    # The element that the first bit of the next block decides.
    ptrdiff_t begin
    # The index in the stream of the next block.
    uint64_t block
    # The number of blocks, from the next one on.
    ptrdiff_t blocks_left


cdef inline Stretch stretch_from(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Return the stretch of element `first`, from this element on, up to `last` at most."""
    cdef Stretch stretch
    cdef ptrdiff_t number, element = first - sweep.base
    cdef uint64_t position = sweep.position + element
    cdef int phase
    ensure(first < last, "a stretch has an element")
    stretch.end = last
    if sweep.stretch:
        ensure(element >= 0, "no range with a stretch begins before its base")
        number = element // sweep.stretch
        stretch.end = min(sweep.base + (number + 1) * sweep.stretch, last)
        position += number * sweep.jump
    phase = position % BLOCK
    stretch.begin = first - phase
    stretch.block = position // BLOCK
    stretch.blocks_left = (phase + (stretch.end - first) + BLOCK - 1) // BLOCK
    return stretch


cdef inline void begin_chunk(Chunk* chunk, bint listed) noexcept nogil:
    """Make a chunk that has no blocks yet. They will be successive, or `listed`."""
    chunk.listed = listed
    chunk.segments = 0
    chunk.count = 0
    chunk.drawn = 0
    chunk.undecided = 0


# --- decisions that are drawn -----------------------------------------------------------------


cdef void sweep_drawn(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, Draw* draw) noexcept nogil:
    """Draw decisions at successive positions in chunks, and apply one chunk while the next is drawn.

    Chunk k decides elements [A(k), A(k + 1)), with A(k + 1) = A(k) + CHUNK, and is applied to [B(k - 1), B(k)). B(k) is
    the last boundary up to A(k + 1) (see boundary_before), but B(-1) = first, and B(k) = last for the last chunk. Since
    A(k) - B(k - 1) < BLOCK, a chunk needs no more of the one before it than its last block, which is carried over.
    """
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Stretch stretch = stretch_from(sweep, first, last)
    cdef ptrdiff_t end
    take_chunk(&stretch, now)
    while first < last:
        draw_first(draw, now)
        draw_rest(draw, now)
        end = last
        if stretch.blocks_left:
            end = boundary_before(sweep, stretch.begin)
            carry_last_block(now, ahead)
            take_chunk(&stretch, ahead)
        apply_decisions(
            sweep, first, end, bits_after_carried(now), first - (now.begin - BLOCK), draw,
            ahead if end < last else NULL,
        )
        first = end
        now, ahead = ahead, now


cdef inline void take_chunk(Stretch* stretch, Chunk* chunk) noexcept nogil:
    """Make a chunk of the next blocks of a stretch."""
    begin_chunk(chunk, False)
    chunk.begin = stretch.begin
    chunk.block = stretch.block
    chunk.count = min(stretch.blocks_left, CHUNK_BLOCKS)
    stretch.begin += CHUNK
    stretch.block += CHUNK_BLOCKS
    stretch.blocks_left -= chunk.count


cdef void sweep_stretches(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, Draw* draw) noexcept nogil:
    """Draw decisions where the stream jumps between stretches: a chunk has the blocks of several."""
    cdef Chunk chunks[2]
    cdef Chunk* now = &chunks[0]
    cdef Chunk* ahead = &chunks[1]
    cdef Segment segment
    cdef int n
    first = list_chunk(sweep, first, last, now)
    while now.count:
        draw_first(draw, now)
        draw_rest(draw, now)
        first = list_chunk(sweep, first, last, ahead)
        for n in range(now.segments):
            segment = now.segment[n]
            apply_decisions(sweep, segment.first, segment.end, own_bits(now), segment.bit, draw, ahead)
        now, ahead = ahead, now


cdef ptrdiff_t list_chunk(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, Chunk* chunk) noexcept nogil:
    """Make a chunk of as many stretches as it has room for, and return the element after them.

    A stretch that is longer than a chunk is alone in each of its chunks.
    """
    cdef Stretch stretch
    begin_chunk(chunk, True)
    while first < last and chunk.count < CHUNK_BLOCKS:
        stretch = stretch_from(sweep, first, last)
        if chunk.segments and stretch.blocks_left > CHUNK_BLOCKS - chunk.count:
            break
        first = list_segment(sweep, &stretch, first, chunk)
    return first


cdef inline ptrdiff_t list_segment(
    const dropout_sweep* sweep, const Stretch* stretch, ptrdiff_t first, Chunk* chunk
) noexcept nogil:
    """Add the next blocks of a stretch, and the segment that they decide; return the element after it."""
    cdef ptrdiff_t count = min(stretch.blocks_left, CHUNK_BLOCKS)
    cdef Segment* segment = &chunk.segment[chunk.segments]
    segment.first = first
    segment.end = stretch.end
    if count < stretch.blocks_left:     # the next chunk begins at a boundary
        segment.end = boundary_before(sweep, stretch.begin + count * BLOCK)
    segment.bit = chunk.count * BLOCK + (first - stretch.begin)
    list_blocks(chunk, stretch.block, count)
    chunk.segments += 1
    return segment.end


cdef inline void list_blocks(Chunk* chunk, uint64_t block, ptrdiff_t count) noexcept nogil:
    """Add `count` successive blocks of the stream, from `block` on."""
    cdef uint64_t* counters = chunk.counters.word + BLOCK_WORDS * chunk.count
    cdef ptrdiff_t n
    for n in range(count):
        counters[BLOCK_WORDS * n] = block + n
        counters[BLOCK_WORDS * n + 1] = 0
    chunk.count += count


# --- decisions that are given -----------------------------------------------------------------


cdef void sweep_given(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Apply decisions that need no drawing."""
    cdef chunk_words words
    cdef unsigned char* given = <unsigned char*> words.word
    cdef const unsigned char* keep = given
    cdef uint64_t bit = 0
    cdef ptrdiff_t end
    memset(given, 0xFF if sweep.decision == ALL_KEPT else 0, sizeof(words))
    while first < last:
        end = min(boundary_before(sweep, first + CHUNK), last)
        if sweep.decision == SAVED_BITS:
            keep = <const unsigned char*> sweep.saved
            bit = sweep.saved_bit + first
        elif sweep.decision == SAVED_OUTPUT:
            nonzero_bits(sweep.dtype, sweep.saved + first * itemsize(sweep.dtype), end - first, given)
        apply_decisions(sweep, first, end, keep, bit, NULL, NULL)
        first = end


cdef void sweep_zeros(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Write zeros, whatever the elements are."""
    cdef int size = itemsize(sweep.dtype)
    if sweep.mask != NULL:
        clear_bits(sweep.mask, first, last - first)
    if sweep.streaming:
        stream_zeros(sweep.y + first * size, sweep.y + last * size)
    else:
        memset(sweep.y + first * size, 0, (last - first) * size)


cdef inline void stream_zeros(char* y, char* end) noexcept nogil:
    """Write zeros past the cache, from the first to the last whole cache line, and around them as usual."""
    cdef lanes zeros = lanes_fill(FLOAT32, 0)
    cdef ptrdiff_t head = min(<ptrdiff_t> (-<uintptr_t> y % CACHE_LINE), end - y)
    memset(y, 0, head)
    y += head
    while end - y >= CACHE_LINE:
        lanes_stream(FLOAT32, y, zeros)
        y += CACHE_LINE
    memset(y, 0, end - y)


# --- what a kernel offers ---------------------------------------------------------------------


cdef void sweep_range(const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Compute elements first, ..., last - 1 by the loop that suits where their decisions come from."""
    cdef Draw draw
    ensure(0 <= first < last, "a range has an element")
    ensure(0 <= sweep.dtype < ELEMENT_TYPES, "the dtype is known")
    ensure(sweep.x == NULL or sweep.y != NULL, "there is a result where there are elements")
    if sweep.decision == DRAWN:
        start_draw(&draw, sweep.seed[0], sweep.seed[1], sweep.threshold)
        if CHAINED:
            plan_chains(&draw, (last - first) // BLOCK)
        if BITSLICED:
            plan_bitslices(&draw, (last - first) // BLOCK)
        if sweep.stretch:
            sweep_stretches(sweep, first, last, &draw)
        else:
            sweep_drawn(sweep, first, last, &draw)
    elif sweep.decision == GAUSSIAN:
        sweep_gaussian(sweep, first, last)
    elif sweep.decision == NONE_KEPT and sweep.x != NULL and not sweep.row and not form_of(sweep) & GENERAL:
        sweep_zeros(sweep, first, last)
    else:
        sweep_given(sweep, first, last)


cdef dropout_kernel this_kernel
this_kernel.name = NAME
this_kernel.draw_cost = DRAW_COST
this_kernel.normal_cost = NORMAL_COST
this_kernel.sweep_range = sweep_range
this_kernel.finish_streaming = stream_end
this_kernel.add_to_sums = add_to_sums
this_kernel.round_sums = round_sums

kernel = PyCapsule_New(&this_kernel, KERNEL_TAG, NULL)
