"""Test the packed bits at keep_prob 1/2 with dieharder (R. G. Brown), and write a report.

    python tests/statistics/dieharder.py [--seed SEED] [--report FILE]

One stream without end is piped to test after test, so no bit is used twice. Dieharder calls a p-value WEAK
outside of [0.005, 0.995], one in a hundred of a perfect generator's, and FAILED outside of [1e-6, 1 - 1e-6].
A test with a WEAK one is run once more, with the next seed; the exit code is 1 where the same p-value is
then WEAK again (once in 10,000), or where one is FAILED.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import fastdrop as fd

# By dieharder's numbers, with the n of n-tuples where a test has it. Left out: 5, 6, 7 and 14, which
# dieharder itself calls suspect or not to be used; 17 and most lags of 203, for their hours.
TESTS = [
    *((test, None) for test in (0, 1, 2, 3, 4, 8, 9, 10, 11, 12, 13, 15, 16)),  # Marsaglia's diehard
    *((test, None) for test in (100, 101, 102)),  # of NIST's suite, STS
    *((200, bits) for bits in range(1, 13)),  # how often each n-tuple of bits occurs
    *((201, dimension) for dimension in range(2, 6)),  # smallest distance of points
    *((202, length) for length in range(2, 6)),  # permutations
    *((203, lag) for lag in (0, 1, 2, 3, 7)),  # lagged sums
    *((test, None) for test in (204, 205, 206, 207, 208, 209)),
]
CHUNK = 1 << 25  # bits


class Row(NamedTuple):
    test: int
    ntuple: int | None
    place: int  # among the p-values of one run of a test
    assessment: str
    text: str


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=20240229)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--bits", action="store_true", help="write the bits themselves, without end")
    arguments = parser.parse_args()
    if arguments.bits:
        return write_bits(arguments.seed)
    lines, bad = [], False
    for line, wrong in report(arguments.seed):
        print(line, flush=True)
        lines.append(line)
        bad |= wrong
    if arguments.report:
        arguments.report.write_text("\n".join(lines) + "\n")
    return int(bad)


def report(seed: int) -> Iterator[tuple[str, bool]]:
    """Yield each line of the report, and whether it reports a failure."""
    start, rows = time.time(), []
    for line in heading(seed):
        yield line, False
    for row in results(seed, TESTS):
        rows.append(row)
        yield row.text, row.assessment == "FAILED"
    weak = [row for row in rows if row.assessment == "WEAK"]
    if weak:
        yield f"\nWEAK ones once more, seed {seed + 1}:", False
    for again in results(seed + 1, list(dict.fromkeys((row.test, row.ntuple) for row in weak))):
        if any(again[:3] == row[:3] for row in weak):
            yield again.text, again.assessment != "PASSED"
    counts = {kind: sum(row.assessment == kind for row in rows) for kind in ("PASSED", "WEAK", "FAILED")}
    yield (
        f"\n{len(rows)} p-values: " + ", ".join(f"{count} {kind}" for kind, count in counts.items())
        + f" (expected of a perfect generator: {len(rows) / 100:.1f} WEAK, {len(rows) * 2e-6:.4f} FAILED); "
        f"{(time.time() - start) / 60:.0f} minutes"
    ), False  # fmt: skip


def heading(seed: int) -> list[str]:
    version = re.search(r"version (\S+)", output(["-l"]))
    assert version, "dieharder says which version it is"
    return [
        f"python tests/statistics/dieharder.py --seed {seed}",
        f"each test: dieharder -g 200 -d TEST [-n NTUPLE], version {version[1]}, from one pipe of "
        f"fastdrop.keep_mask({CHUNK}, keep_prob=0.5, rng=stream).bits with stream = fastdrop.Stream({seed})",
        f"fastdrop {fd.__version__}, {fd.cpu.active()}, {platform.system()} {platform.machine()}\n",
        "        test_name   |ntup| tsamples |psamples|  p-value |Assessment",
    ]


def results(seed: int, tests: list[tuple[int, int | None]]) -> Iterator[Row]:
    """Yield what dieharder says of each test. All tests read one stream."""
    command = [sys.executable, __file__, "--bits", "--seed", str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as bits:
        for test, ntuple in tests:
            chosen = ["-d", str(test), *(["-n", str(ntuple)] if ntuple is not None else [])]
            found = [
                line
                for line in output(["-g", "200", *chosen], stdin=bits.stdout).splitlines()
                if line.count("|") == 5 and "p-value" not in line
            ]
            assert found, f"dieharder has said nothing of test {test}"
            for place, line in enumerate(found):
                yield Row(test, ntuple, place, line.split("|")[5].strip(), line.rstrip())
        bits.stdout.close()


def output(arguments: list[str], **options: object) -> str:
    return subprocess.run(["dieharder", *arguments], stdout=subprocess.PIPE, text=True, **options).stdout


def write_bits(seed: int) -> int:
    """Write bits to standard output until nobody reads any more."""
    stream = fd.Stream(seed)
    try:
        while True:
            sys.stdout.buffer.write(fd.keep_mask(CHUNK, keep_prob=0.5, rng=stream).bits)
    except BrokenPipeError:
        sys.stderr.close()  # the interpreter would complain of what is left unwritten
        return 0


if __name__ == "__main__":
    sys.exit(main())
