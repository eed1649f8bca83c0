"""Numbers of elements as people write them, such as 16Ki."""

from __future__ import annotations

SUFFIXES = {"Mi": 2**20, "Ki": 2**10, "": 1}

ALL = tuple(2**exponent for exponent in range(6, 27, 2))
USUAL = (2**6, 2**10, 2**14, 2**16, 2**18, 2**22, 2**24)


def label(size: int) -> str:
    """Return `"16Ki"` for 16,384."""
    return next(f"{size // unit}{suffix}" for suffix, unit in SUFFIXES.items() if size % unit == 0)


def parse(text: str) -> int:
    """Return 16,384 for `"16Ki"`."""
    suffix = text[-2:] if text[-2:] in SUFFIXES else ""
    number = text.removesuffix(suffix).strip()
    if not number.isdecimal() or int(number) == 0:
        raise ValueError(f"a size must be a number of elements such as 64, 16Ki or 16Mi, got {text!r}")
    return int(number) * SUFFIXES[suffix]


def parse_all(text: str) -> tuple[int, ...]:
    return tuple(parse(part) for part in text.split(","))
