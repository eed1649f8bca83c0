# Where the decisions on an array lie; layout.pyx builds and expands it.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t

from fastdrop.kernels.sweep cimport dropout_kernel, dropout_sweep

cdef enum:
    MAX_AXES = 64   # NumPy's own limit

# Element n of an array, in C order, has an index on each axis. Its decision lies
#     sum of count[k]'s index * stride[k], over the axes before the last, + (0 if uniform else the last index)
# after the first element's, modulo 2**64: positions of a stream, or bits of a mask. What has successive indices on
# the last axis is a stretch: its decisions are side by side, or it has one in common.
#
# Invariants: length >= 1, count[k] >= 2, and length * count[0] * ... is the number of elements. No two axes could
# be one: stride[k] differs from count[k + 1] * stride[k + 1], and the last of them from what a stretch covers.
ctypedef struct Layout:
    ptrdiff_t length            # elements of a stretch
    bint uniform                # whether a stretch has one decision in common
    int axes                    # those before the last
    ptrdiff_t count[MAX_AXES]
    uint64_t stride[MAX_AXES]   # decisions from one index to the next

# Lay out decisions that are `strides` apart on the axes of `shape`. False where they are simply side by side, in
# which case a pass needs no layout.
cdef bint lay_out(Layout* layout, tuple shape, tuple strides) except -1

# Elements first, ..., last - 1 of a pass whose decisions lie as `layout` says. Where they are drawn no stretch is
# uniform, as elements that share a decision draw it once, into a mask.
cdef void run_range(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil
