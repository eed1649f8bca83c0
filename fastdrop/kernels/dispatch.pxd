from libc.stddef cimport ptrdiff_t

from fastdrop.kernels.kernel cimport dropout_pass

cdef int run(dropout_pass* task, ptrdiff_t size) except -1
