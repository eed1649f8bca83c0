# The gate of a call: every array that the kernel will touch is measured once, by its C fields, and compared with
# what was prepared. After the gate nothing allocates and nothing fails.


cdef int seal(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """Point the sweep at its arrays, if each still is what the call was prepared for. `name` is that of `x`."""
    cdef int dtype = element_type(y)
    cdef ptrdiff_t room
    check_array(call, "out", y, dtype)
    check_array(call, name, x, dtype)
    check_array(call, "saved", saved, dtype)
    check_array(call, "residual", residual, dtype)
    if not cnp.PyArray_ISWRITEABLE(y) or overlaps_itself(y):
        raise changed("out")
    if call.bias_length >= 0 and (call.bias_type != dtype or call.bias_length != call.lengths[call.axes - 1]):
        raise changed("bias")
    if conflicts(x, y) or conflicts(saved, y) or conflicts(residual, y):
        raise changed("out")
    call.sweep.dtype = dtype
    room = call.strided.piece if call.plan.room != NULL else 0
    if point(call, x, y, saved, residual):
        if call.strided.piece > room:
            raise changed(name)
        call.plan.strided = &call.strided
    return 0


cdef int check_seal(
    Call* call, name, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual
) except -1:
    """Compare again after a signal handler could run: every array has to be where it was."""
    cdef dropout_sweep sweep = call.sweep
    cdef Strided strided = call.strided
    if y is None:
        return 0
    seal(call, name, x, y, saved, residual)
    if memcmp(&sweep, &call.sweep, sizeof(sweep)) or (
        call.plan.strided != NULL and memcmp(&strided, &call.strided, sizeof(strided))
    ):
        raise changed(name)
    return 0


cdef inline int check_array(const Call* call, name, cnp.ndarray array, int dtype) except -1:
    if array is not None and not (
        type(array) is cnp.ndarray and dtype >= 0 and element_type(array) == dtype and has_lengths(array, call)
    ):
        raise changed(name)
    return 0


cdef inline bint has_lengths(cnp.ndarray array, const Call* call) noexcept:
    cdef int axis
    if cnp.PyArray_NDIM(array) != call.axes:
        return False
    for axis in range(call.axes):
        if cnp.PyArray_DIM(array, axis) != call.lengths[axis]:
            return False
    return True


cdef changed(name):
    return RuntimeError(
        f"{name} must stay as it is while a call is under way, got an array that a callback or another thread has "
        "changed"
    )


cdef bint point(Call* call, cnp.ndarray x, cnp.ndarray y, cnp.ndarray saved, cnp.ndarray residual) noexcept:
    """Point the sweep at the arrays. Where it takes them in pieces, describe them and return True."""
    cdef dropout_sweep* sweep = &call.sweep
    cdef Strided* strided = &call.strided
    cdef int axis
    sweep.x = cnp.PyArray_BYTES(x)
    sweep.y = cnp.PyArray_BYTES(y)
    sweep.row = sweep.x_gap = sweep.y_gap = sweep.residual_gap = 0     # what an earlier look found may have changed
    if saved is not None:
        sweep.saved = cnp.PyArray_BYTES(saved)
    if residual is not None:
        sweep.residual = cnp.PyArray_BYTES(residual)
    if all_plain(x, y, saved, residual):
        return False
    strided.axes = cnp.PyArray_NDIM(y)
    for axis in range(strided.axes):
        strided.count[axis] = cnp.PyArray_DIM(y, axis)
    point_operand(&strided.x, x)
    point_operand(&strided.y, y)
    point_operand(&strided.saved, saved)
    point_operand(&strided.residual, residual)
    return not hand_over(strided, sweep, call.columns.row if call.plan.columns != NULL else 0)


cdef void point_operand(Operand* operand, cnp.ndarray array) noexcept:
    cdef int axis
    operand.data = NULL
    if array is None or is_plain(array):
        return
    operand.data = cnp.PyArray_BYTES(array)
    operand.swapped = not cnp.PyArray_ISNOTSWAPPED(array)
    for axis in range(cnp.PyArray_NDIM(array)):
        operand.stride[axis] = cnp.PyArray_STRIDE(array, axis)
