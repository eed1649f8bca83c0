"""A program that PyInstaller has frozen finds every module that it needs, by the package's own hook."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import fastdrop as fd
from fastdrop import cpu
from fastdrop._pyinstaller import get_hook_dirs
from support import environment, output_of

PROGRAM = """
import fastdrop as fd

y, mask = fd.relu_dropout([1.0, -2.0, 3.0, 4.0], keep_prob=0.5, rng=1)
print(y.tolist(), *fd.cpu.available())
"""


def test_the_hook_names_every_kernel_and_no_adapter():
    hook = Path(get_hook_dirs()[0], "hook-fastdrop.py")
    named = runpy.run_path(str(hook))["hiddenimports"]
    assert {f"fastdrop.kernels.{isa}" for isa in cpu.available()} | {"fastdrop.core.call"} <= set(named)
    assert not [name for name in named if name.split(".")[1] in fd._ADAPTERS]


def test_the_hook_of_keras_names_the_backends_that_are_installed():
    named = runpy.run_path(str(Path(get_hook_dirs()[0], "hook-fastdrop.keras.py")))
    modules = {path.stem for path in Path(fd.__file__).with_name("keras").glob("*.py")}
    assert set(named["BACKENDS"]) <= modules
    assert {name.rpartition(".")[2] for name in named["hiddenimports"]} <= set(named["BACKENDS"])


def test_a_frozen_program_has_every_kernel(tmp_path):
    pytest.importorskip("PyInstaller", reason="PyInstaller is not in a group, because a frozen program takes 100 MB")
    (tmp_path / "program.py").write_text(PROGRAM)
    options = ["--onedir", "--log-level=ERROR", f"--additional-hooks-dir={get_hook_dirs()[0]}"]
    output_of([sys.executable, "-m", "PyInstaller", *options, "program.py"], cwd=tmp_path, env=environment())
    (tmp_path / "program.py").unlink()
    printed = output_of([tmp_path / "dist" / "program" / "program"], cwd=tmp_path, env={})
    assert printed.split("] ") == ["[0.0, 0.0, 6.0, 0.0", " ".join(cpu.available()) + "\n"]
