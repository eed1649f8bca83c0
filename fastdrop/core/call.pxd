# The common part of the public calls; functional.py documents them.

from fastdrop.mask cimport Mask

cdef forward(
    x_like, keep_prob, mode, rng, out, return_mask, bint relu, bias=*, residual_like=*, broadcast_dims=*
)
cdef backward(dy_like, name, saved, keep_prob, mode, bias_grad, out)
cdef predict(x_like, keep_prob, mode, out, bint relu, bias=*, residual_like=*)
cdef gaussian_forward(x_like, keep_prob, rng, out)
cdef gaussian_backward(dy_like, noise, out)
cdef Mask keep_mask(shape, keep_prob, broadcast_dims, rng)
