# This declares float_mode.h to Cython.

cdef extern from "float_mode.h" nogil:
    ctypedef struct float_mode:
        pass
    # Returns the mode that the thread was in.
    float_mode enter_default_mode() noexcept
    void leave_default_mode(float_mode mode) noexcept
