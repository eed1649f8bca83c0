"""Threads: how many run is nobody's business but the clock's."""

from __future__ import annotations

import os

import numpy as np
import pytest

import fastdrop as fd
from fastdrop.threads import openmp
from support import assert_identical, printed_by, run_python, sample

LARGE = 300_017  # elements: well above the size from which threads are worth it
COUNTS = (2, 3, 7)

pytestmark = pytest.mark.usefixtures("threads")


def results(x: np.ndarray) -> dict[str, object]:
    y, mask = fd.relu_dropout(x, 0.9, rng=fd.Stream(1, 77))
    dropped, _ = fd.dropout(x, 0.5, rng=fd.Stream(1, 2**63 + 3), mode="vanilla", return_mask=False)
    return {
        "relu_dropout": y,
        "bits": mask.bits,
        "dropout": dropped,
        "backward from the mask": fd.relu_dropout_backward(x, mask),
        "backward from the output": fd.relu_dropout_backward(x, y, keep_prob=0.9, mode="inverted"),
        "predict": fd.relu_dropout_predict(x, 0.9, mode="vanilla"),
        "keep_mask": fd.keep_mask(x.size, 0.3, rng=fd.Stream(5, 5)).bits,
    }


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_results_do_not_depend_on_the_number(isa, dtype):
    x = sample(LARGE, dtype, seed=1)
    fd.set_num_threads(1)
    expected = results(x)
    for count in COUNTS:
        fd.set_num_threads(count)
        for name, result in results(x).items():
            assert_identical(result, expected[name], f"{name}, {count} threads")
    assert fd.cpu.active() == isa


def test_strided_results_do_not_depend_on_the_number(isa):
    """Pieces of a strided array may start anywhere in a byte of the mask."""
    x = sample(300_009, seed=4).reshape(3, -1)
    layouts = {"gaps": np.repeat(x, 2, axis=1)[:, ::2], "reversed": x[::-1, ::-1], "transposed": x.T}
    for layout, array in layouts.items():
        fd.set_num_threads(1)
        expected = results(np.ascontiguousarray(array))
        fd.set_num_threads(3)
        for name, result in results(array).items():
            assert_identical(result, expected[name], f"{name}, {layout}")


# --- how many ---------------------------------------------------------------------------------


def test_the_number_can_be_set():
    for count in (3, 1, 2):
        fd.set_num_threads(count)
        assert fd.get_num_threads() == (count if openmp() else 1)


@pytest.mark.parametrize(
    ("count", "error"),
    [(0, ValueError), (-1, ValueError), (2**40, ValueError), (1.5, TypeError), ("2", TypeError)],
)
def test_what_cannot_be_a_number_of_threads(count, error):
    before = fd.get_num_threads()
    with pytest.raises(error, match=str(count)):
        fd.set_num_threads(count)
    assert fd.get_num_threads() == before


SHOW = "import fastdrop as fd; print(fd.get_num_threads())"


@pytest.mark.skipif(not openmp(), reason="built without OpenMP: one thread")
@pytest.mark.parametrize("count", ["1", "3"])
def test_the_environment_sets_the_number(count):
    assert printed_by(SHOW, FASTDROP_NUM_THREADS=count) == count


@pytest.mark.skipif(not openmp(), reason="built without OpenMP: one thread")
def test_otherwise_openmp_says_the_number():
    """Its own variable, the processors that this process may use, and threadpoolctl."""
    assert printed_by(SHOW, OMP_NUM_THREADS="3") == "3"
    assert printed_by(SHOW, OMP_NUM_THREADS="3", FASTDROP_NUM_THREADS="2") == "2"
    if hasattr(os, "sched_setaffinity"):
        one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); "
        assert printed_by(one + SHOW) == "1"


@pytest.mark.skipif(not openmp(), reason="built without OpenMP: one thread")
def test_threadpoolctl_sees_the_threads():
    pytest.importorskip("threadpoolctl")
    code = """
import fastdrop as fd, threadpoolctl
with threadpoolctl.threadpool_limits(3, user_api="openmp"):
    print(fd.get_num_threads())
with threadpoolctl.threadpool_limits(1):
    print(fd.get_num_threads())
"""
    assert printed_by(code, OMP_NUM_THREADS="2").split() == ["3", "1"]


@pytest.mark.parametrize("count", ["0", "-2", "two", "1.5"])
def test_the_environment_cannot_set_nonsense(count):
    process = run_python(SHOW, FASTDROP_NUM_THREADS=count)
    assert process.returncode != 0
    assert "FASTDROP_NUM_THREADS" in process.stderr
    assert count in process.stderr.splitlines()[-1]


def test_by_default_there_are_no_more_threads_than_processors():
    assert 1 <= int(printed_by(SHOW)) <= (os.cpu_count() or 1)


@pytest.mark.parametrize("count", ["1", "2", "5"])
def test_results_do_not_depend_on_the_environment(count):
    code = """
import hashlib, numpy as np, fastdrop as fd
y, mask = fd.relu_dropout(np.linspace(-1, 1, 1_000_000, dtype=np.float32), 0.9, rng=1)
print(hashlib.sha256(y.tobytes() + mask.bits.tobytes()).hexdigest())
"""
    assert printed_by(code, FASTDROP_NUM_THREADS=count) == printed_by(code)
