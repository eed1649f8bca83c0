# float_mode.h as Cython sees it.

cdef extern from "float_mode.h" nogil:
    ctypedef struct float_mode:
        pass
    float_mode enter_default_mode() noexcept    # the mode that the thread was in
    void leave_default_mode(float_mode mode) noexcept
