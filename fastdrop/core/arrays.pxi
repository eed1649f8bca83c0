# What an array is to a kernel, by its C fields alone: its element type, its memory, and whether it is plain.

cdef extern from "numpy/arrayobject.h":
    enum:
        NPY_USERDEF     # the first type number that is not NumPy's own

cdef int bfloat16_type = -1     # NumPy's type number of bfloat16; -1 before one has been seen


cdef inline int element_type(cnp.ndarray array) noexcept:
    """The kernel's number for an array's dtype, or -1."""
    cdef int number = cnp.PyArray_TYPE(array)
    if number == cnp.NPY_FLOAT32:
        return FLOAT32
    if number == cnp.NPY_FLOAT64:
        return FLOAT64
    if number == cnp.NPY_FLOAT16:
        return FLOAT16
    return user_element_type(array, number) if number >= NPY_USERDEF else -1


cdef int user_element_type(cnp.ndarray array, int number) noexcept:
    global bfloat16_type
    if bfloat16_type < 0 and checks.is_bfloat16((<object> array).dtype):
        bfloat16_type = number
    return BFLOAT16 if number == bfloat16_type else -1


cdef inline bint is_plain(cnp.ndarray array) noexcept:
    """Whether a kernel takes this array as it is."""
    return (
        type(array) is cnp.ndarray
        and element_type(array) >= 0
        and cnp.PyArray_IS_C_CONTIGUOUS(array)
        and cnp.PyArray_ISNOTSWAPPED(array)
    )


cdef inline bint all_plain(cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual) noexcept:
    """Whether a kernel takes all the arrays of a call as they are; the last two may be None."""
    return (
        is_plain(x)
        and is_plain(y)
        and (saved is None or is_plain(saved))
        and (residual is None or is_plain(residual))
    )


cdef inline bint conflicts(cnp.ndarray array, cnp.ndarray y) noexcept:
    """Whether writing `y` element by element may change what is still to be read of an array."""
    cdef uintptr_t low = 0, high = 0, y_low = 0, y_high = 0
    if array is None:
        return False
    find_extent(array, &low, &high)
    find_extent(y, &y_low, &y_high)
    return low < y_high and y_low < high and low < high and not same_place(array, y)


cdef inline void find_extent(cnp.ndarray array, uintptr_t* low, uintptr_t* high) noexcept:
    """Find the first byte of the elements, and the byte after the last."""
    cdef int axis
    cdef ptrdiff_t reach
    low[0] = high[0] = <uintptr_t> cnp.PyArray_BYTES(array)
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        high[0] += cnp.PyArray_NBYTES(array)
        return
    for axis in range(cnp.PyArray_NDIM(array)):
        reach = (cnp.PyArray_DIM(array, axis) - 1) * cnp.PyArray_STRIDE(array, axis)
        if reach < 0:
            low[0] += reach
        else:
            high[0] += reach
    high[0] += cnp.PyArray_ITEMSIZE(array)


cdef inline bint same_place(cnp.ndarray array, cnp.ndarray y) noexcept:
    """Whether each element of an array lies where the element of `y` with the same index lies."""
    cdef int axis, ndim = cnp.PyArray_NDIM(y)
    if cnp.PyArray_BYTES(array) != cnp.PyArray_BYTES(y) or cnp.PyArray_NDIM(array) != ndim:
        return False
    for axis in range(ndim):
        if cnp.PyArray_DIM(array, axis) != cnp.PyArray_DIM(y, axis):
            return False
        if cnp.PyArray_DIM(y, axis) > 1 and cnp.PyArray_STRIDE(array, axis) != cnp.PyArray_STRIDE(y, axis):
            return False
    return True


cdef bint overlaps_itself(cnp.ndarray array) noexcept:
    """Whether two elements may share memory: some axis steps within the reach of the shorter steps."""
    cdef cnp.npy_intp stride[MAX_AXES]
    cdef cnp.npy_intp length[MAX_AXES]
    cdef cnp.npy_intp step, reach = cnp.PyArray_ITEMSIZE(array)
    cdef int axis, place, axes = 0
    if cnp.PyArray_IS_C_CONTIGUOUS(array):
        return False
    for axis in range(cnp.PyArray_NDIM(array)):
        if cnp.PyArray_DIM(array, axis) == 1:
            continue
        step = abs(cnp.PyArray_STRIDE(array, axis))
        place = axes
        while place > 0 and stride[place - 1] > step:
            stride[place], length[place] = stride[place - 1], length[place - 1]
            place -= 1
        stride[place], length[place] = step, cnp.PyArray_DIM(array, axis)
        axes += 1
    for axis in range(axes):
        if stride[axis] < reach:
            return True
        reach += stride[axis] * (length[axis] - 1)
    return False
