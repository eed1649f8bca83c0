"""From a pass to the active kernel: slices, threads and streaming stores.

Nothing below knows a shape, nothing above an instruction set. Compiled for the baseline, and
the only module that is compiled with OpenMP.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from cython.parallel cimport prange
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uintptr_t

from fastdrop.kernels.kernel cimport FLOAT64, dropout_kernel, dropout_pass


cdef extern from "cpu_features.h":
    int cpu_features() nogil
    enum:
        HAS_AVX2
        HAS_AVX2_VAES
        HAS_AVX512
        HAS_NEON

cdef extern from "openmp.h":
    const int WITH_OPENMP
    int omp_get_max_threads() nogil

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

cdef dropout_kernel* kernel = NULL
cdef int threads_set = 0            # 0: what OpenMP says
cdef bint serial = False            # in a forked child, where GNU OpenMP would wait for ever
cdef ptrdiff_t streaming_bytes = 0  # results above this size bypass the cache


cdef int run(dropout_pass* task, ptrdiff_t size) except -1:
    """All elements of a pass, on the active kernel."""
    cdef ptrdiff_t first = 0, last
    if size <= HOLD_GIL:
        task.streaming = False
        kernel.run(task, 0, size)
        return 0
    task.streaming = can_stream(task, size)
    while first < size:
        last = min(first + SLICE, size)
        with nogil:
            run_slice(task, first, last)
        PyErr_CheckSignals()
        first = last
    return 0


cdef bint can_stream(const dropout_pass* task, ptrdiff_t size) noexcept nogil:
    """Whether the result is larger than the cache, and its elements can be aligned."""
    cdef int itemsize = 8 if task.dtype == FLOAT64 else 4
    return size * itemsize > streaming_bytes and <uintptr_t> task.y % itemsize == 0


cdef void run_slice(const dropout_pass* task, ptrdiff_t first, ptrdiff_t last) noexcept nogil:
    cdef ptrdiff_t chunks = (last - first + CHUNK - 1) // CHUNK
    cdef int threads = 1, thread
    if last - first >= ONE_THREAD:
        threads = min(num_threads(), chunks)
    if threads == 1:
        kernel.run(task, first, last)
        return
    for thread in prange(threads, schedule="static", num_threads=threads):
        kernel.run(
            task,
            first + chunks * thread // threads * CHUNK,
            min(first + chunks * (thread + 1) // threads * CHUNK, last),
        )


cdef int num_threads() noexcept nogil:
    if serial:
        return 1
    return threads_set if threads_set else omp_get_max_threads()


def get_num_threads():
    return num_threads()


def set_num_threads(int count):
    global threads_set
    threads_set = count


def run_serially():
    """One thread from now on, whatever is set."""
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


def supported():
    """The instruction sets that the CPU and the operating system support."""
    cdef int features = cpu_features()
    known = {"avx512": HAS_AVX512, "avx2_vaes": HAS_AVX2_VAES, "avx2": HAS_AVX2, "neon": HAS_NEON}
    return {"generic"} | {name for name, flag in known.items() if features & flag}


built = BUILT.decode().split()      # the instruction sets that setup.py compiled kernels for
openmp = bool(WITH_OPENMP)
compiler = COMPILER.decode()
