"""Print what extras of this checkout require, one requirement per line.

    python tests/extras.py test lint

The Makefile and .ci/run install these lines with pip. They never name the package itself, so no index
is asked for it: a package that an index has under our name is somebody else's.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    from pip._vendor import tomli as tomllib

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
OURS = re.compile(rf"{re.escape(PROJECT['name'])}\[(.*)\]")


def requirements(extra: str) -> list[str]:
    """Return what `extra` requires. Extras that it names are replaced by what they require."""
    found = []
    for line in PROJECT["optional-dependencies"][extra]:
        ours = OURS.fullmatch(line)
        found += [one for name in ours[1].split(",") for one in requirements(name)] if ours else [line]
    return found


if __name__ == "__main__":
    print(*dict.fromkeys(line for extra in sys.argv[1:] for line in requirements(extra)), sep="\n")
