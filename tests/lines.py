"""Which lines the tests run, of Python and of Cython, kernels too.

    python tests/lines.py [PYTEST ARGUMENTS]

coverage.py counts lines of Python, gcov those of the C that Cython made; from each of these Cython knows
the line of its own that it comes from. (Cython's tracing would see no line that runs without the GIL,
which is nearly all of a kernel.) The package is copied and built apart, so the checkout stays as it is.
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
        # This marks lines, but nobody is told.
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
    """What gcov has counted, as one more of coverage.py's files of data."""
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
    """The lines that have run of each C file that Cython made, as gcov knows it from one object file."""
    command = ["gcov", "--json-format", "--stdout", str(notes)]
    said = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True)
    return {
        file["file"]: {line["line_number"] for line in file["lines"] if line["count"]}
        for file in json.loads(said.stdout)["files"]
        if file["file"].startswith("fastdrop/") and file["file"].endswith(".c")
    }


def lines_of_cython(c_file: Path, ran: set[int]) -> Iterator[tuple[str, int]]:
    """Each line of Cython of whose C at least a line has run: Cython writes where its C comes from."""
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
