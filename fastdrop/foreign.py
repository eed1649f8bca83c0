"""Arrays of other libraries as NumPy arrays, with the values that their library gives them.

The values can differ from the memory, as for a masked array or a lazily negated tensor. No library is
imported here: whoever has an array of a library has loaded that library.
"""

from __future__ import annotations

import sys
from collections import UserList, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

CPU = 1  # its device type in DLPack's header
DEVICES = {
    2: "CUDA", 3: "CUDA host", 4: "OpenCL", 7: "Vulkan", 8: "Metal", 9: "VPI", 10: "ROCm",
    11: "ROCm host", 13: "CUDA managed", 14: "oneAPI", 15: "WebGPU", 16: "Hexagon", 17: "MAIA",
}  # fmt: skip


def base_array(name: str, value: Any) -> NDArray[Any]:
    """Return `value` as an exact ndarray of any dtype, without a copy where its memory has its values.

    A subclass of ndarray can override attributes such as its shape. A view as a plain ndarray cannot.
    """
    if type(value) is np.ndarray:
        return value
    array = value if isinstance(value, np.ndarray) else converted(name, value)
    if type(array) is not np.ndarray:
        refuse_other_arithmetic(name, array)
    return np.asarray(array)


def refuse_other_arithmetic(name: str, array: NDArray[Any]) -> None:
    """Refuse a subclass whose elements have a mask, a unit or another meaning beside their number."""
    if isinstance(array, loaded("numpy.ma", "MaskedArray")):
        raise TypeError(
            f"{name} must not be a masked array, because its mask would be lost: "
            "pass its filled() or its data"
        )
    if type(array).__array_ufunc__ is not np.ndarray.__array_ufunc__:
        raise TypeError(
            f"{name} must be an array with NumPy's own arithmetic, got {type(array).__name__}, which "
            "overrides __array_ufunc__ (as arrays with units do): pass numpy.asarray of it"
        )


def converted(name: str, value: Any) -> NDArray[Any]:
    """Return `value` as its library converts it to NumPy, or by DLPack where it has no such method."""
    if isinstance(value, loaded("torch", "Tensor")):
        return of_torch(name, value)
    refuse_device(name, value)
    refuse_no_array(name, value)
    if isinstance(value, (list, tuple, deque, UserList)):  # NumPy would read the items without these checks
        value = [
            item if isinstance(item, (float, int, np.generic)) else base_array(name, item) for item in value
        ]
    if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
        return asked(name, value, np.from_dlpack)
    return asked(name, value, np.asanyarray)


def refuse_no_array(name: str, value: Any) -> None:
    """Refuse a value that takes no part in NumPy's arithmetic, such as a Mask."""
    if getattr(type(value), "__array_ufunc__", True) is None:
        raise TypeError(
            f"{name} must be an array, got a {type(value).__name__}: where a call returned y and this, "
            "pass y alone"
        )


def loaded(module: str, name: str) -> Any:
    """Return a class of a library for `isinstance`, or () where the library is not loaded."""
    return getattr(sys.modules.get(module), name, ())


def asked(name: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    """Return the result of a conversion, or raise an error that names the argument."""
    try:
        return convert(value)
    except MemoryError:
        raise
    except Exception as error:  # a library can raise anything
        raise TypeError(
            f"{name} must be an array that NumPy can read, got {type(value).__name__}: {error}"
        ) from error


def refuse_device(name: str, value: Any) -> None:
    """Refuse an array that is not on the CPU, even if its library would copy it silently."""
    device = device_of(value)
    if device:
        raise TypeError(
            f"{name} must be on the CPU, got {type(value).__name__} on {device}: copy it to a NumPy array first, "
            "for example by cupy.asnumpy"
        )


def device_of(value: Any) -> str:
    """Return the device on which an array says that it lies; empty for the CPU, and where it says nothing."""
    try:
        kind, number = value.__dlpack_device__()
    except Exception:  # no such method, or no single device: the conversion has a better error
        return "a CUDA device" if hasattr(value, "__cuda_array_interface__") else ""
    if kind == CPU:
        return ""
    name = DEVICES.get(int(kind), f"DLPack's device type {int(kind)},")
    return f"{name} device {number}"


# --- PyTorch ----------------------------------------------------------------------------------


def of_torch(name: str, tensor: Any) -> NDArray[Any]:
    """Return a tensor as an array of the same memory. A lazy negation or conjugation is resolved."""
    torch = sys.modules["torch"]
    why = asked(name, tensor, lambda tensor: not_in_memory(torch, tensor))
    if why:
        raise TypeError(f"{name} must be a tensor whose memory holds its values, got one that {why}")
    array: NDArray[Any] = asked(name, tensor, lambda tensor: memory(torch, tensor))
    return array


def memory(torch: Any, tensor: Any) -> NDArray[Any]:
    """Return what `Tensor.numpy` returns; bfloat16, which it lacks, is viewed by its bytes."""
    tensor = tensor.resolve_conj().resolve_neg()
    array: NDArray[Any]
    if tensor.dtype == torch.bfloat16:
        from ml_dtypes import bfloat16

        array = tensor.view(torch.int16).numpy().view(bfloat16)
    else:
        array = tensor.numpy()
    return array


def not_in_memory(torch: Any, tensor: Any) -> str:
    """Return why the memory of a tensor does not hold all of its values; empty where it does."""
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor) or torch._is_functional_tensor(tensor):
        return "a transformation such as vmap has wrapped"
    if type(tensor).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return f"is a {type(tensor).__name__}, a subclass with operators of its own"
    if not tensor.is_cpu:
        return f"is on {tensor.device}: pass its cpu()"
    if tensor.is_nested:
        return "is nested"
    if tensor.is_quantized:
        return "is quantized: pass its dequantize()"
    if tensor.layout != torch.strided:
        return f"has the layout {tensor.layout}: pass its to_dense()"
    if tensor.requires_grad:
        return "requires a gradient: call fastdrop.torch, or pass its detach(), which has no gradient"
    if torch.autograd.forward_ad.unpack_dual(tensor).tangent is not None:
        return "has a tangent of forward-mode differentiation"
    if tensor._is_zerotensor():
        return "is a zero without memory: pass its clone()"
    if tensor.untyped_storage().nbytes() < reach(tensor):
        return "has a storage that was resized to fewer bytes"
    return ""


def reach(tensor: Any) -> int:
    """Return the bytes from the beginning of the storage to the end of the last element."""
    if not tensor.numel():
        return 0
    if tensor.is_contiguous():
        last = tensor.numel() - 1
    else:
        last = sum((length - 1) * stride for length, stride in zip(tensor.shape, tensor.stride()))
    return int((tensor.storage_offset() + last + 1) * tensor.element_size())
