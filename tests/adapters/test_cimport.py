"""Other packages' Cython code, and whatever calls a C function pointer, gets what the Python calls give."""

from __future__ import annotations

import ctypes
import re
import shutil
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from fuzz import CALLS, OK, CStream, function

import fastdrop as fd
from support import PACKAGE, ROOT, output_of, printed_by, run

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


# --- from Cython ------------------------------------------------------------------------------

IN_PLACE = "import fastdrop; print(fastdrop.__file__)"
BARE = {"PATH": "/usr/bin:/bin", "CFLAGS": "-O0"}  # an environment that says nothing of the package
PROGRAM = """
import numpy as np, fastdrop as fd, rows
x = np.random.default_rng(0).standard_normal((37, 100), dtype=np.float32)
y = np.empty_like(x)
rows.relu_dropout_rows(x, y, 0.9, seed=3)
assert y.tobytes() == fd.relu_dropout(x, keep_prob=0.9, rng=3)[0].tobytes()
print("equal")
"""
COMPILED_FOR = """
from ctypes import c_char_p, c_void_p, py_object, pythonapi as api
from fastdrop.capi import __pyx_capi__ as capsules
api.PyCapsule_New.restype, api.PyCapsule_New.argtypes = py_object, [c_void_p, c_char_p, c_void_p]
api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = c_char_p, [py_object]
signatures = {name: api.PyCapsule_GetName(capsule).replace(b"_v1", b"_v2") for name, capsule in capsules.items()}
for name in signatures:  # a fastdrop of the next version, whose functions would crash
    capsules[name] = api.PyCapsule_New(1, signatures[name], None)
try:
    import rows
except TypeError as error:
    print(error)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return the folder of the example package, built with this package on the path."""
    if not EXAMPLE.is_dir():
        pytest.skip("the example is in a checkout alone")
    return built_in(tmp_path_factory.mktemp("cimport"), BARE | {"PYTHONPATH": str(PACKAGE.parent)})


def built_in(folder, variables):
    copy = shutil.copytree(EXAMPLE, folder / "rows")
    output_of([sys.executable, "setup.py", "build_ext", "--inplace"], cwd=copy, env=variables)
    return copy


def test_the_example_package_builds_and_runs(built):
    assert printed_by(PROGRAM, cwd=built) == "equal"


def test_code_that_was_compiled_for_another_version_is_refused_at_import(built):
    said = printed_by(COMPILED_FOR, cwd=built)
    says = r"C function .* has wrong signature \(expected .*fastdrop_status_v1.*, got .*fastdrop_status_v2.*\)"
    assert re.fullmatch(says, said)


@pytest.mark.skipif(not EXAMPLE.is_dir(), reason="the example is in a checkout alone")
def test_an_editable_install_needs_no_more(tmp_path):
    found = run([sys.executable, "-c", IN_PLACE], cwd=tmp_path, env=BARE)
    if found.stdout.strip() != str(PACKAGE / "__init__.py"):
        pytest.skip("the package is not installed in this environment: tests import it by its path")
    folder = built_in(tmp_path, BARE)
    assert output_of([sys.executable, "-c", PROGRAM], cwd=folder, env=BARE).strip() == "equal"


def test_the_version_is_in_every_signature():
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    signatures = {name: api.PyCapsule_GetName(capsule) for name, capsule in fd.capi.__pyx_capi__.items()}
    number = function("api_version")()
    for name, signature in signatures.items():
        assert (name == "api_version") != (f"fastdrop_status_v{number}" in signature.decode()), signature


# --- the page ---------------------------------------------------------------------------------

PAGE = ROOT / "docs" / "reference" / "c.md"


def functions_in(text):
    """Return the declarations of functions in Cython code, in one form."""
    found = re.findall(r"^(?:cdef )?([\w* ]+?\w+\([^)]*\))(?: noexcept nogil)?$", text, re.MULTILINE)
    return {re.sub(r",? (?=\))|(?<=\() ", "", re.sub(r"\s+", " ", declaration)) for declaration in found}


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are in a checkout alone")
def test_the_page_has_every_function_as_it_is_declared():
    declared = (PACKAGE / "capi.pxd").read_text("utf-8")
    _, _, page = PAGE.read_text("utf-8").partition("## Functions")
    code = "\n".join(re.findall(r"^```cython\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    assert functions_in(code) == functions_in(declared)
    assert {re.search(r"(\w+)\(", text)[1] for text in functions_in(code)} == set(fd.capi.__pyx_capi__)
    structure = re.search(r"ctypedef struct fastdrop_stream:\n(?: +.*\n)+", declared)[0]
    assert re.sub(r"\n +", " ", structure).strip() in re.sub(r"\n +", " ", code)


@pytest.mark.skipif(not PAGE.exists(), reason="the pages are in a checkout alone")
def test_the_page_has_every_constant_with_its_value():
    header = (Path(fd.get_include()) / "fastdrop.h").read_text("utf-8")
    values = dict(re.findall(r"^(?:#define| *) *(FASTDROP_\w+) (?:= )?(\d+)\b", header, re.MULTILINE))
    declared = re.findall(r'(\w+) "(FASTDROP_\w+)"', (PACKAGE / "capi.pxd").read_text("utf-8"))
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((name, in_c, values[in_c]) for name, in_c in declared)
    assert {in_c for _, in_c in declared} == set(values)
