"""From a plan to the active kernel: slices, threads, pieces of strided arrays and streaming stores.

Nothing below knows a shape, nothing above an instruction set. Compiled for the baseline, and
the only module that is compiled with OpenMP.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cython.parallel cimport prange
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uintptr_t

from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.kernels.sweep cimport BUILD_TAG, KERNEL_TAG, UNIT, dropout_kernel, dropout_sweep, ensure, itemsize
from fastdrop.core.layout cimport sweep_by_layout
from fastdrop.core.strided cimport PIECE, gather, room_for, scatter

from fastdrop.core import layout, strided


cdef extern from "cpu_features.h":
    bint cpu_has(const char* name) nogil

cdef extern from "openmp.h":
    const int WITH_OPENMP
    int omp_get_max_threads() nogil
    int threads_that_start(int wanted) nogil
    void register_fork_handler(void (*child)() noexcept nogil)

cdef extern from *:
    """
    #if defined(__VERSION__)
    #define COMPILER __VERSION__
    #else
    #define COMPILER "unknown"
    #endif
    """
    const char* BUILT "FASTDROP_KERNELS"
    const char* COMPILER

cdef enum:
    SLICE = 1 << 24         # elements between two looks at pending signals: well below half a second
    SHORT = 1 << 10         # elements that take less time than letting go of the interpreter does

cdef str REBUILD = "fastdrop's compiled modules come from different builds, so install or build it anew"

cdef dropout_kernel* kernel = NULL
cdef int threads_set = 0                # 0: as many as by default
cdef int default_threads = 1            # at most so many where none are set,
cdef int most_threads = 1               # and so many whatever is set
cdef ptrdiff_t thread_work = 1 << 15    # elements that pay for waking a thread
cdef bint serial = False                # in a forked child, where GNU OpenMP would wait for ever
cdef ptrdiff_t streaming_bytes = 0      # results above this size bypass the cache


# --- slices and threads -----------------------------------------------------------------------


cdef int threads_for(ptrdiff_t size) noexcept nogil:
    return 1 if size <= SHORT else max(min(num_threads(), size // thread_work), 1)


cdef bint run_short(const Plan* plan) noexcept nogil:
    if plan.size > SHORT:
        return False
    if plan.size:
        run_on_thread(plan, 0, 0, plan.size)
    finish(plan)
    return True


cdef void begin(Plan* plan) noexcept nogil:
    ensure(plan.columns == NULL or plan.sweep.mask == NULL, "strips, which end anywhere in a byte, have no mask")
    plan.sweep.streaming = plan.strided == NULL and plan.columns == NULL and can_stream(plan)


cdef bint can_stream(const Plan* plan) noexcept nogil:
    """Whether the result is larger than the cache, and its elements can be aligned."""
    cdef int size = itemsize(plan.sweep.dtype)
    return plan.sweep.y != NULL and plan.size * size > streaming_bytes and <uintptr_t> plan.sweep.y % size == 0


cdef ptrdiff_t unit_of(const Plan* plan) noexcept nogil:
    """Threads meet at multiples of so many elements: where bytes of the mask end, or strips of rows."""
    return UNIT if plan.columns == NULL else plan.columns.strip * plan.columns.row


cdef ptrdiff_t run_slice(const Plan* plan, ptrdiff_t first) noexcept nogil:
    cdef ptrdiff_t unit = unit_of(plan)
    cdef ptrdiff_t units = min(max(SLICE // unit, plan.threads), (plan.size - first + unit - 1) // unit)
    cdef ptrdiff_t last = min(first + units * unit, plan.size)
    cdef int threads = min(plan.threads, units), thread
    ensure(first % unit == 0, "slices, and so threads, meet at units")
    if threads > 1:
        threads = threads_that_start(threads)
    if threads == 1:
        run_on_thread(plan, 0, first, last)
        return last
    for thread in prange(threads, schedule="static", num_threads=threads):
        run_by_default(
            plan,
            thread,
            first + units * thread // threads * unit,
            min(first + units * (thread + 1) // threads * unit, last),
        )
    return last


cdef void run_by_default(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """What one of several threads does, in the default floating-point mode."""
    cdef float_mode mode = enter_default_mode()
    run_on_thread(plan, thread, first, last)
    leave_default_mode(mode)


cdef void run_on_thread(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Elements from one unit's beginning to another's, or to the last."""
    if plan.strided != NULL or plan.columns != NULL:
        run_pieces(plan, thread, first, last)
    elif plan.layout != NULL:
        sweep_by_layout(kernel, plan.sweep, plan.layout, first, last)
    else:
        kernel.sweep_range(plan.sweep, first, last)
    if plan.sweep.streaming:
        kernel.finish_streaming()


cdef void run_pieces(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """A piece at a time, which is in the cache when it is copied or added up."""
    cdef dropout_sweep part = plan.sweep[0]
    cdef char* room = NULL
    cdef ptrdiff_t end
    if plan.strided != NULL:
        room = plan.room + thread * room_for(itemsize(part.dtype), plan.strided.piece)
    while first < last:
        end = min(first + PIECE, last)
        if plan.strided != NULL:
            gather(plan.strided, &part, first, end, room)
        if plan.layout != NULL:
            sweep_by_layout(kernel, &part, plan.layout, first, end)
        else:
            kernel.sweep_range(&part, first, end)
        if plan.columns != NULL:
            add_columns(plan.columns, &part, first, end)
        if plan.strided != NULL:
            scatter(plan.strided, &part, first, end)
        first = end


# --- sums over columns ------------------------------------------------------------------------


cdef void add_columns(const Columns* columns, const dropout_sweep* part, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Results first, ..., last - 1 are added to the sums of their strips, row by row."""
    cdef double* sums
    cdef ptrdiff_t row, column, some
    while first < last:
        row = first // columns.row
        column = first - row * columns.row
        some = min(columns.row - column, last - first)
        sums = columns.sums + row // columns.strip * columns.row
        kernel.add_to_sums(part.dtype, part.y + first * itemsize(part.dtype), sums + column, some)
        first += some


cdef void finish(const Plan* plan) noexcept nogil:
    """The strips are added up in order, which no thread changes."""
    cdef const Columns* columns = plan.columns
    cdef ptrdiff_t strip, column
    cdef double total
    if columns == NULL:
        return
    for column in range(columns.row):
        total = 0
        for strip in range(columns.strips):
            total += columns.sums[strip * columns.row + column]
        columns.sums[column] = total
    kernel.round_sums(plan.sweep.dtype, columns.sums, columns.total, columns.row)


# --- settings ---------------------------------------------------------------------------------


cdef int num_threads() noexcept nogil:
    if serial or not WITH_OPENMP:
        return 1
    return min(threads_set, most_threads) if threads_set else min(omp_get_max_threads(), default_threads)


def get_num_threads():
    return num_threads()


def set_num_threads(int count):
    global threads_set
    threads_set = count


def set_thread_limits(int default_limit, int most):
    """How many threads a call uses at most where no number is set, and where one is."""
    global default_threads, most_threads
    default_threads = default_limit
    most_threads = most


cdef void run_serially() noexcept nogil:
    """One thread from now on: after a fork the threads of a GNU OpenMP team are gone, and a child would
    wait for them for ever."""
    global serial
    serial = True


def set_thread_work(ptrdiff_t elements):
    """How many elements a thread gets at least; tests let small arrays have threads."""
    global thread_work
    thread_work = elements


def set_kernel(capsule):
    """Make the kernel of an instruction set's module the active one.

    Raises
    ------
    ImportError
        If the kernel was compiled with another sweep.h than this module, which a structure of it
        would then be read by.
    """
    global kernel
    if not PyCapsule_IsValid(capsule, KERNEL_TAG):
        raise ImportError(f"{capsule!r} is not of this build, {KERNEL_TAG.decode()!r}: {REBUILD}")
    kernel = <dropout_kernel*> PyCapsule_GetPointer(capsule, KERNEL_TAG)


def same_build(bytes tag, module):
    """Refuse a `module` that was compiled with other C structures than this one."""
    if tag != BUILD_TAG:
        raise ImportError(f"{module} is of build {tag.decode()!r}, not {BUILD_TAG.decode()!r}: {REBUILD}")


def active():
    """The name of the active kernel, as the kernel itself says it."""
    return kernel.name.decode()


def set_streaming_bytes(ptrdiff_t count):
    global streaming_bytes
    streaming_bytes = count


def supports(name):
    """Whether the CPU and the operating system support an instruction set."""
    return name == "generic" or cpu_has(name.encode())


built = BUILT.decode().split()      # the instruction sets that setup.py compiled kernels for
openmp = bool(WITH_OPENMP)
register_fork_handler(run_serially)
compiler = COMPILER.decode()

for module in (layout, strided):
    same_build(module.build_tag, module.__name__)
