# A public function whose arguments do not fit raises an error that names the right word (usage.py). Its vectorcall
# pointer (PEP 590) leads to `call_explained`, which costs a right call one jump. inspect.signature and type checkers
# see the function as it is.

cdef extern from "Python.h":
    ctypedef struct TypeObject "PyTypeObject":
        Py_ssize_t tp_vectorcall_offset
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    vectorcallfunc PyVectorcall_Function(PyObject*)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    int PyErr_ExceptionMatches(PyObject*)
    void PyErr_Fetch(PyObject**, PyObject**, PyObject**)
    void PyErr_Restore(PyObject*, PyObject*, PyObject*)

# How Cython's functions parse their arguments and run. It is the same for all public functions.
cdef vectorcallfunc parse_and_run = NULL


cdef explain_errors(tuple functions):
    """Let compiled functions explain which arguments they need, where those of a call do not fit."""
    global parse_and_run
    cdef vectorcallfunc* pointer
    cdef Py_ssize_t offset
    for function in functions:
        offset = (<TypeObject*> Py_TYPE(function)).tp_vectorcall_offset
        pointer = <vectorcallfunc*> (<char*> <PyObject*> function + offset)
        if parse_and_run == NULL:
            parse_and_run = PyVectorcall_Function(<PyObject*> function)
        if pointer[0] == NULL or pointer[0] != parse_and_run:
            raise SystemError(f"{function.__name__} must be called as the other functions are")
        pointer[0] = call_explained


cdef PyObject* call_explained(
    PyObject* function, PyObject* const* arguments, size_t count, PyObject* names
) noexcept:
    cdef PyObject* returned = parse_and_run(function, arguments, count, names)
    if returned == NULL and PyErr_ExceptionMatches(<PyObject*> TypeError):
        explain(function, arguments, PyVectorcall_NARGS(count), names)
    return returned


cdef void explain(PyObject* function, PyObject* const* arguments, Py_ssize_t count, PyObject* names) noexcept:
    """Replace the error that is set, if it says that the arguments do not fit."""
    cdef PyObject* kind = NULL
    cdef PyObject* value = NULL
    cdef PyObject* traceback = NULL
    cdef Py_ssize_t n
    PyErr_Fetch(&kind, &value, &traceback)
    wrong = None
    try:
        args = []
        for n in range(count):
            args.append(<object> arguments[n])
        kwargs = {}
        for word in (() if names == NULL else <tuple> names):
            kwargs[word] = <object> arguments[count]
            count += 1
        wrong = wrong_call(<object> function, tuple(args), kwargs)
    except Exception:
        pass                        # Python's own error stays
    if wrong is not None:
        Py_XDECREF(kind)
        Py_XDECREF(value)
        Py_XDECREF(traceback)
        kind, value, traceback = <PyObject*> TypeError, <PyObject*> wrong, NULL
        Py_INCREF(TypeError)
        Py_INCREF(wrong)
    PyErr_Restore(kind, value, traceback)
