"""A build keeps the arithmetic, whatever flags it is given, and modules of two builds do not meet."""

from __future__ import annotations

import ctypes
import importlib
import re
import shutil
import subprocess
import sys

import pytest

from fastdrop import cpu
from fastdrop.core import dispatch
from support import PACKAGE, ROOT, setup_script

CHECKS = ROOT / "fastdrop" / "core" / "build_checks.h"
FAST = ("-ffast-math", "-Ofast", "-ffinite-math-only")  # what each compiler tells the preprocessor
FAST_IN_PART = (
    "-funsafe-math-optimizations",
    "-freciprocal-math",
    "-fno-signed-zeros",
    "-fsingle-precision-constant",
)
HOSTILE = (
    *FAST,
    *FAST_IN_PART,
    *("-fassociative-math", "-mrecip", "-mrecip=all"),
    *("-mfpmath=387", "-mfpmath=both", "-ffp-contract=fast", "-ffp-model=fast", "-fexcess-precision=fast"),
    *("-fapprox-func", "-fno-honor-nans", "-fdenormal-fp-math=preserve-sign", "-mpc32", "-mdaz-ftz"),
    *("-fshort-enums", "-fpack-struct", "-fpack-struct=1", "-fshort-wchar", "-mabi=ms", "-mms-bitfields"),
    *("/usr/lib/crtfastmath.o", "-Wl,/usr/lib/crtfastmath.o", "-mlong-double-64"),
)
HARMLESS = (
    *("gcc", "-O2", "-O3", "-g1", "-fPIC", "-shared", "-march=native", "-mfpmath=sse", "-ffp-contract=off"),
    *("-fno-fast-math", "-funsigned-char", "-fwrapv", "-flto", "-fsanitize=address", "-fno-math-errno"),
    *("-ffp-model=strict", "-Wl,-O1", "-DNDEBUG", "-fexcess-precision=standard", "-fno-short-enums"),
)
PROBE = """
#include <Python.h>

static PyObject *results(PyObject *self, PyObject *arguments)
{
    double large, small;
    if (!PyArg_ParseTuple(arguments, "dd", &large, &small)) return NULL;
    return Py_BuildValue("(ddi)", (large + small) - large, small / 3 * 0.1, small != small);
}

static PyMethodDef methods[] = {{"results", results, METH_VARARGS, NULL}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, .m_name = "probe", .m_methods = methods};

PyMODINIT_FUNC PyInit_probe(void) { return PyModule_Create(&module); }
"""
RESULTS = """
import math, sys
from probe import results
assert results(1e16, 1.0) == (0.0, 1.0 / 3 * 0.1, 0)
assert math.isnan(results(1.0, math.nan)[0]) and results(1.0, math.nan)[2] == 1
assert sys.float_info.min / 2 != 0, "subnormals are flushed to zero"
"""


@pytest.fixture(scope="module")
def script():
    return setup_script()


# --- flags ------------------------------------------------------------------------------------


@pytest.fixture
def build_probe(script, tmp_path, monkeypatch):
    """Builds a small module as setup.py builds its own, with flags in the environment."""
    from setuptools import Distribution, Extension

    shutil.which("gcc") or pytest.skip("no gcc")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "probe.c").write_text(PROBE)

    def build(**environment):
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        extension = Extension("probe", ["probe.c"], extra_compile_args=[*script.FAST, *script.ARITHMETIC])
        command = script.CheckedBuild(Distribution({"name": "probe", "ext_modules": [extension]}))
        command.inplace = True
        command.ensure_finalized()
        command.run()
        subprocess.run([sys.executable, "-c", RESULTS], check=True)

    return build


@pytest.mark.parametrize("flag", HOSTILE)
def test_a_flag_that_changes_results_is_removed(script, flag):
    assert script.without_hostile(["cc", "-O2", flag, "-g1"]) == (["cc", "-O2", "-g1"], [flag])


def test_what_only_passes_a_flag_on_goes_with_it(script):
    command = ["cc", "-Xclang", "-menable-no-nans", "-Xclang", "-O2"]
    assert script.without_hostile(command) == (["cc", "-Xclang", "-O2"], ["-Xclang", "-menable-no-nans"])


def test_other_flags_stay(script):
    assert script.without_hostile(list(HARMLESS)) == (list(HARMLESS), [])


def test_no_flag_changes_results_or_the_process(build_probe, capsys):
    flags = " ".join(HOSTILE)
    build_probe(CC=f"gcc {flags}", CFLAGS=flags, CPPFLAGS="-ffast-math", LDFLAGS=flags)
    said = capsys.readouterr().err
    assert said.count("setup.py removed flags") == 1
    assert all(flag in said for flag in HOSTILE)


def test_without_such_flags_nothing_is_said(build_probe, capsys):
    build_probe(CC="gcc")
    assert "removed" not in capsys.readouterr().err


def test_a_module_that_turns_subnormals_off_is_an_error(build_probe, tmp_path):
    """It comes by a way that the filter does not see: a file of flags."""
    from setuptools.errors import CompileError

    asked = subprocess.run(["gcc", "-print-file-name=crtfastmath.o"], capture_output=True, text=True)
    if "/" not in asked.stdout:
        pytest.skip("this compiler has no crtfastmath.o")
    (tmp_path / "flags").write_text(asked.stdout)
    with pytest.raises(CompileError, match=r"probe.* changes the arithmetic of every process"):
        build_probe(CC="gcc", LDFLAGS="@flags")


def test_every_extension_is_compiled_with_the_checks(script):
    for extension in script.extensions:
        flags = extension.extra_compile_args
        assert str(CHECKS) in " ".join(flags), extension.name
        assert script.without_hostile(list(flags)) == (list(flags), []), extension.name


# --- what does not compile --------------------------------------------------------------------


def refusal(compiler, *flags):
    """What the compiler says to the checks; empty if they pass."""
    shutil.which(compiler) or pytest.skip(f"no {compiler}")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *flags, "-include", str(CHECKS)]
    return subprocess.run([*command, "-xc", "/dev/null"], capture_output=True, text=True).stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", [(), ("-O3", "-fno-math-errno"), ("-funsigned-char",), ("-std=c99",)])
def test_the_checks_pass(compiler, flags):
    assert refusal(compiler, *flags) == ""


@pytest.mark.parametrize(
    ("compiler", "flag"),
    [
        *((compiler, flag) for compiler in ("gcc", "clang") for flag in FAST),
        *(("gcc", flag) for flag in FAST_IN_PART),
    ],
)
def test_other_arithmetic_does_not_compile(compiler, flag):
    assert "needs IEEE 754 arithmetic" in refusal(compiler, flag)


@pytest.mark.skipif("avx2" not in dispatch.built, reason="the flag is that of an x86-64")
def test_another_precision_does_not_compile():
    assert "rounds each float to its own precision" in refusal("gcc", "-mfpmath=387")


@pytest.mark.parametrize(("flag", "what"), [("-fshort-enums", "enum_as"), ("-fpack-struct", "structs_that")])
def test_another_layout_does_not_compile(flag, what):
    assert f"fastdrop_needs_{what}" in refusal("gcc", flag)


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        ("clang", ("-target", "s390x-linux-gnu")),
        ("clang", ("-target", "powerpc64-linux-gnu")),
        ("aarch64-linux-gnu-gcc", ("-mbig-endian",)),
        ("gcc", ("-U__BYTE_ORDER__", "-D__BYTE_ORDER__=__ORDER_BIG_ENDIAN__")),
    ],
)
def test_a_big_endian_machine_does_not_compile(compiler, flags):
    assert "written for little-endian machines" in refusal(compiler, *flags)


# --- modules of two builds --------------------------------------------------------------------


def capsule(name):
    """A capsule with a pointer to nothing that may be read."""
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(8, name, None)


# They outlive the capsules.
NAMES = [b"fastdrop.kernel", b"fastdrop.kernel 0123456789abcdef", b"numpy.random"]


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_of_another_build_is_refused(isa, name):
    with pytest.raises(ImportError, match=rf"{name.decode()}.*different builds.*build it anew"):
        dispatch.set_kernel(capsule(name))
    assert cpu.active() == isa


@pytest.mark.parametrize("value", [None, b"kernel", object()])
def test_what_is_no_kernel_is_refused(isa, value):
    with pytest.raises(ImportError, match="different builds"):
        dispatch.set_kernel(value)
    assert cpu.active() == isa


def test_a_module_of_another_build_is_refused():
    with pytest.raises(ImportError, match=r"fastdrop\.core\.call is of build '0123'.*build it anew"):
        dispatch.same_build(b"0123", "fastdrop.core.call")


def test_what_is_loaded_was_compiled_from_these_sources(script):
    for name in dispatch.built:
        if name in cpu.available():
            kernel = importlib.import_module(f"fastdrop.kernels.{name}").kernel
            assert script.TAGS["FASTDROP_KERNEL_TAG"] in repr(kernel), f"{name} is not up to date"
    dispatch.same_build(script.TAGS["FASTDROP_BUILD_TAG"].strip('"').encode(), "these sources")


def test_a_tag_is_the_content_of_the_files(script, tmp_path):
    first, second = tmp_path / "a.h", tmp_path / "b.h"
    first.write_text("int row;")
    second.write_text("long row;")
    assert script.tag([first]) == script.tag([first]) != script.tag([second])
    assert script.tag([first, second]) == script.tag([second, first])


# --- what is compiled anew --------------------------------------------------------------------

INCLUDED = re.compile(r'^\s*(?:#\s*include|include|cdef extern from)\s+"([^"]+)"', re.MULTILINE)
INCLUDE_DIRS = [PACKAGE / name for name in ("core", "kernels", "include")]  # as setup.py has them
NAME = PACKAGE.name
CIMPORTED = re.compile(rf"^\s*(?:from ({NAME}[\w.]*) cimport (.*)|cimport ({NAME}[\w.]*))", re.MULTILINE)


def named_in(path):
    """The files of the package that a source file names."""
    text = path.read_text("utf-8")
    for name in INCLUDED.findall(text):
        places = (folder / name for folder in (path.parent, *INCLUDE_DIRS))
        yield from (place.resolve() for place in places if place.exists())
    for package, names, whole in CIMPORTED.findall(text.replace("(\n", "(")):
        modules = [package or whole, *(f"{package}.{name}" for name in re.findall(r"\w+", names))]
        places = (ROOT.joinpath(*module.split(".")).with_suffix(".pxd") for module in modules)
        yield from (place for place in places if place.exists())


def all_named_in(path, found):
    if path not in found:
        found.add(path)
        for name in [*named_in(path), path.with_suffix(".pxd")]:
            if name.exists():
                all_named_in(name, found)
    return found


def test_a_module_is_compiled_anew_when_a_file_of_its_own_changes(script):
    assert len(script.extensions) >= 8
    for extension in script.extensions:
        source = ROOT / extension.sources[0]
        known = {(ROOT / name).resolve() for name in extension.depends}
        assert {source, *known} >= all_named_in(source, set()) | {CHECKS, ROOT / "setup.py"}, extension.name


def test_make_looks_at_every_source():
    shutil.which("make") or pytest.skip("no make")
    printed = subprocess.run(
        ["make", "-s", "-f", "Makefile", "-f", "-", "sources", f"PYTHON={sys.executable}", "VENV=none"],
        cwd=ROOT, input="sources:\n\t@echo $(SOURCES)\n", capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    suffixes = (".py", ".pyx", ".pxd", ".pxi", ".h")
    sources = {path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*") if path.suffix in suffixes}
    assert {"setup.py", *sources} == set(printed)


def test_compiled_modules_hold_no_list_comprehension():
    """Where memory ends in the middle of one, what Cython 3.3 makes of it releases an element twice."""
    made = [path for path in PACKAGE.rglob("*.c") if list(path.parent.glob(f"{path.stem}.py*"))]
    if not made:
        pytest.skip("an installed package has no C sources")
    assert not [path.name for path in made if "unlikely(__Pyx_ListComp_Append" in path.read_text()]
