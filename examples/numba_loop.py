"""Call fastdrop's kernels in a loop that Numba compiles, through the C functions in `__pyx_capi__`.

The loop applies ReLU and dropout to each row of a matrix, with a seed per row, in compiled code and
without the interpreter. It needs Numba (``pip install numba``).
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba import njit

import fastdrop as fd
from fastdrop import capi

FLOAT32 = 0  # FASTDROP_FLOAT32 in fastdrop.h
STATUS = b"fastdrop_status_v1"  # what the functions return; its name has the version of the interface
POINTER, SIZE, DOUBLE = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_double


def function(name: str, *arguments: type) -> ctypes._CFuncPtr:
    """Return a function of fastdrop's C interface, as capi.pxd declares it."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = POINTER
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = capi.__pyx_capi__[name]
    signature = api.PyCapsule_GetName(capsule)
    if not signature.startswith(STATUS + b" ("):
        raise ImportError(f"{name} is not as fastdrop.h version 1 declares it: {signature.decode()}")
    address = api.PyCapsule_GetPointer(capsule, signature)
    return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(address)


# The parameters are dtype, relu, x, y, bits, size, keep_prob, scale and stream.
forward = function(
    "forward", ctypes.c_int, ctypes.c_int, POINTER, POINTER, POINTER, SIZE, DOUBLE, DOUBLE, POINTER
)


@njit
def relu_dropout_rows(x, y, keep_prob):
    """Write ``fd.relu_dropout(x[n], keep_prob=keep_prob, rng=n)`` to row n of `y`. Return 0 on success.

    The functions take addresses and see no dtype, so both arrays have to be float32, with contiguous rows.
    """
    stream = np.zeros(3, np.uint64)  # a fastdrop_stream: low and high word of the seed, offset
    status = 0
    for n in range(x.shape[0]):
        stream[0] = n
        status |= forward(
            FLOAT32, 1, x[n].ctypes.data, y[n].ctypes.data, 0, x.shape[1], keep_prob, 1 / keep_prob,
            stream.ctypes.data,
        )  # fmt: skip
    return status


def main() -> None:
    x = np.random.default_rng(0).standard_normal((100, 1000), np.float32)
    y = np.empty_like(x)
    assert relu_dropout_rows(x, y, 0.9) == 0
    for n in range(len(x)):
        assert np.array_equal(y[n], fd.relu_dropout(x[n], keep_prob=0.9, rng=n)[0])
    print(f"{len(x)} rows, each equal to that of the Python call; {np.mean(y == 0):.1%} of all elements zero")


if __name__ == "__main__":
    main()
