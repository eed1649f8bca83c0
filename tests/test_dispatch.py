"""The best kernel of this machine runs, or the one that is requested; everything else is an error."""

from __future__ import annotations

import platform
import shutil
import sys

import pytest

import fastdrop as fd
from fastdrop import cpu
from support import printed_by, run_python

ACTIVE = "import fastdrop.cpu as cpu; print(cpu.active())"
UNAVAILABLE = sorted(set(cpu.KERNELS) - set(cpu.available()))


def test_generic_is_always_there_and_the_last_choice():
    assert cpu.available()[-1] == "generic"
    assert set(cpu.available()) <= set(cpu.KERNELS)
    assert len(set(cpu.available())) == len(cpu.available())


def test_the_best_is_taken():
    assert printed_by(ACTIVE) == cpu.available()[0]


@pytest.mark.parametrize("name", cpu.available())
def test_the_environment_forces_one(name):
    code = f"{ACTIVE}; import fastdrop as fd; print(fd.keep_mask(20, keep_prob=0.5, rng=1).bits.tolist())"
    bits = fd.reference.keep_mask(20, keep_prob=0.5, rng=1).bits.tolist()
    assert printed_by(code, FASTDROP_ISA=name).splitlines() == [name, str(bits)]


@pytest.mark.parametrize("name", ["sse9", "AVX2 ", *UNAVAILABLE])
def test_the_environment_cannot_force_what_is_not_there(name):
    process = run_python(ACTIVE, FASTDROP_ISA=name)
    assert process.returncode != 0
    assert process.stdout == ""
    message = process.stderr.splitlines()[-1]
    assert "FASTDROP_ISA" in process.stderr
    assert name in message
    assert all(available in message for available in cpu.available())


@pytest.mark.parametrize("name", ["sse9", "", *UNAVAILABLE])
def test_activating_what_is_not_there(isa, name):
    with pytest.raises(ValueError, match=repr(name)) as error:
        cpu.activate(name)
    assert all(available in str(error.value) for available in cpu.available())
    assert cpu.active() == isa


def test_a_kernel_that_fails_to_import_is_an_error():
    """The next best kernel is not used instead: a broken build must not pass for a slow machine."""
    code = f"""
import sys
from importlib.machinery import ModuleSpec

class Broken:
    def find_spec(self, name, path=None, target=None):
        return ModuleSpec(name, self) if name == "fastdrop.kernels.{cpu.available()[0]}" else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        raise ImportError("undefined symbol: dropout_kernel")

sys.meta_path.insert(0, Broken())
import fastdrop
"""
    process = run_python(code)
    assert process.returncode != 0
    assert "undefined symbol: dropout_kernel" in process.stderr


def test_importing_leaves_subnormals_alone():
    """Libraries linked with -ffast-math have made whole processes flush subnormals to zero."""
    code = """
import sys, numpy as np, fastdrop as fd
fd.relu_dropout(np.ones(100_000, np.float32), keep_prob=0.5)
assert sys.float_info.min / 2 != 0 and sys.float_info.min / 2 * 2 == sys.float_info.min
assert np.finfo(np.float32).tiny * np.float32(0.5) != 0
"""
    printed_by(code)


# Other machines are emulated. Instructions that they lack must not run at import.
MODELS = {"Nehalem": ["generic"], "Haswell": ["avx2", "generic"]}


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="x86-64 Linux")
@pytest.mark.skipif(not shutil.which("qemu-x86_64"), reason="no qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize("model", MODELS)
def test_older_machines(model):
    code = """
import fastdrop as fd, fastdrop.cpu as cpu
print(*cpu.available())
print(fd.relu_dropout([1.0, -1.0, 2.0, 3.0], keep_prob=0.5, rng=1)[0].tolist())
"""
    prefix = ("qemu-x86_64", "-cpu", model)
    # NumPy's BLAS also has to believe in the emulated machine, whatever is set for this one.
    blas = {"OPENBLAS_NUM_THREADS": "1", "OPENBLAS_CORETYPE": model}
    available, y = printed_by(code, prefix=prefix, **blas).splitlines()
    assert available.split() == MODELS[model]
    assert y == "[0.0, 0.0, 4.0, 0.0]"
