# A public function whose arguments do not fit raises an error that names the right word (usage.py). Its vectorcall
# pointer (PEP 590) leads to a function here, which costs a right call one jump. inspect.signature and type checkers
# see the function as it is.

cdef extern from "Python.h":
    ctypedef PyObject* (*vectorcallfunc)(PyObject*, PyObject* const*, size_t, PyObject*) noexcept
    vectorcallfunc PyVectorcall_Function(PyObject*)
    Py_ssize_t PyVectorcall_NARGS(size_t)
    bint PyFunction_Check(object)
    int PyErr_ExceptionMatches(PyObject*)
    void PyErr_Fetch(PyObject**, PyObject**, PyObject**)
    void PyErr_Restore(PyObject*, PyObject*, PyObject*)

cdef extern from *:
    """
    static void set_vectorcall(PyObject *function, vectorcallfunc call)
    {
    #if PY_VERSION_HEX >= 0x030C0000
        if (PyFunction_Check(function)) {
            PyFunction_SetVectorcall((PyFunctionObject *)function, call);
            return;
        }
    #endif
        *(vectorcallfunc *)((char *)function + Py_TYPE(function)->tp_vectorcall_offset) = call;
    }
    """
    void set_vectorcall(object function, vectorcallfunc call)

# How Cython's and Python's functions parse their arguments and run. It is the same for all functions of a kind.
cdef vectorcallfunc run_compiled = NULL
cdef vectorcallfunc run_python = NULL


def explained(function):
    """Let a function explain which arguments it needs, where those of a call do not fit.

    A Python function has to be a method that Python itself calls, such as __init__ or __call__: Python 3.11 runs others
    without a look at their pointer.
    """
    global run_compiled, run_python
    cdef vectorcallfunc now = PyVectorcall_Function(<PyObject*> function)
    if PyFunction_Check(function):
        run_python = known(run_python, now, function)
        set_vectorcall(function, python_call_explained)
    else:
        run_compiled = known(run_compiled, now, function)
        set_vectorcall(function, call_explained)
    return function


cdef vectorcallfunc known(vectorcallfunc run, vectorcallfunc now, function) except NULL:
    """How functions of a kind run, which must be how this one does."""
    if now == NULL or (run != NULL and now != run):
        raise SystemError(f"{function.__name__} must be called as the other functions are")
    return now


cdef PyObject* call_explained(
    PyObject* function, PyObject* const* arguments, size_t count, PyObject* names
) noexcept:
    cdef PyObject* returned = run_compiled(function, arguments, count, names)
    if returned == NULL and PyErr_ExceptionMatches(<PyObject*> TypeError):
        explain(function, arguments, PyVectorcall_NARGS(count), names)
    return returned


cdef PyObject* python_call_explained(
    PyObject* function, PyObject* const* arguments, size_t count, PyObject* names
) noexcept:
    cdef PyObject* returned = run_python(function, arguments, count, names)
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
