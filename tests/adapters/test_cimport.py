"""Other packages' Cython code, and whatever calls a C function pointer, gets what the Python calls give."""

from __future__ import annotations

import ctypes
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fuzz import CALLS, OK, CStream, function

import fastdrop as fd
from support import output_of, printed_by

EXAMPLE = Path(__file__).parents[2] / "examples" / "cython_package"
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = range(4)


forward, backward, backward_from_output, fill_bits = (
    CALLS[name] for name in ("forward", "backward", "backward_from_output", "fill_bits")
)
status_text = function("status_text", ctypes.c_int, result=ctypes.c_char_p)


def stream(seed: int, offset: int) -> CStream:
    return CStream((ctypes.c_uint64 * 2)(seed % 2**64, seed >> 64), offset)


@pytest.mark.parametrize("size", [1, 64, 1000, 100_003])
@pytest.mark.parametrize(
    ("dtype", "code"),
    [("float32", FLOAT32), ("float64", FLOAT64), ("float16", FLOAT16), (ml_dtypes.bfloat16, BFLOAT16)],
)
def test_pointers_give_what_the_calls_give(isa, dtype, code, size):
    x = np.random.default_rng(size).standard_normal(size).astype(dtype)
    seed, offset = 2**100 + 5, 77
    y, mask = fd.relu_dropout(x, keep_prob=0.8, rng=fd.Stream(seed, offset))
    at = stream(seed, offset)
    result, bits = np.empty_like(x), np.full(mask.nbytes, 0xAA, np.uint8)

    assert forward(code, 1, x.ctypes.data, result.ctypes.data, bits.ctypes.data, size, 0.8, 1 / 0.8, at) == OK
    assert result.tobytes() == y.tobytes()
    assert np.array_equal(bits, mask.bits)

    dx = fd.relu_dropout_backward(x, mask)
    assert backward(code, x.ctypes.data, bits.ctypes.data, result.ctypes.data, size, 1 / 0.8) == OK
    assert result.tobytes() == dx.tobytes()
    result[:] = 7
    assert backward_from_output(code, x.ctypes.data, y.ctypes.data, result.ctypes.data, size, 1 / 0.8) == OK
    assert result.tobytes() == dx.tobytes()

    assert fill_bits(bits.ctypes.data, size, 0.8, at) == OK
    assert np.array_equal(bits, fd.keep_mask(size, keep_prob=0.8, rng=fd.Stream(seed, offset)).bits)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"code": 9}, "dtype"),
        ({"size": -1}, "size"),
        ({"keep_prob": 1.5}, "keep_prob"),
        ({"keep_prob": float("nan")}, "keep_prob"),
        ({"offset": 2**64 - 3}, "offset"),
        ({"x": None}, "NULL"),
    ],
)
def test_a_wrong_argument_is_named_and_nothing_is_written(changed, says):
    x, y = np.ones(8, np.float32), np.full(8, 7, np.float32)
    given = {"code": FLOAT32, "size": 8, "keep_prob": 0.5, "offset": 0, "x": x.ctypes.data} | changed
    status = forward(
        given["code"], 1, given["x"], y.ctypes.data, None, given["size"],
        given["keep_prob"], 2.0, stream(1, given["offset"]),
    )
    assert status != OK
    assert says in status_text(status).decode()
    assert (y == 7).all()


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the example is in a checkout alone")
def test_the_example_package_builds_and_runs(tmp_path):
    folder = shutil.copytree(EXAMPLE, tmp_path / "rows")
    root = str(Path(fd.__file__).parents[1])
    build = [sys.executable, "setup.py", "build_ext", "--inplace"]
    output_of(build, cwd=folder, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": root, "CFLAGS": "-O0"})
    program = (
        "import numpy as np, fastdrop as fd, rows\n"
        "x = np.random.default_rng(0).standard_normal((37, 100), dtype=np.float32)\n"
        "y = np.empty_like(x)\n"
        "rows.relu_dropout_rows(x, y, 0.9, seed=3)\n"
        "assert y.tobytes() == fd.relu_dropout(x, keep_prob=0.9, rng=3)[0].tobytes()\n"
        "print('equal')\n"
    )
    assert printed_by(program, cwd=folder) == "equal"
