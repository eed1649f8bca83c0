"""The handlers of XLA's foreign functions, and what they say to an XLA that nobody has seen."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

jax = pytest.importorskip("jax", reason="JAX is an optional dependency")

from jax import numpy as jnp  # noqa: E402

from fastdrop.jax import handlers, paths  # noqa: E402


class Version(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p),
                ("major", ctypes.c_int32), ("minor", ctypes.c_int32)]  # fmt: skip


class Metadata(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("version", Version), ("traits", ctypes.c_uint32)]


class MetadataExtension(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("type", ctypes.c_int32), ("next", ctypes.c_void_p),
                ("metadata", ctypes.POINTER(Metadata))]  # fmt: skip


class Request(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p),
                ("message", ctypes.c_char_p), ("code", ctypes.c_int32)]  # fmt: skip


CreateError = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Request))


class Api(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p), ("version", Version),
                ("internal", ctypes.c_void_p), ("create_error", CreateError)]  # fmt: skip


class List(ctypes.Structure):
    """Arguments, results or (with names) attributes."""

    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p), ("count", ctypes.c_int64),
                ("types", ctypes.c_void_p), ("items", ctypes.c_void_p)]  # fmt: skip


class Attributes(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p), ("count", ctypes.c_int64),
                ("types", ctypes.c_void_p), ("names", ctypes.c_void_p),
                ("items", ctypes.c_void_p)]  # fmt: skip


class Frame(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("extensions", ctypes.c_void_p), ("api", ctypes.POINTER(Api)),
                ("context", ctypes.c_void_p), ("stage", ctypes.c_int32),
                ("arguments", List), ("results", List), ("attributes", Attributes)]  # fmt: skip


def handler(capsule):
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(Frame))(pointer(capsule, None))


def frame(minor, major=0, **smaller):
    """A frame of an XLA of this version, some of whose parts are smaller than expected."""
    messages = []
    create = CreateError(lambda request: messages.append(request.contents.message.decode()) or 1)
    api = Api(ctypes.sizeof(Api), None, Version(ctypes.sizeof(Version), None, major, minor), None, create)
    result = Frame(ctypes.sizeof(Frame), None, None if minor is None else ctypes.pointer(api), None, 3)
    for name in ("arguments", "results", "attributes"):
        part = getattr(result, name)
        part.size = ctypes.sizeof(part) - 8 * (name in smaller)
    result.size -= 8 * ("frame" in smaller)
    return result, messages, api


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("minor", "smaller", "stated"),
    [(1, {}, 1), (2, {}, 2), (3, {}, 3), (99, {}, 3), (0, {}, 1), (None, {}, 1)]
    + [(3, {part: True}, 0) for part in ("frame", "arguments", "results", "attributes")]
    + [(3, {"major": 1}, 0)],
)
def test_the_version_that_is_stated(which, minor, smaller, stated):
    """0.0, which XLA refuses, where structures are not those that are known."""
    asked, _, _api = frame(minor or 0, **smaller)
    if minor is None:  # jaxlib before 0.8
        asked.api = None
    about = Metadata(ctypes.sizeof(Metadata), Version(), 77)
    extension = MetadataExtension(ctypes.sizeof(MetadataExtension), 1, None, ctypes.pointer(about))
    asked.extensions = ctypes.cast(ctypes.pointer(extension), ctypes.c_void_p)
    assert handler(handlers.capsules()[which])(asked) is None
    assert (about.version.major, about.version.minor, about.traits) == (0, stated, 0)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    ("changed", "says"),
    [({}, "the arguments must be"), ({"stage": 0}, "version"), ({"frame": True}, "version")],
)
def test_a_call_that_is_not_understood_is_an_error(which, changed, says):
    asked, messages, _api = frame(3, **{name: True for name in changed if name != "stage"})
    asked.stage = changed.get("stage", 3)
    assert handler(handlers.capsules()[which])(asked) == 1
    assert len(messages) == 1
    assert says in messages[0]


@pytest.mark.parametrize(
    ("target", "attributes", "results", "says"),
    [
        (paths.FORWARD, {}, [(3, "float32"), (1, "uint8")], "keep_prob, scale, relu and derive"),
        (paths.FORWARD, {"derive": 0}, [(3, "float32"), (1, "uint8")], "words of uint32"),
        (paths.FORWARD, {"derive": 1}, [(4, "float32"), (1, "uint8")], "fit each other"),
        (paths.FORWARD, {"derive": 1}, [(3, "float16"), (1, "uint8")], "fit each other"),
        (paths.FORWARD, {"derive": 1}, [(3, "float32"), (2, "uint8")], "fit each other"),
        (paths.FORWARD, {"derive": 1, "keep_prob": 2.0}, [(3, "float32"), (1, "uint8")], "keep_prob must be"),
        (paths.BACKWARD, {}, [(3, "float32")], "scale must be given"),
        (paths.BACKWARD, {"scale": 1.0}, [(3, "float32")], "fit each other"),
    ],
)
def test_a_handler_checks_what_it_is_given(target, attributes, results, says):
    """Whoever calls the targets by hand gets an error, and no foreign memory."""
    given = {"keep_prob": 0.5, "scale": 2.0, "relu": 0} | attributes if "derive" in attributes else attributes
    given = {name: np.float64(value) if isinstance(value, float) else np.int32(value)
             for name, value in given.items()}
    assert paths.in_use() == "ffi"
    shapes = [jax.ShapeDtypeStruct((size,), dtype) for size, dtype in results]
    foreign = jax.ffi.ffi_call(target, shapes if len(shapes) > 1 else shapes[0])
    with pytest.raises(Exception, match=says):
        jax.block_until_ready(foreign(jnp.ones(3), jnp.zeros(2, "uint32"), **given))
