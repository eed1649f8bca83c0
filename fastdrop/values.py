"""Pickling and copying, which Mask, Stream, StreamRows, Tile and GaussianNoise have in common.

A value gets its fields once, through one check, wherever they come from: the constructor, a pickle, a
copy or a subclass. A pickle names `fastdrop._restored` and a kind, so modules can move.
"""

from __future__ import annotations

import copyreg
from typing import Any

kinds: dict[str, type] = {}  # the kinds by the names that pickles use


def register(kind: type) -> None:
    """Let `_restored` restore pickles and copies of this kind."""
    kinds[kind.__name__] = kind


def unmade(kind: str) -> TypeError:
    """Return the error for a value that was never initialised."""
    return TypeError(f"a {kind} must be initialised before it is used, got what {kind}.__new__ alone makes")


def made_already(kind: str) -> TypeError:
    """Return the error for a value that is initialised again."""
    return TypeError(f"a {kind} keeps the values it was made with, and cannot be initialised again")


def reduced(value: Any, kind: type, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the call that pickle and copy restore a value by.

    A kind is given by its name, so its module can move; a subclass is given as the class itself.
    """
    if type(value) is kind:
        return _restored, (kind.__name__, *fields)
    return _restored, (type(value), *fields), added_state(value, kind)


def added_state(value: Any, kind: Any) -> Any:
    """Return the attributes that a subclass adds to those of its kind, in the form that pickle sets."""
    names = (name for name in copyreg._slotnames(type(value)) if name not in kind.__slots__)  # type: ignore[attr-defined]
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    attributes = getattr(value, "__dict__", None) or None
    return (attributes, slots) if slots else attributes


def _restored(kind: str | type, *fields: Any) -> Any:
    """Return the value that a pickle or a copy describes. It passes the checks of a new one."""
    cls: Any = kinds.get(kind) if isinstance(kind, str) else kind
    bases: list[Any] = [base for base in kinds.values() if isinstance(cls, type) and issubclass(cls, base)]
    if not bases:
        names = ", ".join(sorted(kinds))
        raise ValueError(f"kind must be {names} or a subclass of one of them, got {kind!r}")
    value = bases[0].__new__(cls)
    bases[0]._restore(value, *fields)
    return value


_restored.__module__ = "fastdrop"


class Results(tuple[Any, ...]):
    """The results of a call, which are a tuple to unpack: ``y, mask = relu_dropout(...)``.

    NumPy makes one array of a tuple of arrays. Whoever forgets to unpack the results would go on with an array that
    holds y and the mask, in silence. So these refuse to become an array.
    """

    __slots__ = ()

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        kinds = ", ".join(type(value).__name__ for value in self)
        raise TypeError(f"a tuple of results ({kinds}) is no array: unpack it, as in y, mask = relu_dropout(...)")

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        self.__array__()

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (tuple(self),)
