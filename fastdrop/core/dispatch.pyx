"""From a plan to the active kernel: in slices, on threads, piece by piece where arrays are strided.

A slice is what runs between two looks at pending signals. Its threads meet at multiples of a unit. The time that a
call takes is decided here; its result does not depend on anything here.

This module is compiled for the baseline, and it is the only one that is compiled with OpenMP.
"""

from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_IsValid
from cython.parallel cimport prange
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uintptr_t

from fastdrop.core.float_mode cimport enter_default_mode, float_mode, leave_default_mode
from fastdrop.core.layout cimport sweep_by_layout
from fastdrop.core.strided cimport end_of_piece, gather, room_for, scatter
from fastdrop.kernels.sweep cimport (
    BLOCK, BUILD_TAG, DRAWN, GAUSSIAN, KERNEL_TAG, UNIT, dropout_kernel, dropout_sweep, ensure, itemsize,
)

from fastdrop.core import layout, strided


cdef extern from "cpu_features.h":
    bint cpu_has(const char* name) nogil

cdef extern from "openmp.h":
    const int WITH_OPENMP
    int omp_get_max_threads() nogil
    double omp_get_wtime() nogil
    int threads_that_start(int wanted) nogil
    ctypedef struct thread_history:
        double pause
        double alone_until
        double last
    thread_history* own_history() nogil
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
    SLICE = 1 << 24         # elements per slice, which take well below half a second
    SHORT = 1 << 10         # below this many elements, releasing the GIL costs more than the work

cdef str REBUILD = "fastdrop's compiled modules come from different builds, so install or build it anew"

cdef dropout_kernel* kernel = NULL
cdef int threads_set = 0                # the number of threads that was set; 0 for the default
cdef int default_threads = 1            # the most threads where none were set
cdef int most_threads = 1               # the most threads, whatever was set
cdef double thread_work = 2.5e-6        # seconds of work that are worth a thread that is still awake
cdef bint serial = False                # in a forked child, where GNU OpenMP would wait for ever
cdef ptrdiff_t streaming_bytes = 0      # results of at least this size bypass the cache


include "columns.pxi"


# --- slices and threads -----------------------------------------------------------------------


cdef int threads_for(ptrdiff_t size) noexcept nogil:
    return 1 if size <= SHORT else min(num_threads(), (size + UNIT - 1) // UNIT)


cdef bint run_whole(const Plan* plan) noexcept nogil:
    if plan.size > SHORT:
        return False
    if plan.size:
        run_part(plan, 0, 0, plan.size)
    sum_strips(plan)
    return True


cdef void choose_stores(Plan* plan) noexcept nogil:
    ensure(plan.columns == NULL or plan.sweep.mask == NULL, "strips may end within a byte of a mask, so none is written")
    plan.sweep.streaming = plan.strided == NULL and plan.columns == NULL and can_stream(plan)


cdef bint can_stream(const Plan* plan) noexcept nogil:
    """Whether the result is too large for the cache, and its elements are aligned."""
    cdef int size = itemsize(plan.sweep.dtype)
    return (
        plan.sweep.y != NULL
        and plan.size * size >= streaming_bytes
        and <uintptr_t> plan.sweep.y % size == 0
        and plan.sweep.y_gap % size == 0
    )


cdef ptrdiff_t unit_of(const Plan* plan) noexcept nogil:
    """The elements per unit: a number that ends bytes of the mask, or the elements of a strip."""
    return UNIT if plan.columns == NULL else plan.columns.strip * plan.columns.row


cdef ptrdiff_t run_slice(const Plan* plan, ptrdiff_t first) noexcept nogil:
    cdef ptrdiff_t unit = unit_of(plan)
    cdef ptrdiff_t units = min(max(SLICE // unit, plan.threads), (plan.size - first + unit - 1) // unit)
    cdef ptrdiff_t last = min(first + units * unit, plan.size)
    cdef int threads = min(plan.threads, units)
    cdef double work = work_of(plan, last - first)
    ensure(first % unit == 0, "slices, and so threads, meet at units")
    if threads > 1 and threads_worth(work, 0, threads) > 1:
        run_on_threads(plan, first, last, work, threads)
    else:
        run_part(plan, 0, first, last)
    return last


cdef void run_on_threads(const Plan* plan, ptrdiff_t first, ptrdiff_t last, double work, int most) noexcept nogil:
    """Run a slice of so many seconds of work on as many threads as pay now, which may be one."""
    cdef ptrdiff_t unit = unit_of(plan)
    cdef ptrdiff_t units = (last - first + unit - 1) // unit
    cdef thread_history* history = own_history()
    cdef double begun = omp_get_wtime(), worked = 0
    cdef int threads = 1, thread
    if begun >= history.alone_until or not thread_work:
        threads = threads_that_start(threads_worth(work, begun - history.last, most))
    if threads == 1:
        run_part(plan, 0, first, last)
    else:
        for thread in prange(threads, schedule="static", num_threads=threads):
            run_part_in_default_mode(
                plan,
                thread,
                first + units * thread // threads * unit,
                min(first + units * (thread + 1) // threads * unit, last),
                &worked,
            )
        history[0] = after_region(history[0], work / threads, begun, worked, omp_get_wtime())
    history.last = omp_get_wtime()


cdef void run_slices(Plan* plan) noexcept nogil:
    cdef ptrdiff_t first = 0
    choose_stores(plan)
    while first < plan.size:
        first = run_slice(plan, first)


cdef void run_part_in_default_mode(
    const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last, double* worked
) noexcept nogil:
    """Run the part of one of several threads, each of which has a floating-point mode of its own.

    The calling thread is number 0. It sets `worked` to the time when its part is done.
    """
    cdef float_mode mode = enter_default_mode()
    run_part(plan, thread, first, last)
    leave_default_mode(mode)
    if thread == 0:
        worked[0] = omp_get_wtime()


cdef void run_part(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Run elements first, ..., last - 1 of a slice on one thread. Both ends are ends of units, or of the sweep."""
    if plan.columns != NULL:
        run_tiles(plan, thread, first, last)
    elif plan.strided != NULL:
        run_pieces(plan, thread, first, last)
    else:
        run_decided(plan, plan.sweep, first, last)
    if plan.sweep.streaming:
        kernel.finish_streaming()


cdef void run_pieces(const Plan* plan, int thread, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    """Run a part piece by piece."""
    cdef dropout_sweep sweep = plan.sweep[0]
    cdef char* room = room_of(plan, thread)
    cdef ptrdiff_t end
    while first < last:
        end = end_of_piece(plan.strided, first, last)
        run_piece(plan, &sweep, first, end, room)
        first = end


cdef inline char* room_of(const Plan* plan, int thread) noexcept nogil:
    """Return a thread's room for pieces, or NULL where there are none."""
    if plan.strided == NULL:
        return NULL
    return plan.room + thread * room_for(itemsize(plan.sweep.dtype), plan.strided.piece)


cdef inline void run_piece(
    const Plan* plan, dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last, char* room
) noexcept nogil:
    """Run elements that are copied to `room`, where arrays are strided. The sweep is pointed there."""
    if plan.strided != NULL:
        gather(plan.strided, sweep, first, last, room)
    run_decided(plan, sweep, first, last)
    if plan.strided != NULL:
        scatter(plan.strided, sweep, first, last)


cdef inline void run_decided(
    const Plan* plan, const dropout_sweep* sweep, ptrdiff_t first, ptrdiff_t last
) noexcept nogil:
    """Run the kernel where the decisions are adjacent, and stretch by stretch where they are not."""
    if plan.layout != NULL:
        sweep_by_layout(kernel, sweep, plan.layout, first, last)
    else:
        kernel.sweep_range(sweep, first, last)


# --- when threads pay -------------------------------------------------------------------------

cdef enum:
    # Picoseconds per byte of an element, per element where an array is strided, and per stretch of a layout.
    BYTE_COST = 35
    STRIDED_COST = 500
    STRETCH_COST = 30000

# Threads wait actively for a while after a region, and then sleep. Measured on Zen 3 with libgomp, two threads pay from
# 5 us of work on where calls follow each other, from 15 us on where 2 ms lie between them, and from 60 us on where 20 ms do.
# So each millisecond adds thread_work once, up to ASLEEP seconds.
cdef double DROWSY = 1e3, ASLEEP = 11e-3


cdef inline double work_of(const Plan* plan, ptrdiff_t size) noexcept nogil:
    """Return about how many seconds one thread works on `size` elements."""
    cdef const dropout_sweep* sweep = plan.sweep
    cdef int cost = 0, drawing = 0
    if sweep.x != NULL:
        cost += BYTE_COST * itemsize(sweep.dtype)
    if sweep.decision == DRAWN:
        drawing = kernel.draw_cost
    if sweep.decision == GAUSSIAN:
        drawing = kernel.normal_cost
    if plan.strided != NULL:
        cost += STRIDED_COST
    if plan.layout != NULL:     # a block is drawn together, however few elements a stretch has
        cost += (STRETCH_COST + BLOCK * drawing) // plan.layout.length
    return 1e-12 * (cost + drawing) * size


cdef inline int threads_worth(double work, double since, int most) noexcept nogil:
    """Return how many of at most `most` threads so many seconds of work pay for.

    The last call that paid for some ended `since` seconds ago.
    """
    if not thread_work:
        return most
    return <int> min(max(1.0, work / (thread_work * (1 + DROWSY * min(since, ASLEEP)))), most)


# --- a busy machine ---------------------------------------------------------------------------

# A call on threads ends when its last thread does. Where other processes are busy, any of its threads may wait
# milliseconds for a processor, the calling one too. A call that took much longer than its work, or that waited much longer
# than it worked, has stalled, and the next calls run alone for a while. If they stall again soon after that, they run alone
# for four times as long.

# A region stalls if it takes this much longer than PATIENCE times what its work should take, or waits this much longer than
# twice what it worked. The estimate of the work is rough, and a new result array has its pages cleared meanwhile, which
# takes twelve times as long. All but PATIENCE are in seconds.
cdef double STALL = 2e-4, PATIENCE = 32, SHORTEST_PAUSE = 0.1, LONGEST_PAUSE = 1.6


cdef inline thread_history after_region(
    thread_history history, double work, double begun, double worked, double ended
) noexcept nogil:
    """Return a thread's history after a region.

    The region has so much work per thread, it began, its own part was done, and it ended at these times.
    """
    if ended - worked > STALL + 2 * (worked - begun) or ended - begun > STALL + PATIENCE * work:
        history.pause = min(max(4 * history.pause, SHORTEST_PAUSE), LONGEST_PAUSE)
        history.alone_until = ended + history.pause
    elif ended > history.alone_until + history.pause:
        history.pause = 0
    return history


def pauses_after(regions):
    """Return for each of these regions how long the calls after it run alone, and until when; tests call it.

    A region is its work per thread, and the times when it began, when its own part was done, and when it ended, in seconds.
    """
    cdef thread_history history = thread_history(0, 0, 0)
    found = []
    for work, begun, worked, ended in regions:
        history = after_region(history, work, begun, worked, ended)
        found.append((history.pause, history.alone_until))
    return found


# --- settings ---------------------------------------------------------------------------------


cdef int num_threads() noexcept nogil:
    if serial or not WITH_OPENMP:
        return 1
    return min(threads_set, most_threads) if threads_set else max(1, min(omp_get_max_threads(), default_threads))


def get_num_threads():
    return num_threads()


def set_num_threads(int count):
    global threads_set
    threads_set = count


def set_thread_limits(int default_limit, int most):
    """Set the most threads of a call where no number is set, and where one is."""
    global default_threads, most_threads
    default_threads = default_limit
    most_threads = most


cdef void run_serially() noexcept nogil:
    """Use one thread from now on. After a fork the threads of a GNU OpenMP team are gone, and a child would wait for
    them for ever."""
    global serial
    serial = True


def set_thread_work(double nanoseconds):
    """Set the work that is worth a thread that is awake.

    Tests set 0: any array has threads, however long they have slept, and also after a call that stalled.
    """
    global thread_work
    thread_work = 1e-9 * nanoseconds


def set_kernel(capsule):
    """Make the kernel of an instruction set's module the active one.

    Raises
    ------
    ImportError
        If the kernel was compiled with another sweep.h than this module, and would read the structure
        wrongly.
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
    """The name of the active kernel, as the kernel itself states it."""
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
