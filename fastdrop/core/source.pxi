# Where the decisions of a call come from: the positions of a stream, or of a block in one.


@cython.final
@cython.no_gc       # it holds nothing that refers back to it
@cython.freelist(8)
cdef class Source:
    """The positions that one call draws at."""
    cdef Stream stream      # the stream that advances; None for a Tile, which says where it lies
    cdef object count       # the positions that the call reserves
    cdef object key         # the seed
    cdef uint64_t seed[2]   # its lower and upper half
    cdef object first       # the first position, counted from the reserved ones
    cdef uint64_t start     # the same, modulo 2**64; from `reserve` on, in the stream
    cdef tuple strides      # positions between decisions on each axis; None where decisions are adjacent


cdef Source source_of(rng, tuple shape, tuple shared, ptrdiff_t decisions):
    """The source that `rng` stands for, in a call on `shape` that takes so many decisions."""
    cdef Source source = Source.__new__(Source)
    if type(rng) is not Stream:
        rng = as_source(rng)
    if isinstance(rng, Stream):
        source.stream = rng
        source.count = decisions
        source.first = source.start = 0
    else:
        source.count, source.first, source.strides = rng.place(shape, shared)
        source.start = PyLong_AsUnsignedLongLongMask(source.first)
        if type(rng) is StreamRows:
            source.stream = (<StreamRows> rng)._stream
    if source.stream is None:
        source.key = rng.seed
    else:
        source.stream._known()
        source.key = source.stream._seed
    set_seed(source.seed, source.key)
    return source


cdef inline int set_seed(uint64_t* words, key) except -1:
    """Set the lower and the upper half of a seed. Most seeds are short, and have no upper half to compute."""
    cdef int overflow
    words[0], words[1] = PyLong_AsLongLongAndOverflow(key, &overflow), 0
    if overflow:
        words[0], words[1] = PyLong_AsUnsignedLongLongMask(key), key >> 64
    return 0


cdef inline int reserve(Source source) except -1:
    """Advance the stream. This is the last step of a call that can raise."""
    if source.stream is not None:
        source.start += PyLong_AsUnsignedLongLongMask(source.stream._take(source.count))
    return 0


cdef noise_at(Source source, offset, tuple shape, keep_prob):
    """The noise of a call, if its stream is at `offset`."""
    if source.stream is not None and offset + source.count > POSITIONS:
        source.stream._take(source.count)   # this raises the error that the stream has too few positions
    return noise_of(source.key, offset + source.first, shape, keep_prob, source.strides)
