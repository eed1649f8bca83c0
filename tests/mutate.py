"""Make mutants of the package, each with one small fault, and report those that the tests do not find.

    python tests/mutate.py [--files NAME ...] [--sample N] [--seed N] [--seconds N] [--list] [PYTEST OPTIONS]

The checkout must be built. It is copied, and only the modules that a mutant changes are compiled there, with
little optimisation. Of the kernels, only the best one of this machine is compiled and tested. A mutant that
crashes, hangs or takes all memory counts as found. The exit code is 1 if a mutant survives.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fastdrop import cpu
from support import ROOT


def pairs(text: str) -> dict[str, str]:
    return dict(pair.split() for pair in text.split(","))


BEST = cpu.available()[0]
FILES = ("*.pyx", "*.pxi", "checks.py", "formulas.py", "functional.py", "mask.py", "noise.py", "stream.py",
         "usage.py")  # fmt: skip
UNTESTED = ("probe.pxi",)  # is itself for tests
# The tests that find most come first.
TESTS = ("whole_calls", "races", "kernels", "variants", "arrays", "gaussian", "checks")
OWN_TESTS = pairs(  # of a file, before these
    "checks.py checks, mask.py mask, stream.py stream, noise.py values, layout.pyx variants,"
    "strided.pyx arrays, gate.pxi reentrancy, columns.pxi variants, dispatch.pyx threads,"
    "usage.py usage, explain.pxi usage"
)
OWN_TESTS["capi.pyx"] = "cimport"
MEMORY = 8 << 30  # bytes of address space for the tests

# No mutant of these lines changes a result. They are listed by file, with the reason.
SPEED = "It decides how fast, and nothing else."
EQUIVALENT = {
    ("dispatch.pyx", "SLICE = 1 << 24"): "How often a call looks at signals is time, and tested as such.",
    ("dispatch.pyx", "SHORT = 1 << 10"): SPEED,
    ("dispatch.pyx", "cdef double thread_work = 2.5e-6"): SPEED,
    ("dispatch.pyx", "STRIDED_COST = 500"): SPEED,
    ("dispatch.pyx", "BYTE_COST = 35"): SPEED,
    ("dispatch.pyx", "cdef double DROWSY = 1e3, ASLEEP = 11e-3"): SPEED,
    ("layout.pyx", "LONG_STRETCH = 512"): SPEED,
    ("apply.pxi", "AHEAD = 4096"): SPEED,
    ("apply.pxi", "prefetch(x + LANES_BYTES * i + AHEAD)"): SPEED,
}

OPERATORS = pairs(
    "< <=, <= <, > >=, >= >, == !=, != ==, + -, - +, * +, // %, % //, << >>, >> <<, & |, | &, ^ |,"
    "+= -=, -= +=, *= +=, //= %=, |= &=, &= |=, ^= |=, <<= >>=, >>= <<="
)
NAMES = pairs(
    "and or, or and, min max, max min, True False, False True, first last, last first, low high, high low"
)
DECLARATION = re.compile("import|from|cimport|include|ctypedef|global|nonlocal|@|def|class")
NOT_DELETED = re.compile("if|elif|else|for|while|with|try|except|finally|return|yield|assert|pass")

# This program runs setup.py for some sources only.
BUILD = """
import runpy, sys
import Cython.Build
cythonize, sources = Cython.Build.cythonize, sys.argv.pop(1).split(",")

def some(extensions, **options):
    chosen = [extension for extension in extensions if extension.sources[0] in sources]
    for extension in chosen:
        extension.extra_compile_args.append("-O1")
    return cythonize(chosen, **options | {"force": True, "nthreads": 0})

Cython.Build.cythonize = some
sys.argv = ["setup.py", "--quiet", "build_ext", "--inplace", "--force", "--parallel", "1"]
runpy.run_path("setup.py")
"""


class Mutant(NamedTuple):
    file: str  # relative to the checkout
    line: int
    rule: str
    start: int  # of what is replaced, in the file's text
    end: int
    new: str

    def of(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.end :]

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.rule}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", nargs="+", default=FILES, help="names or patterns of names")
    parser.add_argument("--sample", type=int, help="how many, drawn from all")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start none after that")
    parser.add_argument("--list", action="store_true", help="only name them")
    options, arguments = parser.parse_known_args()
    check_equivalent()
    mutants = [mutant for path in sources(options.files) for mutant in mutants_of(path)]
    if options.sample is not None:
        mutants = random.Random(options.seed).sample(mutants, min(options.sample, len(mutants)))
    if options.list:
        print(*mutants, f"{len(mutants)} mutants", sep="\n")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        outcomes = tried(Bench(Path(folder), mutants, arguments), mutants, time.monotonic() + options.seconds)
    for file in sorted({mutant.file for mutant in outcomes}):
        counts = Counter(outcome for mutant, outcome in outcomes.items() if mutant.file == file)
        print(f"{file}: " + ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))
    return "SURVIVED" in outcomes.values()


def tried(bench: Bench, mutants: list[Mutant], until: float) -> dict[Mutant, str]:
    outcomes: dict[Mutant, str] = {}
    for mutant in mutants:
        if time.monotonic() > until:
            break
        outcomes[mutant], by = bench.outcome(mutant)
        print(f"{mutant}: {outcomes[mutant]} {by}", flush=True)
        if outcomes[mutant] == "SURVIVED":
            print(changed_lines(mutant), flush=True)
    return outcomes


def changed_lines(mutant: Mutant) -> str:
    text = (ROOT / mutant.file).read_text()
    before = text.splitlines()[mutant.line - 1].strip()
    after = mutant.of(text).splitlines()[mutant.line - 1].strip()
    return f"    - {before}\n    + {after}"


# --- the rules --------------------------------------------------------------------------------


class Statement(NamedTuple):
    tokens: list[tokenize.TokenInfo]
    in_enum: bool


def sources(names: Iterable[str]) -> list[Path]:
    found = {path for name in names for path in (ROOT / "fastdrop").rglob(name)}
    left_out = {*UNTESTED, *(f"{name}.pyx" for name in cpu.KERNELS)}  # a kernel's own file only includes
    return sorted(path for path in found if path.name not in left_out and path.parent.name != "commands")


def check_equivalent() -> None:
    lines = {(path.name, code(line)) for path in sources(FILES) for line in path.read_text().splitlines()}
    for name, line in EQUIVALENT.keys() - lines:
        raise SystemExit(f"EQUIVALENT names a line that {name} does not have: {line!r}")


def code(line: str) -> str:
    return line.split("  #")[0].strip()


def mutants_of(path: Path) -> Iterator[Mutant]:
    text, file = path.read_text(), str(path.relative_to(ROOT))
    lines = text.splitlines(keepends=True)
    starts = [sum(map(len, lines[:row])) for row in range(len(lines) + 1)]
    for statement in statements(text):
        for rule, first, last, new in changes(statement, text, starts):
            row = first.start[0]
            if (path.name, code(lines[row - 1])) not in EQUIVALENT:
                start, end = (starts[place[0] - 1] + place[1] for place in (first.start, last.end))
                yield Mutant(file, row, rule, start, end, new)


def statements(text: str) -> Iterator[Statement]:
    """Yield the logical lines of code that compute something."""
    tokens: list[tokenize.TokenInfo] = []
    blocks: list[tuple[int, str]] = []  # indentation and kind of the declarations around
    left_out = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.NEWLINE:
            tokens += [token] if token.type not in left_out else []
            continue
        words, column = [one.string for one in tokens], tokens[0].start[1]
        blocks = [block for block in blocks if block[0] < column]
        around = {kind for _, kind in blocks}
        if words[0] in ("cdef", "ctypedef") and words[-1] == ":" and "(" not in words:
            blocks.append((column, words[1] if words[1] in ("enum", "class") else "types"))
        elif (
            not DECLARATION.fullmatch(words[0])
            and "types" not in around
            and tokens[0].type != tokenize.STRING
        ):
            yield Statement(tokens, "enum" in around)
        tokens = []


def changes(
    statement: Statement, text: str, starts: list[int]
) -> Iterator[tuple[str, tokenize.TokenInfo, tokenize.TokenInfo, str]]:
    """Yield the name of a rule, the first and last token of what it replaces, and the replacement."""
    tokens = statement.tokens
    words = [token.string for token in tokens]
    declares = words[0] in ("cdef", "cpdef") or words[1:2] == [":"]
    if words[0] == "raise" or not (declares or statement.in_enum or NOT_DELETED.fullmatch(words[0])):
        yield "deleted", tokens[0], tokens[-1], "pass"
    if words[0] == "raise" or (declares and (words[-1] == ":" or "=" not in words)):
        return
    for i in range(words.index("=") if declares else 0, len(tokens)):
        for rule, new in changes_of_token(tokens[i], words[i + 1 : i + 2] == ["not"]):
            yield rule, tokens[i], tokens[i], new
        if words[i] in ("if", "elif", "while") and (end := end_of_condition(words, i + 1)):
            first, last = tokens[i + 1], tokens[end - 1]
            start, stop = (starts[place[0] - 1] + place[1] for place in (first.start, last.end))
            yield "negated", first, last, f"not ({text[start:stop]})"


def changes_of_token(token: tokenize.TokenInfo, before_not: bool) -> Iterator[tuple[str, str]]:
    word = token.string
    around = token.line[token.start[1] - 1 : token.start[1]] + token.line[token.end[1] : token.end[1] + 1]
    if token.type == tokenize.OP and word in OPERATORS and around.isspace() and len(around) == 2:
        yield f"{word} -> {OPERATORS[word]}", OPERATORS[word]  # else a cast, a pointer or a sign
    elif token.type == tokenize.NAME and word in NAMES:
        yield f"{word} -> {NAMES[word]}", NAMES[word]
    elif word == "not":
        yield "not deleted", ""
    elif word == "is" and not before_not:
        yield "is -> is not", "is not"
    elif token.type == tokenize.NUMBER and word.isdigit():
        yield f"{word} -> {int(word) + 1}", str(int(word) + 1)
        if int(word) > 1:
            yield f"{word} -> {int(word) - 1}", str(int(word) - 1)
    elif token.type == tokenize.NUMBER and word.startswith("0x"):
        yield f"{word} -> {int(word, 16) ^ 1:#x}", f"{int(word, 16) ^ 1:#x}"


def end_of_condition(words: list[str], first: int) -> int:
    """Return the index after a condition, or 0 if another rule negates it already or if it filters a loop."""
    depth = 0
    for i in range(first, len(words)):
        depth += (words[i] in "([{") - (words[i] in ")]}")
        if depth < 0:
            return 0
        if depth == 0 and words[i] in (":", "else"):
            negated = {"not", "is", "==", "!="}.intersection(words[first:i])
            return i if not negated or {"and", "or"}.intersection(words[first:i]) else 0
    return 0


# --- the tests on a mutant --------------------------------------------------------------------


class Bench:
    """A bench is a copy of the package in which one file at a time is changed."""

    def __init__(self, folder: Path, mutants: list[Mutant], arguments: list[str]) -> None:
        self.tree = copy_tree(folder / "fastdrop")
        self.modules = [path.relative_to(ROOT) for path in (ROOT / "fastdrop").rglob("*.so")]
        self.restore()
        path = self.tree / "fastdrop" / "cpu.py"
        path.write_text(re.sub(r"(?m)^KERNELS = .*", f"KERNELS = ({BEST!r},)", path.read_text()))
        self.arguments = arguments
        self.limits = [(resource.RLIMIT_AS, MEMORY)]
        self.seconds: float | None = None
        outcome, by = self.tested({mutant.file for mutant in mutants})
        if outcome != "SURVIVED":
            raise SystemExit(f"Without a fault a test fails: {by}")
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = int(20 + 3 * (used.ru_utime + used.ru_stime))
        self.limits.append((resource.RLIMIT_CPU, seconds))
        self.seconds = 20 * seconds  # of the clock, for what waits for ever
        print(f"No test fails without a fault. A mutant may compute for {seconds} seconds.", flush=True)

    def outcome(self, mutant: Mutant) -> tuple[str, str]:
        """Return what became of a mutant, and which test has found it."""
        path = self.tree / mutant.file
        text = path.read_text()
        path.write_text(mutant.of(text))
        try:
            return self.tested({mutant.file}) if self.built(modules_with(path)) else ("not compiled", "")
        finally:
            path.write_text(text)
            self.restore()

    def restore(self) -> None:
        for path in self.modules:
            shutil.copy2(ROOT / path, self.tree / path)

    def built(self, modules: Iterator[Path]) -> bool:
        others = set(cpu.KERNELS) - {BEST}
        names = ",".join(str(path.relative_to(self.tree)) for path in modules if path.stem not in others)
        return run(self.tree, "-c", BUILD, names).returncode == 0

    def limit(self) -> None:
        for kind, most in self.limits:
            resource.setrlimit(kind, (most, most))

    def tested(self, files: set[str]) -> tuple[str, str]:
        own = {OWN_TESTS[name] for name in map(os.path.basename, files) if name in OWN_TESTS}
        tests = [path for name in (*own, *TESTS) for path in self.tree.glob(f"tests/**/test_{name}.py")]
        options = ["-x", "-q", "-p", "no:cacheprovider", "-k", "not [reference"]
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests, *self.arguments],
            cwd=self.tree,
            env=os.environ | {"PYTHONPATH": str(self.tree), "FASTDROP_ISA": BEST},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=self.limit,
        )
        try:
            said, _ = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return "found", "by the time limit"
        if process.returncode == 0:
            return "SURVIVED", ""
        finder = re.search(r"^(?:FAILED|ERROR) (\S+)", said, re.MULTILINE)
        return "found", f"by {finder[1]}" if finder else f"by exit code {process.returncode}"


def modules_with(path: Path) -> Iterator[Path]:
    """Yield the module that a file is, or the modules that include it."""
    if path.suffix != ".pxi":
        yield path
        return
    package = next(folder for folder in path.parents if folder.name == "fastdrop")
    for other in package.rglob("*.p[xy][xi]"):
        if re.search(rf'^include "(?:.*/)?{re.escape(path.name)}"', other.read_text(), re.MULTILINE):
            yield from modules_with(other)


def copy_tree(tree: Path) -> Path:
    """Copy the checkout without what is built."""
    left_out = shutil.ignore_patterns(".git", ".venv", "_build", "__pycache__", "*.so")
    shutil.copytree(ROOT, tree, ignore=left_out)
    return tree


def run(
    tree: Path, *command: str, starter: tuple[str, ...] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(tree)} | environment
    return subprocess.run(
        [*starter, sys.executable, *command], cwd=tree, env=environment, capture_output=True, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
