"""Arrays of other libraries: taken as they lie in memory, through DLPack or the buffer protocol."""

from __future__ import annotations

import array

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import arguments

X = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


class OnlyDLPack:
    """What a library has to offer at the least."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


def of_torch():
    return pytest.importorskip("torch", reason="PyTorch is an optional dependency").from_numpy(X)


def of_jax():
    return pytest.importorskip("jax.numpy", reason="JAX is an optional dependency").asarray(X)


SOURCES = {
    "a class with DLPack alone": lambda: OnlyDLPack(X),
    "a memoryview": lambda: memoryview(X),
    "PyTorch": of_torch,
    "JAX": of_jax,
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_result_is_that_for_numpys_own(isa, source):
    value = SOURCES[source]()
    expected, expected_mask = fd.relu_dropout(X, 0.7, rng=1)
    y, mask = fd.relu_dropout(value, 0.7, rng=1)
    assert type(y) is np.ndarray
    assert np.array_equal(y, expected)
    assert mask == expected_mask
    assert np.array_equal(fd.relu_dropout_backward(value, mask), fd.relu_dropout_backward(X, mask))


@pytest.mark.parametrize("source", ["a class with DLPack alone", "a memoryview", "PyTorch"])
def test_nothing_is_copied(source):
    assert np.shares_memory(arguments.elements("x", SOURCES[source]()), X)


def test_an_array_of_the_standard_library():
    values = array.array("d", [1.0, -2.0, 3.0])
    assert np.array_equal(fd.relu_dropout_predict(values, 0.5), [1.0, 0.0, 3.0])


def test_what_cannot_be_shared_is_said(library):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    with pytest.raises(TypeError, match=r"x must lie in memory that NumPy can share, got Tensor: .*grad"):
        library.dropout(torch.ones(3, requires_grad=True), 0.5)
    with pytest.raises(TypeError, match="x must lie in memory that NumPy can share, got Tensor"):
        library.dropout(torch.ones(3, device="meta"), 0.5)
    with pytest.raises(TypeError, match=r"x must have dtype .*, got int64"):
        library.dropout(torch.ones(3, dtype=torch.int64), 0.5)
