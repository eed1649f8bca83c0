"""The stream agrees with an independent oracle: Random123's own header, which is compiled here.

The header is in Debian's package librandom123-dev. Its ARS needs an x86-64 machine with AES-NI.
"""

from __future__ import annotations

import platform
import runpy
import shutil

import numpy as np
import pytest

import fastdrop as fd
from fastdrop.reference.generator import ars
from support import DATA, golden_streams, known_answers, output_of, run, words

COMPILER = shutil.which("gcc") or shutil.which("clang")
INCLUDE = "#include <Random123/ars.h>"


def header_is_installed() -> bool:
    command = [COMPILER, "-maes", "-E", "-xc", "-"]
    return run(command, input=INCLUDE).returncode == 0


def why_not() -> str | None:
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return "Random123's ARS is written for x86-64"
    if COMPILER is None:
        return "no C compiler"
    if not header_is_installed():
        return "Random123/ars.h is not installed (Debian: librandom123-dev)"
    if not any(name != "generic" for name in fd.cpu.available()):
        return "this CPU may lack AES-NI"
    return None


pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Return a function that asks the oracle questions, one per line, and returns its answers."""
    program = tmp_path_factory.mktemp("oracle") / "random123_oracle"
    command = [COMPILER, "-O2", "-maes", str(DATA / "random123_oracle.c"), "-o", str(program)]
    output_of(command)

    def answers(questions: list[str]) -> list[str]:
        lines = output_of([program], input="\n".join(questions)).splitlines()
        assert len(lines) == len(questions)
        return lines

    return answers


def question_ars(rounds: int, counter: int, key: int) -> str:
    return f"A {rounds} {words(counter)} {words(key)}"


def question_kept(seed: int, offset: int, keep_prob: float, count: int) -> str:
    threshold = int(keep_prob * 2**64)
    return f"K {words(seed)} {offset} {threshold % 2**64:x} {threshold >> 64} {count}"


def random_integer(generator: np.random.Generator, bits: int) -> int:
    return int.from_bytes(generator.bytes(16), "little") % 2**bits


def test_known_answers(ask):
    known = list(known_answers())
    answers = ask([question_ars(k.rounds, k.counter, k.key) for k in known])
    assert answers == [words(k.output) for k in known]


@pytest.mark.parametrize("rounds", [5, 7, 10])
def test_ars(ask, rounds):
    generator = np.random.default_rng(rounds)
    key = random_integer(generator, 128)
    counters = generator.integers(0, 256, (2000, 16), np.uint8)
    outputs = ars(counters, key, rounds)
    questions = [question_ars(rounds, int.from_bytes(row.tobytes(), "little"), key) for row in counters]
    assert ask(questions) == [words(int.from_bytes(row.tobytes(), "little")) for row in outputs]


def test_stored_streams(ask):
    as_text = runpy.run_path(str(DATA / "make_golden.py"))["as_text"]
    golden = list(golden_streams())
    answers = ask([question_kept(g.seed, g.offset, g.keep_prob, g.count) for g in golden])
    for stream, answer in zip(golden, answers, strict=True):
        assert as_text(bytes.fromhex(answer), stream.count) == stream.bits, stream


def test_random_streams(ask, implementation):
    generator = np.random.default_rng(123)
    streams = [
        (random_integer(generator, 128), random_integer(generator, 63), keep_prob, 97 * k)
        for k, keep_prob in enumerate((*generator.random(30), 0.5, 0.9, 1 - 2.0**-53))
    ]
    for stream, answer in zip(streams, ask([question_kept(*stream) for stream in streams]), strict=True):
        seed, offset, keep_prob, count = stream
        mask = implementation.keep_mask(count, keep_prob=keep_prob, rng=fd.Stream(seed, offset))
        assert mask.bits.tobytes().hex() == answer, stream
