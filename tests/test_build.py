"""A build keeps the arithmetic, whatever flags it is given, and modules of two builds do not meet."""

from __future__ import annotations

import ctypes
import importlib
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

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
    *("-funsigned-char", "-fno-signed-char", "-funsigned-bitfields"),
    *("-march=native", "-mcpu=native", "-xHost"),
    *("/usr/lib/crtfastmath.o", "-Wl,/usr/lib/crtfastmath.o", "-mlong-double-64"),
)
HARMLESS = (
    *("gcc", "-O2", "-O3", "-g1", "-fPIC", "-shared", "-mfpmath=sse", "-ffp-contract=off"),
    *("-fno-fast-math", "-fsigned-char", "-fwrapv", "-flto", "-fsanitize=address", "-fno-math-errno"),
    *("-ffp-model=strict", "-Wl,-O1", "-DNDEBUG", "-fexcess-precision=standard", "-fno-short-enums"),
    *("-O0", "-march=x86-64-v2", "-mcpu=neoverse-n1", "-mtune=native"),
)
PROBE = """
#include <Python.h>
#if !defined(__OPTIMIZE__) || defined(__AVX__)
#error "it is compiled without optimisation, or for the CPU of this machine"
#endif

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
    """Build a small module as setup.py builds its own, with flags in the environment."""
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
    flags = " ".join(["-O0", *HOSTILE])
    build_probe(CC=f"gcc {flags}", CFLAGS=flags, CPPFLAGS="-ffast-math", LDFLAGS=flags)
    said = capsys.readouterr().err
    assert said.count("setup.py removed flags") == 1
    assert all(flag in said for flag in HOSTILE)


def test_without_such_flags_nothing_is_said(build_probe, capsys):
    build_probe(CC="gcc")
    assert "removed" not in capsys.readouterr().err


def test_a_module_that_turns_subnormals_off_is_an_error(build_probe, tmp_path):
    """The flag comes in a file of flags, which the filter does not see."""
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


# --- for which machine, and with what ---------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "kernels"),
    [
        ("linux-x86_64", {"generic", "avx2", "avx2_vaes", "avx512"}),
        ("linux-aarch64", {"generic", "neon"}),
        ("macosx-11.0-arm64", {"generic", "neon"}),
        ("macosx-10.13-x86_64", {"generic", "avx2", "avx2_vaes", "avx512"}),
        ("linux-riscv64", {"generic"}),
    ],
)
def test_the_kernels_are_those_of_the_target(system, kernels):
    """Python's platform is the target's, also where another machine compiles."""
    assert set(setup_script(system).KERNELS) == kernels


def test_apple_s_flags_name_the_target(monkeypatch):
    monkeypatch.setenv("ARCHFLAGS", "-arch x86_64")
    assert "avx2" in setup_script("macosx-11.0-universal2").KERNELS
    monkeypatch.setenv("ARCHFLAGS", "-arch arm64")
    assert "neon" in setup_script("macosx-11.0-universal2").KERNELS


def test_a_build_for_two_architectures_becomes_one_for_this_machine(monkeypatch):
    monkeypatch.setenv("ARCHFLAGS", "")  # so that it is as before after the test
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", "macosx-11.0-universal2")
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    assert "neon" in setup_script("macosx-11.0-universal2").KERNELS
    assert os.environ["ARCHFLAGS"] == "-arch arm64"
    assert os.environ["_PYTHON_HOST_PLATFORM"] == "macosx-11.0-arm64"


@pytest.mark.parametrize(("system", "wide"), [("win-amd64", "avx512"), ("win-arm64", "neon")])
def test_windows_has_the_wide_kernels_where_clang_cl_is(system, wide, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name, path=None: None)
    assert set(setup_script(system).KERNELS) == {"generic"}
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"found/{name}")
    script = setup_script(system)
    assert wide in script.KERNELS
    assert script.CLANG_CL == "found/clang-cl"
    kernels = [extension for extension in script.extensions if extension.name in script.BY_CLANG]
    assert len(kernels) == len(script.KERNELS)
    for extension in kernels:
        assert "-ffp-contract=off" in extension.extra_compile_args[-1], "after /fp:precise, which contracts"


def test_windows_compiles_its_kernels_with_clang_cl_and_nothing_else(monkeypatch):
    """MSVC is replaced by its attribute `cc`; what setuptools does with it is not tried here."""
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"found/{name}")
    script, compiled = setup_script("win-amd64"), {}

    def build(command):
        compiled.update({extension.name: command.compiler.cc for extension in command.extensions})

    monkeypatch.setattr(build_ext, "build_extensions", build)
    command = script.CheckedBuild(Distribution())
    command.compiler, command.extensions = SimpleNamespace(initialized=True, cc="cl.exe"), script.extensions
    command.build_in_turn()
    assert {name for name, compiler in compiled.items() if compiler == "found/clang-cl"} == script.BY_CLANG
    assert {name for name, compiler in compiled.items() if compiler == "cl.exe"} == set(compiled) - script.BY_CLANG
    assert (command.compiler.cc, len(compiled)) == ("cl.exe", len(command.extensions))


@pytest.mark.parametrize(("system", "kernel"), [("win-amd64", "avx512"), ("win-amd64", "avx2"), ("win-arm64", "neon")])
def test_clang_cl_takes_the_flags(system, kernel, tmp_path, monkeypatch):
    """The driver of any clang says which flags it would compile with; nothing is compiled."""
    clang = shutil.which("clang") or pytest.skip("no clang")
    monkeypatch.setattr(shutil, "which", lambda name, path=None: f"found/{name}")
    extension = next(e for e in setup_script(system).extensions if e.name == f"fastdrop.kernels.{kernel}")
    flags = ["/nologo", "/O2", "/W3", "/GL", "/DNDEBUG", "/MD", *extension.extra_compile_args]
    command = [clang, "--driver-mode=cl", "-###", "/c", "/Tcsource.c", "/Fosource.obj", *flags]
    (tmp_path / "source.c").touch()
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stderr
    complaints = [line for line in said.splitlines() if re.search(r": (?:warning|error):", line)]
    assert [line for line in complaints if "/GL" not in line] == []
    assert {"-O3", "-ffp-contract=off"} <= set(said.replace('"', "").split())


NO_HEADER = '#!/bin/sh\necho "program.c:1:10: fatal error: {}: No such file or directory" >&2\nexit 1\n'


@pytest.mark.parametrize(
    ("program", "sentence"),
    [
        (None, r"A C compiler was not found \(.*cc\): install one \(Debian and Ubuntu: apt install gcc libc6-dev"),
        (NO_HEADER.format("Python.h"), r"The headers of Python 3\.\d+ were not found: install them"),
        (NO_HEADER.format("limits.h"), r"(?s)cannot build a program: install the C library's headers .* limits\.h"),
    ],
)
def test_what_is_missing_to_compile_is_said_at_once(tmp_path, program, sentence):
    shutil.which("sh") or pytest.skip("the compiler here is a program of the shell")
    compiler = tmp_path / "cc"
    if program is not None:
        compiler.write_text(program)
        compiler.chmod(0o755)
    command = [sys.executable, "setup.py", "--quiet", "build_ext"]
    process = subprocess.run(command, cwd=ROOT, env=os.environ | {"CC": str(compiler)}, capture_output=True, text=True)
    assert process.returncode == 1
    assert re.search(sentence, process.stderr), process.stderr
    assert "Traceback" not in process.stderr


@pytest.mark.parametrize("command", ["egg_info", "dist_info", "sdist"])
def test_a_command_that_compiles_nothing_writes_no_c_file(command, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["setup.py", command])
    assert setup_script().describes
    monkeypatch.setattr(sys, "argv", ["setup.py", command, "build_ext"])
    assert not setup_script().describes


@pytest.mark.parametrize("error", [PermissionError, ImportError])
def test_without_shared_semaphores_cython_runs_in_one_process(error, monkeypatch):
    processes = setup_script().cython_processes
    assert processes() == (os.cpu_count() if sys.platform == "linux" else 0)

    def refuse():
        raise error("no semaphores")

    monkeypatch.setattr(multiprocessing, "Lock", refuse)
    assert processes() == 0


# --- what does not compile --------------------------------------------------------------------


def refusal(compiler, *flags):
    """Return what the compiler says about the checks, which is nothing if they pass."""
    shutil.which(compiler) or pytest.skip(f"no {compiler}")
    command = [compiler, "-Wall", "-Wextra", "-Werror", "-fsyntax-only", *flags, "-include", str(CHECKS)]
    return subprocess.run([*command, "-xc", "/dev/null"], capture_output=True, text=True).stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("flags", [(), ("-O3", "-fno-math-errno"), ("-fsigned-char",), ("-std=c99",)])
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
    """Return a capsule whose pointer must not be read."""
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
    """Yield the files of the package that a source file names."""
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
    """If memory ends in the middle of one, the code of Cython 3.3 releases an element twice."""
    made = [path for path in PACKAGE.rglob("*.c") if list(path.parent.glob(f"{path.stem}.py*"))]
    if not made:
        pytest.skip("an installed package has no C sources")
    assert not [path.name for path in made if "unlikely(__Pyx_ListComp_Append" in path.read_text()]
