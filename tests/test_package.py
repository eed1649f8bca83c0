"""What `import fastdrop` gives: the public names, and the adapters when they are first used."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

import fastdrop as fd
from fastdrop.optional import needs
from support import PACKAGE, plain_package, printed_by, run_python

ADAPTERS = ("dask", "jax", "keras", "thinc", "torch")


def test_dir_shows_the_public_names_alone():
    assert {name for name in dir(fd) if not name.startswith("__")} == set(fd.__all__)
    assert all(hasattr(fd, name) for name in dir(fd))


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_imported_when_it_is_first_used(name):
    pytest.importorskip(name, reason=f"{name} is in the extra of that name")
    loaded = f"'fastdrop.{name}' in sys.modules"
    code = f"import sys, fastdrop as fd; print({loaded}, fd.{name}.__name__)"
    assert printed_by(code) == f"False fastdrop.{name}"


@pytest.mark.parametrize("way", ["fd.{}", "import fastdrop.{}"])
@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_without_its_framework_says_how_to_install_it(name, way):
    code = f"""
import sys, fastdrop as fd
sys.modules[{name!r}] = None
try:
    {way.format(name)}
except ModuleNotFoundError as error:
    print(error)
"""
    assert printed_by(code) == needs(f"fastdrop.{name}", name, name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fastdrop' has no attribute 'dropuot'"):
        _ = fd.dropuot


# --- an editable install ----------------------------------------------------------------------


def test_an_editable_install_is_a_path_that_every_tool_follows():
    """Type checkers, editors and Cython look at paths, and not at setuptools' import hooks."""
    try:
        installed = metadata.distribution("fastdrop-kernels")
    except metadata.PackageNotFoundError:
        pytest.skip("it is not installed, but on the path")
    added = [path for path in installed.files or [] if path.name.startswith("__editable__")]
    if not added:
        pytest.skip("it is installed as a wheel")
    assert [path.suffix for path in added] == [".pth"]
    assert Path(added[0].locate().read_text().strip()).resolve() == PACKAGE.parent


# --- what is found instead of an installed package --------------------------------------------


def refusal(folder, code="import fastdrop"):
    """Return the last line of what Python says where it finds the package in a folder."""
    process = run_python(code, PYTHONPATH=str(folder))
    assert process.returncode == 1
    return process.stderr.splitlines()[-1]


def test_a_checkout_without_compiled_modules_says_what_to_do(tmp_path):
    package = plain_package(tmp_path, (PACKAGE / "__init__.py").read_text())
    (package / "core").mkdir()
    (package / "core" / "__init__.py").write_text((PACKAGE / "core" / "__init__.py").read_text())
    said = refusal(tmp_path)
    assert said.startswith(f"ImportError: fastdrop in {package} has no modules that were compiled for this Python (")
    assert "leave the folder" in said
    assert "make build, or pip install -e ." in said


# A folder without `__init__.py` is a package only where no path has one with it.
ALONE = """
import os, sys
sys.path[:] = [path for path in sys.path if not os.path.exists(os.path.join(path, "fastdrop", "__init__.py"))]
"""


@pytest.mark.parametrize("init", ['__version__ = "2.0"', None])
def test_files_of_another_project_of_that_name_are_seen(tmp_path, init):
    """Its package may lie over ours, or have taken `__init__.py` with it when it was uninstalled."""
    package = plain_package(tmp_path, init or "")
    if init is None:
        (package / "__init__.py").unlink()
    (package / "core").mkdir()
    (package / "core" / "__init__.py").write_text((PACKAGE / "core" / "__init__.py").read_text())
    said = refusal(tmp_path, (ALONE if init is None else "") + "import fastdrop.core.dispatch")
    assert said.startswith("ImportError: the files of another project called fastdrop are mixed with these in")
    assert str(package) in said
    assert "uninstall fastdrop fastdrop-kernels, and install again" in said
