# A layout says where the decisions on an array lie. layout.pyx builds and expands it.

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t

from fastdrop.kernels.sweep cimport dropout_kernel, dropout_sweep

cdef enum:
    MAX_AXES = 64   # NumPy allows no more.

# Element n of an array, in C order, has an index on each axis. Its decision lies
#     sum of count[k]'s index * stride[k], over the axes before the last, + (0 if uniform else the last index)
# after the first element's, modulo 2**64. This counts positions of a stream, or bits of a mask. Elements with successive
# indices on the last axis are a stretch: their decisions are side by side, or they have one in common.
#
# Invariants: length >= 1, count[k] >= 2, and length * count[0] * ... is the number of elements. No two axes could
# be one: stride[k] differs from count[k + 1] * stride[k + 1], and the last of them from what a stretch covers.
ctypedef struct Layout:
    # The number of elements of a stretch.
    ptrdiff_t length
    # Whether the elements of a stretch have one decision in common.
    bint uniform
    # The number of axes before the last.
    int axes
    # Their lengths.
    ptrdiff_t count[MAX_AXES]
    # The number of decisions from one index to the next.
    uint64_t stride[MAX_AXES]

# Build the layout of decisions that are `strides` apart on the axes of `shape`. Return False where they are simply side
# by side: a sweep then needs no layout.
cdef bint lay_out(Layout* layout, tuple shape, tuple strides) except -1

# Compute elements first, ..., last - 1 of a sweep whose decisions lie as `layout` says. Where they are drawn, no stretch
# is uniform, because elements that share a decision draw it once, into a mask.
cdef void sweep_by_layout(
    const dropout_kernel* kernel, const dropout_sweep* sweep, const Layout* layout, ptrdiff_t first, ptrdiff_t last
) noexcept nogil
