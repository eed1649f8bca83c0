"""Report which lines of Python and Cython the tests run, those of the kernels too.

    python tests/lines.py [PYTEST ARGUMENTS]

coverage.py counts lines of Python, and gcov counts lines of the C code that Cython generates. Cython writes
into that code which line of its own each part comes from. (Cython's tracing sees no line that runs without
the GIL, which is nearly all of a kernel.) The package is copied and built elsewhere, so the checkout does
not change.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from coverage import CoverageData
from mutate import copy_tree, run
from sanitize import Build, compiled

CONFIGURATION = """
[run]
plugins = Cython.Coverage
source = {tree}/fastdrop
omit = {compiled}
patch = subprocess
parallel = true
data_file = {tree}/.coverage
[report]
show_missing = true
skip_covered = true
exclude_also =
    if TYPE_CHECKING
"""
BUILD = Build(
    flags="--coverage",
    edits=(
        # This marks the lines in the C code; no trace function is called.
        ("setup.py", '"cdivision": True', '"cdivision": True, "linetrace": True'),
        ("setup.py", '"-O3"', '"-O1"'),
    ),
)


def main(arguments: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_tree(Path(folder, "fastdrop"))
        for generated in tree.glob("fastdrop/**/*.c"):
            generated.unlink()
        compiled(tree, BUILD)
        in_c = [path for path in map(str, tree.glob("fastdrop/*.py")) if Path(path[:-2] + "c").exists()]
        (tree / ".coveragerc").write_text(CONFIGURATION.format(tree=tree, compiled=", ".join(in_c)))
        tests = run(
            tree, "-m", "coverage", "run", "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments
        )
        print(tests.stdout[-3000:], tests.stderr[-2000:])
        add_lines_of_cython(tree)
        run(tree, "-m", "coverage", "combine").check_returncode()
        report = run(tree, "-m", "coverage", "report")
    print(report.stdout, report.stderr)
    return tests.returncode or report.returncode


def add_lines_of_cython(tree: Path) -> None:
    """Write what gcov has counted as one more data file of coverage.py."""
    ran: dict[str, set[int]] = defaultdict(set)
    for notes in sorted(tree.glob("build/**/*.gcno")):
        counts = lines_of_c(notes, tree)
        for c_file, lines in counts.items():
            for source, line in lines_of_cython(tree / c_file, lines):
                ran[str(tree / source)].add(line)
    data = CoverageData(str(tree / ".coverage.gcov"))
    data.add_lines(ran)
    data.add_file_tracers(dict.fromkeys(ran, "Cython.Coverage.Plugin"))
    data.write()


def lines_of_c(notes: Path, tree: Path) -> dict[str, set[int]]:
    """Return the lines of each C file of Cython that have run, as gcov reports them for one object file."""
    command = ["gcov", "--json-format", "--stdout", str(notes)]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return {
        file["file"]: {line["line_number"] for line in file["lines"] if line["count"]}
        for file in json.loads(said.stdout)["files"]
        if file["file"].startswith("fastdrop/") and file["file"].endswith(".c")
    }


def lines_of_cython(c_file: Path, ran: set[int]) -> Iterator[tuple[str, int]]:
    """Yield each line of Cython from whose C code at least one line has run."""
    source = None
    for number, text in enumerate(c_file.read_text().splitlines(), 1):
        if place := re.fullmatch(r' */\* "(fastdrop/.*)":(\d+)', text):
            source = place[1], int(place[2])
        elif re.match(r' */\* "|.*/\* function exit code \*/', text):
            source = None  # NumPy's, or for all lines alike
        elif source and number in ran:
            yield source


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
