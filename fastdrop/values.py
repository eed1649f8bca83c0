"""What a Mask, a Stream, a Tile and a GaussianNoise have in common.

Each gets its values once, through one check, whatever way it comes: from its constructor, a pickle, a
copy or a subclass. A pickle names `fastdrop._restored` and a kind, so that modules may move.
"""

from __future__ import annotations

import copyreg
from typing import Any

kinds: dict[str, type] = {}  # by the names that pickles give


def register(kind: type) -> None:
    """Let pickles and copies of this kind of value be restored."""
    kinds[kind.__name__] = kind


def unmade(kind: str) -> TypeError:
    """The error for a value that was never initialised."""
    return TypeError(f"a {kind} must be initialised before it is used, got what {kind}.__new__ alone makes")


def made_already(kind: str) -> TypeError:
    """The error for a value that is initialised again."""
    return TypeError(f"a {kind} keeps the values it was made with, and cannot be initialised again")


def reduced(value: Any, kind: type, fields: tuple[Any, ...]) -> tuple[Any, ...]:
    """What pickle and copy make a value again from; a subclass is named by itself."""
    if type(value) is kind:
        return _restored, (kind.__name__, *fields)
    return _restored, (type(value), *fields), added_state(value, kind)


def added_state(value: Any, kind: Any) -> Any:
    """What a subclass keeps beside the fields of its kind, as pickle sets it."""
    names = (name for name in copyreg._slotnames(type(value)) if name not in kind.__slots__)  # type: ignore[attr-defined]
    slots = {name: getattr(value, name) for name in names if hasattr(value, name)}
    attributes = getattr(value, "__dict__", None) or None
    return (attributes, slots) if slots else attributes


def _restored(kind: str | type, *fields: Any) -> Any:
    """The value that a pickle or a copy describes, checked as a new one is."""
    cls: Any = kinds.get(kind) if isinstance(kind, str) else kind
    bases: list[Any] = [base for base in kinds.values() if isinstance(cls, type) and issubclass(cls, base)]
    if not bases:
        names = ", ".join(sorted(kinds))
        raise ValueError(f"kind must be {names} or a subclass of one of them, got {kind!r}")
    value = bases[0].__new__(cls)
    bases[0]._restore(value, *fields)
    return value


_restored.__module__ = "fastdrop"
