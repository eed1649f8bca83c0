# What the modules of public calls are made of.

from fastdrop.mask cimport Mask

cdef forward(
    x, keep_prob, mode, rng, out, return_mask, bint relu, bias=*, residual=*, broadcast_dims=*
)
cdef backward(dy, saved, keep_prob, mode, bias_grad, out)
cdef predict(x, keep_prob, mode, out, bint relu, bias=*, residual=*)
cdef gaussian_forward(x, keep_prob, rng, out)
cdef gaussian_backward(dy, noise, out)
cdef Mask keep_mask(shape, keep_prob, broadcast_dims, rng)
