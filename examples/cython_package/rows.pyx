"""A loop in Cython: ReLU and dropout row by row, without the GIL and without Python objects."""

cimport fastdrop


def relu_dropout_rows(const float[:, ::1] x, float[:, ::1] y, double keep_prob, seed, offset=0):
    """Write ReLU and dropout of each row of `x` to `y`. A row starts in the stream where the last ended."""
    cdef fastdrop.fastdrop_stream stream
    cdef Py_ssize_t row
    cdef fastdrop.fastdrop_status status = fastdrop.OK
    if x.shape[0] != y.shape[0] or x.shape[1] != y.shape[1]:
        raise ValueError("y must have the shape of x")
    stream.seed[0] = seed & 0xFFFFFFFFFFFFFFFF
    stream.seed[1] = seed >> 64
    stream.offset = offset
    if x.shape[0] == 0 or x.shape[1] == 0:
        return
    with nogil:
        for row in range(x.shape[0]):
            status = fastdrop.forward(
                fastdrop.FLOAT32, True, &x[row, 0], &y[row, 0], NULL, x.shape[1],
                keep_prob, 1 / keep_prob, &stream,
            )
            if status != fastdrop.OK:
                break
            stream.offset += x.shape[1]
    if status != fastdrop.OK:
        raise ValueError(fastdrop.status_text(status).decode())
