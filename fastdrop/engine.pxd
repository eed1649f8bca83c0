# What the modules of public calls are made of.

from fastdrop.mask cimport Mask

cdef tuple forward(
    x, keep_prob, mode, rng, out, return_mask, bint relu, bias=*, residual=*, broadcast_dims=*
)
cdef backward(dy, saved, keep_prob, mode, bias_grad, out)
cdef predict(x, keep_prob, mode, out, bint relu, bias=*, residual=*)
cdef int multiply(x, noise, y) except -1
cdef Mask keep_mask(shape, keep_prob, shared, rng)
