"""A call takes arrays of other libraries as their owner means them, or refuses them with a clear error."""

from __future__ import annotations

import array
import warnings
from collections import UserList, deque
from tempfile import TemporaryFile

import ml_dtypes
import numpy as np
import pytest

import fastdrop as fd
from fastdrop import checks
from support import assert_identical

X = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


class OnlyDLPack:
    """This offers the least that a library has to offer."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options):
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.values.__dlpack_device__()


class ConvertedAndShared(OnlyDLPack):
    """The memory of this library's array is not what it means: it holds the values times two."""

    def __array__(self, dtype=None, copy=None):
        return self.values / 2


class OnADevice(ConvertedAndShared):
    """This library would silently copy from another device."""

    def __dlpack_device__(self):
        return 2, 1


class LikeCuPys(OnlyDLPack):
    """CuPy's arrays refuse NumPy's conversion, and say where they are in two ways."""

    @property
    def __cuda_array_interface__(self):
        return {"version": 3, "shape": (5, 7), "typestr": "<f4", "data": (0, False)}

    def __array__(self, dtype=None, copy=None):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __dlpack_device__(self):
        return 2, 0


class LikeNumbas:
    """Device arrays of some libraries offer CUDA's interface alone, and NumPy would make an object of them."""

    __cuda_array_interface__ = LikeCuPys.__cuda_array_interface__


def of_torch(values=X):
    return pytest.importorskip("torch", reason="PyTorch is an optional dependency").from_numpy(values)


def of_jax():
    return pytest.importorskip("jax.numpy", reason="JAX is an optional dependency").asarray(X)


def lazily_negative():
    """Return the imaginary part of a conjugate, which PyTorch negates when it is read."""
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    tensor = torch.complex(torch.zeros(5, 7), -of_torch()).conj().imag
    assert tensor.is_neg()
    return tensor


SOURCES = {
    "a class with DLPack alone": lambda: OnlyDLPack(X),
    "its own conversion before its memory": lambda: ConvertedAndShared(X * 2),
    "a memoryview": lambda: memoryview(X),
    "a matrix": lambda: X.view(np.matrix),
    "a list of arrays": lambda: list(X),
    "nested sequences of scalars": lambda: [tuple(row) for row in X],
    "PyTorch": of_torch,
    "PyTorch, transposed": lambda: of_torch(np.ascontiguousarray(X.T)).T,
    "PyTorch, lazily negative": lazily_negative,
    "a list of PyTorch's": lambda: list(lazily_negative()),
    "JAX": of_jax,
}


@pytest.mark.parametrize("source", SOURCES)
def test_the_result_is_that_for_numpys_own(library, source):
    value = SOURCES[source]()
    expected, expected_mask = fd.reference.relu_dropout(X, keep_prob=0.7, rng=1)
    y, mask = library.relu_dropout(value, keep_prob=0.7, rng=1)
    assert_identical(y, expected)
    assert mask == expected_mask
    assert_identical(library.relu_dropout_backward(value, mask), fd.reference.relu_dropout_backward(X, mask))


def test_bfloat16_is_not_copied_either():
    x = X.astype(ml_dtypes.bfloat16)
    assert np.shares_memory(checks.elements("x", bfloat16_of_torch(x)), x)
    of_jax = bfloat16_of_jax(x)
    assert checks.elements("x", of_jax).ctypes.data == of_jax.unsafe_buffer_pointer()


class OfASubclass(np.ndarray):
    """A subclass that only has more attributes."""


def memory_map():
    with TemporaryFile() as file:
        file.write(X.tobytes())
        return np.memmap(file, X.dtype, "r+", shape=X.shape)


KINDS = {
    "a matrix": lambda: X.view(np.matrix),
    "a subclass": lambda: X.view(OfASubclass),
    "a record array's field": lambda: np.rec.fromarrays([X], names="value").value,
    "a memory map": memory_map,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_subclass_of_ndarray_gives_an_ndarray(library, kind):
    value = KINDS[kind]()
    y, mask = library.dropout(value, keep_prob=0.7, rng=1)
    assert type(y) is np.ndarray
    assert_identical(y, fd.reference.dropout(X, keep_prob=0.7, rng=1)[0])
    assert type(library.dropout_backward(value, mask)) is np.ndarray


@pytest.mark.parametrize("kind", ["a matrix", "a subclass", "a memory map"])
def test_out_comes_back_as_it_was_given(library, kind):
    out = KINDS[kind]() if kind == "a memory map" else KINDS[kind]().copy()
    y, _ = library.dropout(X, keep_prob=0.7, rng=1, out=out)
    assert y is out
    assert_identical(np.asarray(out), fd.reference.dropout(X, keep_prob=0.7, rng=1)[0])


def of_pandas():
    return pytest.importorskip("pandas", reason="pandas is an optional dependency").DataFrame(X)


def of_xarray():
    xarray = pytest.importorskip("xarray", reason="xarray is an optional dependency")
    return xarray.DataArray(X, dims=("time", "place"), coords={"time": range(5)})


@pytest.mark.parametrize("of_library", [of_pandas, of_xarray])
def test_labels_are_not_kept(library, of_library):
    value = of_library()
    y, mask = library.relu_dropout(value, keep_prob=0.7, rng=1)
    assert type(y) is np.ndarray
    assert_identical(y, fd.reference.relu_dropout(X, keep_prob=0.7, rng=1)[0])
    assert type(library.relu_dropout_backward(value, mask)) is np.ndarray
    assert_identical(np.asarray(value), X)


def test_columns_of_pandas(library):
    pandas = pytest.importorskip("pandas", reason="pandas is an optional dependency")
    column = pandas.Series(X[:, 0], index=range(5, 10))
    y, _ = library.dropout(column, keep_prob=0.7, rng=1)
    assert_identical(y, fd.reference.dropout(X[:, 0], keep_prob=0.7, rng=1)[0])
    with pytest.raises(TypeError, match="x must have dtype float32"):
        library.dropout(pandas.Series([1, 2]), keep_prob=0.7, rng=1)


@pytest.mark.parametrize("source", ["a class with DLPack alone", "a memoryview", "a matrix", "PyTorch"])
def test_nothing_is_copied(source):
    taken = checks.elements("x", SOURCES[source]())
    assert type(taken) is np.ndarray
    assert np.shares_memory(taken, X)


def test_an_array_of_the_standard_library():
    values = array.array("d", [1.0, -2.0, 3.0])
    assert np.array_equal(fd.relu_dropout_predict(values, keep_prob=0.5), [1.0, 0.0, 3.0])


def bfloat16_of_torch(values):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    return torch.from_numpy(values.view(np.int16)).view(torch.bfloat16)


def bfloat16_of_jax(values):
    return pytest.importorskip("jax.numpy", reason="JAX is an optional dependency").asarray(values)


@pytest.mark.parametrize("of_library", [bfloat16_of_torch, bfloat16_of_jax])
def test_bfloat16_keeps_every_bit(library, of_library):
    x = np.append(X, [np.nan, -np.inf, -0.0, 1e-40, 3e38]).astype(ml_dtypes.bfloat16)
    wanted, wanted_mask = fd.reference.dropout(x, keep_prob=0.7, rng=1)
    for value in (of_library(x), list(of_library(x))):
        assert_identical(checks.elements("x", value), x)
        y, mask = library.dropout(value, keep_prob=0.7, rng=1)
        assert_identical(y, wanted)
        assert mask == wanted_mask


# --- refused ----------------------------------------------------------------------------------


def masked():
    return np.ma.masked_array(X, X > 0)


class WithUnits(np.ndarray):
    """The memory holds numbers whose unit lies elsewhere, as in astropy's and unyt's arrays."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        return NotImplemented


class ReturnsMasked:
    """Variables of netCDF4 do so."""

    def __array__(self, dtype=None, copy=None):
        return masked()


NOT_NUMBERS = {
    "masked": (masked, "{} must not be a masked array, because its mask would be lost"),
    "nothing masked": (lambda: np.ma.masked_array(X), "{} must not be a masked array"),
    "a list of masked": (lambda: [masked(), masked()], "{} must not be a masked array"),
    "one masked number in a list": (lambda: [1.0, np.ma.masked], "{} must not be a masked array"),
    "converts to masked": (ReturnsMasked, "{} must not be a masked array"),
    "with units": (lambda: X.view(WithUnits), "{} must be an array with NumPy's own arithmetic, got W"),
    "on a device": (lambda: OnADevice(X), "{} must be on the CPU, got OnADevice on CUDA device 1"),
    "like CuPy's": (lambda: LikeCuPys(X), "{} must be on the CPU, got LikeCuPys on CUDA device 0: copy it to a Num"),
    "with CUDA's interface": (LikeNumbas, "{} must be on the CPU, got LikeNumbas on a CUDA device: copy it to a NumPy"),
    "on a device, in a list": (lambda: [OnADevice(X)], "{} must be on the CPU, got OnADevice on CUDA"),
    "long double": (lambda: X.astype(np.longdouble), "{} must have dtype float32"),
    "a record": (lambda: np.zeros((5, 7), [("value", np.float32)]), "{} must have dtype float32"),
}
CALLS = {
    "x": lambda library, value: library.dropout(value, keep_prob=0.5, rng=1),
    "bias": lambda library, value: library.dropout(X, keep_prob=0.5, rng=1, bias=value),
    "residual": lambda library, value: library.dropout_add(X, value, keep_prob=0.5, rng=1),
    "dy": lambda library, value: library.dropout_backward(value, fd.keep_mask((5, 7), keep_prob=0.5)),
    "saved": lambda library, value: library.relu_dropout_backward(X, value, keep_prob=0.5, mode="vanilla"),
}


@pytest.mark.parametrize("argument", CALLS)
@pytest.mark.parametrize("what", NOT_NUMBERS)
def test_what_is_more_than_its_numbers_is_refused(library, what, argument):
    make, expected = NOT_NUMBERS[what]
    with pytest.raises(TypeError) as raised:
        CALLS[argument](library, make())
    assert str(raised.value).startswith(expected.format(argument))


@pytest.mark.parametrize("out", [masked(), X.copy().view(WithUnits)], ids=["masked", "with units"])
def test_nothing_is_written_to_what_is_more_than_its_numbers(library, out):
    for call in (library.dropout, library.gaussian_dropout, library.dropout_predict):
        with pytest.raises(TypeError, match=r"out must (not be a masked|be an array with NumPy's own)"):
            call(X, keep_prob=0.5, out=out)
    assert_identical(np.array(out), X)


def fake(torch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        return torch.ones(3)


def of_masked(torch):
    from torch.masked import masked_tensor

    return masked_tensor(torch.ones(3), torch.tensor([True, False, True]))


def resized(torch):
    """Sharded training does so with parameters that it does not need at the moment."""
    tensor = torch.ones(3)
    tensor.untyped_storage().resize_(8)
    return tensor


def quantized(torch):
    return torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)


TENSORS = {
    "a gradient": (lambda torch: torch.ones(3, requires_grad=True), "requires a gradient"),
    "no device": (lambda torch: torch.ones(3, device="meta"), "is on meta"),
    "sparse": (lambda torch: torch.ones(3).to_sparse(), "has the layout torch.sparse_coo"),
    "quantized": (quantized, "is quantized"),
    "nested": (lambda torch: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), "is nested"),
    "masked": (of_masked, "is a MaskedTensor, a subclass with operators of its own"),
    "fake": (fake, "is a FakeTensor, a subclass with operators of its own"),
    "zero": (lambda torch: torch._efficientzerotensor((3,)), "is a zero without memory"),
    "functional": (lambda torch: torch._to_functional_tensor(torch.ones(3)), "a transformation such as vmap"),
    "resized": (resized, "has a storage that was resized to fewer bytes"),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_tensor_whose_memory_is_not_its_values_is_refused(library, what):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what PyTorch says of prototypes and of what it will remove
        tensor = TENSORS[what][0](torch)
    start = "x must be a tensor whose memory holds its values, got one that "
    for value in (tensor, [tensor]):
        with pytest.raises(TypeError) as raised:
            library.dropout(value, keep_prob=0.5)
        assert str(raised.value).startswith(start + TENSORS[what][1])


def test_a_tensor_inside_a_transformation_is_refused(library):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")

    def call(x):
        return torch.from_numpy(library.dropout(x, keep_prob=0.5)[0])

    for transformed in (torch.vmap(call), torch.func.grad(call)):
        with pytest.raises(TypeError, match="got one that a transformation such as vmap has wrapped"):
            transformed(torch.ones(3))


def test_a_tangent_is_not_lost(library):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    forward_ad = torch.autograd.forward_ad
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch uses what it deprecates
        with forward_ad.dual_level():
            dual = forward_ad.make_dual(torch.ones(3), torch.ones(3))
            with pytest.raises(TypeError, match="got one that has a tangent"):
                library.dropout(dual, keep_prob=0.5)


def test_a_tensor_of_another_dtype_is_refused(library):
    torch = pytest.importorskip("torch", reason="PyTorch is an optional dependency")
    for dtype in (torch.int64, torch.complex64):
        with pytest.raises(TypeError, match=f"x must have dtype .*, got {str(dtype).removeprefix('torch.')}"):
            library.dropout(torch.ones(3, dtype=dtype), keep_prob=0.5)


def test_jax_in_a_transformation_is_refused(library):
    jax = pytest.importorskip("jax", reason="JAX is an optional dependency")
    for transformed in (jax.jit, jax.vmap, jax.grad):
        with pytest.raises(TypeError, match=r"x must be an array that NumPy can read, got .*Tracer"):
            transformed(lambda x: library.dropout(x, keep_prob=0.5)[0])(jax.numpy.ones(3))


def test_a_jax_array_that_was_given_away_is_refused(library):
    jax = pytest.importorskip("jax", reason="JAX is an optional dependency")
    gone = jax.numpy.ones(3)
    gone.delete()
    with pytest.raises(TypeError, match=r"x must be an array that NumPy can read, got .*: .*deleted"):
        library.dropout(gone, keep_prob=0.5)


def test_memory_that_runs_out_is_no_wrong_type(library):
    class Large:
        def __array__(self, dtype=None, copy=None):
            raise MemoryError

    with pytest.raises(MemoryError):
        library.dropout(Large(), keep_prob=0.5)


@pytest.mark.parametrize("sequence", [list, tuple, deque, UserList])
def test_a_masked_array_in_a_sequence_is_refused(sequence):
    with pytest.raises(TypeError, match="must not be a masked array"):
        fd.dropout_predict(sequence([np.ma.array([1.0, 2.0], mask=[1, 0])]), keep_prob=0.5)
