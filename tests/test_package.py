"""What `import fastdrop` gives: the public names, and the adapters when they are first used."""

from __future__ import annotations

import pytest

import fastdrop as fd
from support import printed_by

ADAPTERS = {"dask": "dask", "jax": "jax", "thinc": "thinc", "torch": "torch"}


def test_dir_shows_the_public_names_alone():
    assert {name for name in dir(fd) if not name.startswith("__")} == set(fd.__all__)
    assert all(hasattr(fd, name) for name in dir(fd))


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_imported_when_it_is_first_used(name):
    pytest.importorskip(ADAPTERS[name], reason=f"{name} is in the extra of that name")
    loaded = f"'fastdrop.{name}' in sys.modules"
    code = f"import sys, fastdrop as fd; print({loaded}, fd.{name}.__name__)"
    assert printed_by(code) == f"False fastdrop.{name}"


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_without_its_framework_says_what_is_missing(name):
    code = f"""
import sys, fastdrop as fd
sys.modules[{ADAPTERS[name]!r}] = None
try:
    fd.{name}
except ModuleNotFoundError as error:
    print(error)
"""
    assert printed_by(code) == f"fastdrop.{name} needs {ADAPTERS[name]}, which is not installed"


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'fastdrop' has no attribute 'dropuot'"):
        _ = fd.dropuot
