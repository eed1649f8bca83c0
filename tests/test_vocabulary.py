"""Every vector vocabulary in simd/ equals plain loops, and ARS on each gives its known answers."""

from __future__ import annotations

import functools
import importlib
import platform
import re
import shutil
from pathlib import Path

import pytest

from fastdrop import cpu
from support import DATA, KNOWN_ANSWERS, PACKAGE, content, known_answers, output_of, setup_script

X86 = ("avx2", "avx2_vaes", "avx512")
HEADERS = {**dict.fromkeys(X86, "x86_64"), "neon": "aarch64"}  # each beside the machine it is for
EMULATED_AVX512 = ("-Wno-psabi", "-include", str(DATA / "emulated_avx512.h"))
VOCABULARY = PACKAGE / "kernels" / "simd"
MACHINE = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())


# --- through the kernel modules ---------------------------------------------------------------


@pytest.mark.parametrize("known", list(known_answers()))
def test_known_answers(isa, known):
    kernel = importlib.import_module(f"fastdrop.kernels.{isa}")
    output = kernel.probe_ars(known.counter, known.key, known.rounds)
    group = len(output) // 16
    assert output == known.output.to_bytes(16, "little") * group
    assert group >= 1


def test_seven_rounds_are_what_a_stream_takes(isa):
    kernel = importlib.import_module(f"fastdrop.kernels.{isa}")
    assert kernel.probe_ars(3, 4) == kernel.probe_ars(3, 4, 7) != kernel.probe_ars(3, 4, 10)


# --- function by function, in C ---------------------------------------------------------------


def flags_of(name: str, machine: str) -> list[str]:
    """Return the flags that setup.py compiles the kernel `name` with on `machine`."""
    extensions = setup_script(f"linux-{machine}").extensions
    return next(e.extra_compile_args for e in extensions if e.name == f"fastdrop.kernels.{name}")


def tools(machine: str) -> tuple[str, list[str]]:
    """Return a compiler for `machine` and the command that runs its programs here, or skip the test."""
    if machine == MACHINE:
        compiler = shutil.which("gcc") or pytest.skip("no gcc")
        return compiler, []
    compiler = shutil.which(f"{machine}-linux-gnu-gcc") or pytest.skip(f"no cross compiler for {machine}")
    emulator = shutil.which(f"qemu-{machine}") or pytest.skip(f"no qemu-{machine} (Debian: qemu-user)")
    return compiler, [emulator, "-cpu", "max"]


def text_of(name: str, machine: str, directory: Path, *more: str, needs: str = "") -> str:
    """Return what the driver prints on a vocabulary for a CPU that has `needs`."""
    compiler, emulator = tools(machine)
    needs = needs or name
    program = directory / name
    command = [
        *(compiler, "-std=gnu11", "-static", "-Wall", "-Wextra", "-Werror"),
        *(*flags_of(needs, machine), *more),
        *("-I", str(VOCABULARY.parent), f'-DVOCABULARY_HEADER="simd/{name}.h"'),
        *(str(DATA / "vocabulary_driver.c"), "-lm", "-o", str(program)),
    ]
    output_of(command)
    if not emulator and needs not in cpu.available():
        pytest.skip(f"compiled, but this CPU does not have {needs}")
    return output_of([*emulator, str(program)], input=questions())


def questions() -> str:
    """Return what the driver reads."""
    return "\n".join(line.split("->")[0] for line in content(KNOWN_ANSWERS))


@pytest.fixture(scope="module")
def plain_loops(tmp_path_factory):
    """Return a function of the machine that gives what the driver prints on plain loops."""

    @functools.cache
    def text(machine: str) -> str:
        return text_of("generic", machine, tmp_path_factory.mktemp(machine), "-DFASTDROP_PLAIN")

    return text


@pytest.mark.parametrize("name", ["generic", *HEADERS])
def test_functions_equal_plain_loops(name, plain_loops, tmp_path):
    machine = HEADERS.get(name, MACHINE)
    lines = text_of(name, machine, tmp_path).splitlines()
    generic = plain_loops(machine).splitlines()
    answers = [line.split("->")[1].strip() for line in content(KNOWN_ANSWERS)]
    assert [line for line in lines if line.startswith("ars")] == [f"ars {answer}" for answer in answers]
    assert "which 0, of one bit 1024, the lowest 1024" in lines
    for part in ("bit slices", "chains"):
        assert {line for line in lines if line.startswith(part)} == {f"{part} agree"}
    assert len(lines) == len(generic)
    assert [pair for pair in zip(lines, generic, strict=True) if pair[0] != pair[1]] == []


@pytest.mark.skipif(MACHINE != "x86_64", reason="the emulation uses AVX2")
@pytest.mark.parametrize("name", ["avx2_vaes", "avx512"])
def test_functions_equal_the_generic_ones_also_on_a_cpu_with_avx2_alone(name, tmp_path):
    text = text_of(name, MACHINE, tmp_path, *EMULATED_AVX512, needs="avx2")
    assert text == text_of("generic", MACHINE, tmp_path)


def functions(header: Path) -> set[str]:
    """Return the vocabulary functions that a header defines, also through headers that it includes."""
    text = header.read_text()
    shared = re.findall(r'#include "(\w+\.h)"', text)
    names = re.findall(r"^VOCABULARY [\w ]+?\**(\w+)\(", text, re.MULTILINE)
    return set(names).union(*(functions(header.with_name(name)) for name in shared))


in_a_checkout = pytest.mark.skipif(not VOCABULARY.is_dir(), reason="the headers are in a checkout alone")


@in_a_checkout
@pytest.mark.parametrize("name", ["generic", *HEADERS])
def test_every_function_is_defined_and_driven(name):
    declared = (VOCABULARY.parent / "vocabulary.pxi").read_text()
    wanted = set(re.findall(r"(\w+)\([^)]*\) noexcept nogil", declared))
    assert len(wanted) >= 20
    assert wanted <= functions(VOCABULARY / f"{name}.h")
    driver = (DATA / "vocabulary_driver.c").read_text()
    assert {function for function in wanted if not re.search(rf"\b{function}\(", driver)} == set()


@in_a_checkout
def test_every_header_is_here():
    headers = {path.stem for path in VOCABULARY.glob("*.h")} - {"common", "avx2_lanes", "blocks", "chains", "bitslices"}
    assert headers == {"generic", *HEADERS} == set(cpu.KERNELS)
