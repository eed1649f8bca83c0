"""From a pass to the active kernel: slices, threads and streaming stores.

Nothing below knows a shape, nothing above an instruction set. Compiled for the baseline, and
the only module that is compiled with OpenMP.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from fastdrop.kernels.kernel cimport (
    ALL_KEPT, DRAWN, FLOAT32, FLOAT64, GAUSSIAN, NONE_KEPT, dropout_kernel, dropout_pass,
)

include "bits.pxi"


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
    CHUNK = 4096            # threads meet at multiples of it, where a kernel's chunks and mask bytes end
    SLICE = 1 << 24         # elements between two looks at pending signals: well below half a second
    HOLD_GIL = 1 << 10      # elements that take less time than letting go of the interpreter does
    ONE_THREAD = 1 << 16    # elements below which a second thread does not pay for being woken
    LONG_ROW = 512          # elements that are worth a run of their own

cdef dropout_kernel* kernel = NULL
cdef int threads_set = 0            # 0: what OpenMP says
cdef int default_threads = 1        # at most so many where none are set,
cdef int most_threads = 1           # and so many whatever is set
cdef bint serial = False            # in a forked child, where GNU OpenMP would wait for ever
cdef ptrdiff_t streaming_bytes = 0  # results above this size bypass the cache


cdef int run(dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) except -1:
    """Elements first, ..., last - 1 of a pass, on the active kernel; `shared` may be NULL."""
    cdef ptrdiff_t end
    task.streaming = last - first > HOLD_GIL and can_stream(task, last - first)
    if last - first <= HOLD_GIL:
        run_range(task, shared, first, last)
        return 0
    while first < last:
        end = min(first + SLICE, last)
        with nogil:
            run_slice(task, shared, first, end)
        PyErr_CheckSignals()
        first = end
    return 0


cdef int itemsize(int dtype) noexcept nogil:
    return 8 if dtype == FLOAT64 else 4 if dtype == FLOAT32 else 2


cdef bint can_stream(const dropout_pass* task, ptrdiff_t size) noexcept nogil:
    """Whether the result is larger than the cache, and its elements can be aligned."""
    return size * itemsize(task.dtype) > streaming_bytes and <uintptr_t> task.y % itemsize(task.dtype) == 0


cdef void run_slice(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef ptrdiff_t chunks = (last - first + CHUNK - 1) // CHUNK
    cdef int threads = 1, thread
    if last - first >= ONE_THREAD:
        threads = threads_that_start(min(num_threads(), chunks))
    if threads == 1:
        run_range(task, shared, first, last)
        return
    for thread in prange(threads, schedule="static", num_threads=threads):
        run_range(
            task,
            shared,
            first + chunks * thread // threads * CHUNK,
            min(first + chunks * (thread + 1) // threads * CHUNK, last),
        )


cdef void run_range(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """What one thread does."""
    if shared == NULL:
        kernel.run(task, first, last)
    elif task.decision == DRAWN or task.decision == GAUSSIAN:
        run_tile(task, shared, first, last)
    elif shared.length >= LONG_ROW:
        run_long_rows(task, shared, first, last)
    else:
        run_short_rows(task, shared, first, last)
    if task.streaming:
        kernel.finish()


# --- decisions that do not lie side by side ----------------------------------------------------


cdef uint64_t row_offset(const rows* shared, ptrdiff_t row, int axes) noexcept nogil:
    """Where the decisions of a row begin, told from its index on the first `axes` axes."""
    cdef uint64_t offset = 0
    cdef int axis = axes - 1
    while axis >= 0:
        offset += <uint64_t> (row % shared.count[axis]) * shared.stride[axis]
        row //= shared.count[axis]
        axis -= 1
    return offset


cdef void run_tile(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Rows of the stream, as many together as lie at equal distances."""
    cdef dropout_pass part = task[0]
    cdef ptrdiff_t size = shared.length * shared.count[shared.axes - 1]
    cdef ptrdiff_t index, end
    part.row = shared.length
    part.jump = shared.stride[shared.axes - 1] - shared.length
    while first < last:
        index = first // size
        end = min((index + 1) * size, last)
        # The kernel counts elements and jumps from element 0.
        part.position = task.position + row_offset(shared, index, shared.axes - 1) - (
            <uint64_t> (index * shared.count[shared.axes - 1]) * <uint64_t> shared.stride[shared.axes - 1])
        kernel.run(&part, first, end)
        first = end


cdef void run_long_rows(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Row by row; one that is dropped as a whole is not read."""
    cdef dropout_pass part = task[0]
    cdef ptrdiff_t row, end
    cdef uint64_t bit
    while first < last:
        row = first // shared.length
        end = min((row + 1) * shared.length, last)
        bit = task.saved_bit + row_offset(shared, row, shared.axes)
        if shared.uniform:
            part.decision = ALL_KEPT if is_set(task.saved, bit) else NONE_KEPT
        else:
            part.saved_bit = bit - row * shared.length
        kernel.run(&part, first, end)
        first = end


cdef void run_short_rows(const dropout_pass* task, const rows* shared, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """A chunk of decisions is laid side by side, then applied."""
    cdef uint64_t bits[CHUNK / 64]
    cdef dropout_pass part = task[0]
    cdef ptrdiff_t row, end, stop, element
    cdef uint64_t bit
    part.saved = <const char*> bits
    while first < last:
        end = min(first + CHUNK, last)
        memset(bits, 0, sizeof(bits))
        element = first
        while element < end:
            row = element // shared.length
            stop = min((row + 1) * shared.length, end)
            bit = task.saved_bit + row_offset(shared, row, shared.axes)
            if not shared.uniform:
                bit += element - row * shared.length
            spread_bits(bits, element - first, stop - element, task.saved, bit, shared.uniform)
            element = stop
        part.saved_bit = -<uint64_t> first
        kernel.run(&part, first, end)
        first = end


cdef inline bint is_set(const char* bits, uint64_t index) noexcept nogil:
    return bits[index >> 3] >> (index & 7) & 1


cdef inline void spread_bits(
    uint64_t* to, ptrdiff_t first, ptrdiff_t count, const char* bits, uint64_t bit, bint uniform
) noexcept nogil:
    """Set those of `count` bits whose decision, or whose common decision, is set."""
    cdef ptrdiff_t some
    if uniform and not is_set(bits, bit):
        return
    while count:
        some = min(count, 64 - (first & 63), 63)
        to[first >> 6] |= (
            low_bits(some) if uniform else load_part(<const unsigned char*> bits, bit, some)) << (first & 63)
        first += some
        bit += some
        count -= some


# --- sums over columns ------------------------------------------------------------------------


cdef int run_columns(
    dropout_pass* task, const rows* shared, const columns* to, ptrdiff_t first, ptrdiff_t last
) except -1:
    """As `run`, and the results are added up by column, strip by strip, while they are in the cache."""
    cdef ptrdiff_t end, strip, strips, strip_size = to.strip * to.row
    cdef int threads
    task.streaming = False
    while first < last:
        end = min(first + SLICE, last)
        strips = (end - 1) // strip_size + 1 - first // strip_size
        threads = threads_that_start(min(num_threads(), strips)) if end - first >= ONE_THREAD else 1
        with nogil:
            for strip in prange(
                first // strip_size, (end - 1) // strip_size + 1, schedule="static", num_threads=threads
            ):
                run_strip(task, shared, to, max(first, strip * strip_size), min(end, (strip + 1) * strip_size))
        PyErr_CheckSignals()
        first = end
    return 0


cdef void run_strip(
    const dropout_pass* task, const rows* shared, const columns* to, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    cdef double* sums = to.sums + first // (to.strip * to.row) * to.row
    cdef ptrdiff_t end, column, some
    while first < last:
        end = min(first + CHUNK, last)
        run_range(task, shared, first, end)
        while first < end:
            column = first % to.row
            some = min(to.row - column, end - first)
            kernel.add(task.dtype, task.y + first * itemsize(task.dtype), sums + column, some)
            first += some


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


def set_kernel(capsule):
    """Make the kernel of an instruction set's module the active one."""
    global kernel
    kernel = <dropout_kernel*> PyCapsule_GetPointer(capsule, "fastdrop.kernel")


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
