"""A call refuses arrays that change while it runs, and has then changed nothing."""

from __future__ import annotations

import signal

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import cpu
from support import printed_by

# A handler runs in the middle of a call. Another thread sends the signal when the call releases the GIL,
# which nothing else releases. On a busy machine that may be too late, so calls are made until one is hit.
IN_THE_MIDDLE = """
import os, signal, sys, threading
import numpy as np, fastdrop as fd

def send(asleep):
    asleep.acquire()
    os.kill(os.getpid(), signal.SIGUSR1)

def hit(handler, prepare, call):
    signal.signal(signal.SIGUSR1, handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    fd.keep_mask(8, keep_prob=0.5, rng=1)
    sys.setswitchinterval(1000)
    for _ in range(100):
        asleep = threading.Lock()
        asleep.acquire()
        sender = threading.Thread(target=send, args=(asleep,))
        sender.start()
        prepare()
        try:
            missed = False
            asleep.release()
            call()
            missed = True
            sender.join()
            sys.getswitchinterval()     # a handler that waits runs here at the latest
        except (RuntimeError, InterruptedError) as error:
            sender.join()
            if not missed:
                return error
"""
on_posix = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="no such signal on this system")


@on_posix
def test_a_signal_handler_cannot_take_memory_away():
    """Handlers run between two slices. The arrays are compared again before the next slice."""
    code = (
        IN_THE_MIDDLE
        + """
def resize(*_):
    x.resize(8, refcheck=False)
def prepare():
    global x, stream
    x, stream = np.ones(2**26, np.float16), fd.Stream(1)
def call():
    fd.relu_dropout(x, keep_prob=0.9, rng=stream, return_mask=False)
print(str(hit(resize, prepare, call)).split(",")[0], stream.offset == 2**26)
"""
    )
    printed = printed_by(code, FASTDROP_ISA=cpu.available()[-1], FASTDROP_NUM_THREADS="1")
    assert printed == "x must stay as it is while a call is under way True"


@on_posix
def test_a_signal_handler_cannot_close_the_gaps_between_rows():
    code = (
        IN_THE_MIDDLE
        + """
import warnings
warnings.simplefilter("ignore")     # NumPy deprecates what the handler does
def close(*_):
    x.strides = 2**14, 2
def prepare():
    global x
    x = np.ones((2**13, 2**13 + 64), np.float16)[:, 64:]
def call():
    fd.relu_dropout(x, keep_prob=0.9, rng=1, return_mask=False)
print(str(hit(close, prepare, call)).split(",")[0])
"""
    )
    printed = printed_by(code, FASTDROP_ISA=cpu.available()[-1], FASTDROP_NUM_THREADS="1")
    assert printed == "x must stay as it is while a call is under way"


@on_posix
def test_an_interrupted_call_leaves_what_it_has_not_reached():
    """Where input and result overlap, elements that were not computed keep their values."""
    code = (
        IN_THE_MIDDLE
        + """
def interrupt(*_):
    raise InterruptedError
def prepare():
    global memory
    memory = np.full(2**26 + 1, 3, np.float16)
def call():
    fd.dropout(memory[:-1], keep_prob=0.5, rng=1, out=memory[1:], mode="vanilla", return_mask=False)
hit(interrupt, prepare, call)
print(np.unique(memory).tolist(), bool((memory[-2**20:] == 3).all()))
"""
    )
    assert printed_by(code, FASTDROP_ISA=cpu.available()[-1], FASTDROP_NUM_THREADS="1") == "[0.0, 3.0] True"


class Late(int):
    """The arithmetic of this int runs code."""

    def act(self, *_):
        raise AssertionError("arithmetic of an argument ran")

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __rshift__ = __mod__ = __floordiv__ = act
    __lt__ = __le__ = __gt__ = __ge__ = act


def test_numbers_are_plain_before_anything_is_computed_with_them():
    x, late = np.ones((4, 6), np.float32), Late(1)
    stream = fd.Stream(Late(7), Late(5))
    stream.offset = Late(5)
    tile = fd.Tile((Late(9), Late(9)), (late, late), seed=Late(3), offset=Late(2))
    for rng in (stream, tile, Late(7)):
        fd.dropout(x, keep_prob=0.5, rng=rng, broadcast_dims=late)
        fd.gaussian_dropout(x, keep_prob=0.5, rng=rng)
        fd.keep_mask((Late(4), Late(6)), keep_prob=0.5, rng=rng)
    assert stream.offset == 5 + 4 + 24 + 24
