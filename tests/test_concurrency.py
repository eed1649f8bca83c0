"""With threads, processes and signals, no position is drawn twice and every call returns.

Whatever could hang runs in an interpreter of its own, which is ended if it hangs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from fuzz import CALLS, OK, CStream

import fastdrop as fd
from support import assert_identical, printed_by, sample

# --- one stream, many threads -----------------------------------------------------------------


def test_threads_that_reserve_lose_no_position_and_share_none():
    stream, threads, calls = fd.Stream(1), 16, 500
    sizes = [1 + (7 * thread) % 11 for thread in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        found = list(pool.map(lambda size: [(stream.reserve(size), size) for _ in range(calls)], sizes))
    pieces = sorted(piece for of_thread in found for piece in of_thread)
    assert len(pieces) == threads * calls
    end = 0
    for first, size in pieces:
        assert first == end, "a gap is a lost position, an overlap a shared one"
        end = first + size
    assert end == stream.offset == calls * sum(sizes)


def test_calls_of_every_kind_on_one_stream_share_no_position(isa):
    """The masks are those of the stream, side by side and without gaps."""
    size, calls, seed = 1003, 60, 5  # not a multiple of 8: pieces begin at any bit
    x, stream = np.ones(size, np.float32), fd.Stream(seed)

    def call(index):
        if index % 3 == 0:
            return fd.keep_mask(size, keep_prob=0.5, rng=stream)
        return (fd.dropout if index % 3 == 1 else fd.relu_dropout)(x, keep_prob=0.5, rng=stream)[1]

    with ThreadPoolExecutor(8) as pool:
        masks = [mask.to_array() for mask in pool.map(call, range(calls))]
    whole = fd.reference.keep_mask(size * calls, keep_prob=0.5, rng=seed).to_array().reshape(calls, size)
    assert stream.offset == size * calls
    assert sorted(mask.tobytes() for mask in masks) == sorted(row.tobytes() for row in whole)


@pytest.mark.parametrize("size", [100, 70_001])  # the second is large enough for threads within a call
def test_threads_with_streams_of_their_own_get_what_they_get_alone(isa, size):
    x = sample(size, seed=8)
    streams = fd.Stream(3).spawn(16)
    alone = [fd.relu_dropout(x, keep_prob=0.6, rng=fd.Stream(child.seed)) for child in streams]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda child: fd.relu_dropout(x, keep_prob=0.6, rng=child), streams))
    for (y, mask), (expected, expected_mask) in zip(together, alone, strict=True):
        assert_identical(y, expected)
        assert mask == expected_mask


@pytest.mark.parametrize("in_place", [False, True])
def test_threads_on_parts_of_one_array_write_nothing_but_their_own(isa, in_place):
    """Parts meet within a cache line, where a byte of the mask ends, as the threads of one call do."""
    size, part = 200_000, 10_008
    x, seed, keep_prob = sample(size, seed=4), 9, 0.75
    expected, expected_mask = fd.reference.relu_dropout(x, keep_prob=keep_prob, rng=seed)
    y, bits = x if in_place else np.empty_like(x), np.empty(size // 8, np.uint8)

    def call(first):
        stream = CStream((seed, 0), first)
        source, result = (array.ctypes.data + 4 * first for array in (x, y))
        passed, count = bits.ctypes.data + first // 8, min(part, size - first)
        return CALLS["forward"](0, 1, source, result, passed, count, keep_prob, 1 / keep_prob, stream)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(call, range(0, size, part))) == {OK}
    assert_identical(y, expected)
    assert bits.tobytes() == expected_mask.bits.tobytes()


# --- fork and its like ------------------------------------------------------------------------

FORK = """
import os, threading, warnings
import numpy as np, fastdrop as fd
warnings.simplefilter("ignore", DeprecationWarning)  # fork in a process with threads: the very case
from fastdrop.core import dispatch
dispatch.set_thread_work(0)
fd.set_num_threads(4)
x = np.linspace(-1, 1, 1_000_003, dtype=np.float32)
expected, expected_mask = fd.relu_dropout(x, keep_prob=0.9, rng=1)

def same():
    y, mask = fd.relu_dropout(x, keep_prob=0.9, rng=1)
    return np.array_equal(y, expected) and mask == expected_mask

def exit_code_of_child(work):
    child = os.fork()
    if child == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")


@needs_fork
def test_a_grandchild_can_call_whether_or_not_its_parent_has():
    code = (
        FORK
        + """
def child(calls_first):
    right = same() if calls_first else True
    return exit_code_of_child(lambda: 0 if same() else 3) or (0 if right and same() else 4)

print([exit_code_of_child(lambda: child(first)) for first in (False, True)], same())
"""
    )
    assert printed_by(code) == "[0, 0] True"


@needs_fork
def test_a_child_forked_while_other_threads_call_can_call():
    """A lock that another thread holds at the fork stays locked in the child, which must not need it."""
    code = (
        FORK
        + """
stream, stop = fd.Stream(7), threading.Event()
def busy():
    while not stop.is_set():
        fd.relu_dropout(x[:70_000], keep_prob=0.9, rng=1)
def reserving():
    while not stop.is_set():
        stream.reserve(3)
workers = [threading.Thread(target=work) for work in (busy, busy, reserving)]
for worker in workers:
    worker.start()
codes = {exit_code_of_child(lambda: 0 if same() and stream.reserve(2) % 3 == 0 else 3) for _ in range(8)}
stop.set()
for worker in workers:
    worker.join()
print(codes, same())
"""
    )
    assert printed_by(code) == "{0} True"


@needs_fork
def test_a_child_can_go_on_with_a_stream_that_another_thread_was_in():
    """A lock that another thread holds at the fork is never released in the child."""
    code = (
        FORK
        + """
class Late(int):
    def wait(self, *_):
        inside.set()
        forked.wait()
        return int(self)
    __index__ = __ge__ = __radd__ = wait

stream, inside, forked = fd.Stream(7), threading.Event(), threading.Event()
def reserve():
    stream.reserve(Late(3))
    inside.set()
other = threading.Thread(target=reserve)
other.start()
inside.wait()

def child():
    before = stream.offset
    stream.spawn(1)
    return 0 if stream.reserve(5) == before and stream.offset == before + 5 else 3

code = exit_code_of_child(child)
forked.set()
other.join()
print(code, stream.offset)
"""
    )
    assert printed_by(code) == "0 3"


WORKERS = """
import hashlib, multiprocessing, sys, warnings
import numpy as np
import fastdrop as fd

warnings.simplefilter("ignore", DeprecationWarning)
SIZE, PARTS = 300_007, 6
x = np.linspace(-1, 1, SIZE, dtype=np.float32)

def work(stream):
    y, mask = fd.relu_dropout(x, keep_prob=0.75, rng=stream)
    return hashlib.sha256(y.tobytes() + mask.bits.tobytes()).hexdigest()

def fresh(_):
    return fd.keep_mask(1000, keep_prob=0.5).bits.tobytes()

def part(number):
    first, last = number * SIZE // PARTS, (number + 1) * SIZE // PARTS
    y, mask = fd.relu_dropout(x[first:last], keep_prob=0.75, rng=fd.Stream(3, first))
    return y, mask.to_array()

def in_parallel(method, function, arguments):
    if method == "loky":
        import joblib
        return joblib.Parallel(3)(joblib.delayed(function)(argument) for argument in arguments)
    with multiprocessing.get_context(method).Pool(3) as pool:
        return pool.map(function, arguments, chunksize=1)

if __name__ == "__main__":
    from fastdrop.core import dispatch
    dispatch.set_thread_work(0)
    fd.set_num_threads(4)
    here = [work(child) for child in fd.Stream(11).spawn(PARTS)]
    there = in_parallel(sys.argv[1], work, fd.Stream(11).spawn(PARTS))
    own = in_parallel(sys.argv[1], fresh, range(PARTS))
    y, mask = fd.relu_dropout(x, keep_prob=0.75, rng=3)
    parts, masks = zip(*in_parallel(sys.argv[1], part, range(PARTS)))
    same = np.array_equal(np.concatenate(parts), y), np.array_equal(np.concatenate(masks), mask.to_array())
    print(here == there, len(set(here)), len(set(own)), *same)
"""


@pytest.mark.parametrize("method", [*multiprocessing.get_all_start_methods(), "loky"])
def test_workers_get_what_their_streams_give_here_or_masks_of_their_own(method, tmp_path):
    """Workers use spawned streams and parts of one stream. Threads have run before the workers start.

    Without ``rng=`` each worker draws other masks. Other libraries had workers that all drew the same.
    """
    if method == "loky":
        pytest.importorskip("joblib")
    script = tmp_path / "workers.py"
    script.write_text(WORKERS)
    assert printed_by(script, method) == "True 6 6 True True"


# --- Ctrl-C -----------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signals on this system")
@pytest.mark.parametrize("threads", ["1", "3"])
def test_a_long_call_lets_threads_run_answers_signals_and_can_be_interrupted(threads):
    """All of this happens before the call has finished. Afterwards, the same calls give the same bits.

    Another thread sees that the call has begun. It sends signals, each one when the last was answered; the
    fourth is Ctrl-C. If the call did not release the GIL, or did not check for signals, it would write its
    last element first.
    """
    code = """
import signal, threading, time
import numpy as np, fastdrop as fd

signal.signal(signal.SIGINT, signal.default_int_handler)  # which is ignored in the background of a shell
signal.signal(signal.SIGUSR1, lambda *_: answered.release())
answered = threading.Semaphore(0)

def disturb(start):
    while stream.offset == start:
        time.sleep(0)
    for _ in range(3):
        signal.raise_signal(signal.SIGUSR1)
        answered.acquire()
    signal.raise_signal(signal.SIGINT)

small = np.linspace(-1, 1, 300_007, dtype=np.float32)
expected, expected_mask = fd.relu_dropout(small, keep_prob=0.9, rng=2)
x = np.zeros(2**30, np.float16)  # pages that nothing writes to take no memory
x[-1] = 1  # and 0 or 1 / 0.9 when it is written
stream = fd.Stream(1)
for round in (1, 2):
    other = threading.Thread(target=disturb, args=(stream.offset,))
    other.start()
    try:
        fd.dropout(x, keep_prob=0.9, rng=stream, out=x, return_mask=False)
    except KeyboardInterrupt:
        assert x[-1] == 1, "the call had finished"
        assert stream.offset == round * x.size, "its positions stay reserved"
    else:
        raise AssertionError("the call was not interrupted")
    other.join()
    y, mask = fd.relu_dropout(small, keep_prob=0.9, rng=2)
    assert np.array_equal(y, expected) and mask == expected_mask
print(fd.get_num_threads())
"""
    printed = printed_by(code, FASTDROP_ISA="generic", FASTDROP_NUM_THREADS=threads)
    assert printed == (threads if fd.threads.openmp() else "1")
