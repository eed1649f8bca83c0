"""Print what extras and dependency groups of this checkout require, one requirement per line.

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

TABLES = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))
PROJECT = TABLES["project"]
LISTS = PROJECT["optional-dependencies"] | TABLES["dependency-groups"]
OURS = re.compile(rf"{re.escape(PROJECT['name'])}\[(.*)\]")


def requirements(name: str) -> list[str]:
    """Return what an extra or a group requires. Others that it names are replaced by what they require."""
    found = []
    for line in LISTS[name]:
        if isinstance(line, dict):
            found += requirements(line["include-group"])
        elif ours := OURS.fullmatch(line):
            found += [one for extra in ours[1].split(",") for one in requirements(extra)]
        else:
            found.append(line)
    return found


if __name__ == "__main__":
    print(*dict.fromkeys(line for name in sys.argv[1:] for line in requirements(name)), sep="\n")
