"""fastdrop's kernels inside a loop that Numba compiles: its C functions, taken from `__pyx_capi__`.

Each row of a matrix is dropped from with a seed of its own, in compiled code, without the
interpreter. Needs Numba (``pip install numba``).
"""

from __future__ import annotations

import ctypes

import numpy as np
from numba import njit

import fastdrop as fd
from fastdrop import capi

FLOAT32 = 0  # of fastdrop.h
POINTER, SIZE, DOUBLE = ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_double


def function(name: str, *arguments: type) -> ctypes._CFuncPtr:
    """A function of fastdrop's C interface, as capi.pxd declares it."""
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = POINTER
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    capsule = capi.__pyx_capi__[name]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(address)


# dtype, relu, x, y, bits, size, keep_prob, scale, stream
forward = function(
    "forward", ctypes.c_int, ctypes.c_int, POINTER, POINTER, POINTER, SIZE, DOUBLE, DOUBLE, POINTER
)


@njit
def relu_dropout_rows(x, y, keep_prob):
    """Row n of `y` is that of ``fd.relu_dropout(x[n], keep_prob, rng=n)``; 0 if all went well."""
    stream = np.zeros(3, np.uint64)  # a fastdrop_stream: the seed's low and high word, the offset
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
        assert np.array_equal(y[n], fd.relu_dropout(x[n], 0.9, rng=n)[0])
    print(f"{len(x)} rows, each as the Python call makes it; {np.mean(y == 0):.1%} of them zero")


if __name__ == "__main__":
    main()
