"""The number of threads is set and bounded as documented, and changes no result."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

import fastdrop as fd
from fastdrop.threads import cpu_quota, cpus, openmp
from support import AWAKE, printed_by, run_python

LARGE = 300_017  # elements: well above the size from which threads are worth it

pytestmark = pytest.mark.usefixtures("threads")


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
def test_otherwise_openmp_says_the_number_up_to_the_processors():
    """OpenMP's own variable and the processors that this process may use decide."""
    assert printed_by(SHOW, OMP_NUM_THREADS="1") == "1"
    assert printed_by(SHOW, OMP_NUM_THREADS="1000") == str(cpus())
    assert printed_by(SHOW, OMP_NUM_THREADS="3", FASTDROP_NUM_THREADS="2") == "2"
    if hasattr(os, "sched_setaffinity"):
        one = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); "
        assert printed_by(one + SHOW) == "1"
        assert printed_by(one + SHOW, OMP_NUM_THREADS="3") == "1"


@pytest.mark.skipif(not openmp(), reason="built without OpenMP: one thread")
def test_threadpoolctl_sees_the_threads():
    pytest.importorskip("threadpoolctl")
    code = """
import fastdrop as fd, threadpoolctl
from fastdrop.core import dispatch
dispatch.set_thread_limits(4, 8)
with threadpoolctl.threadpool_limits(3, user_api="openmp"):
    print(fd.get_num_threads())
with threadpoolctl.threadpool_limits(1):
    print(fd.get_num_threads())
"""
    assert printed_by(code, OMP_NUM_THREADS="2").split() == ["3", "1"]


@pytest.mark.skipif(not openmp(), reason="built without OpenMP: one thread")
@pytest.mark.parametrize("count", [1000, 32768])
def test_a_large_number_is_bounded_by_the_processors(count):
    most = max(8, 4 * cpus())
    fd.set_num_threads(count)
    assert fd.get_num_threads() == most
    assert printed_by(SHOW, FASTDROP_NUM_THREADS=str(count)) == str(most)


@pytest.mark.parametrize("count", ["0", "-2", "two", "1.5"])
def test_the_environment_cannot_set_nonsense(count):
    process = run_python(SHOW, FASTDROP_NUM_THREADS=count)
    assert process.returncode != 0
    assert "FASTDROP_NUM_THREADS" in process.stderr
    assert count in process.stderr.splitlines()[-1]


# A system has these files, which grant so many CPUs.
V2, V1 = "0::/pod/job\n", "8:pids:/pod\n4:cpu,cpuacct:/pod/job\n0::/\n"
QUOTAS = {
    "version 2": ({"cgroup": V2, "pod/job/cpu.max": "150000 100000\n"}, 1.5),
    "of a group above": ({"cgroup": V2, "pod/job/cpu.max": "max 100000", "pod/cpu.max": "50000 100000"}, 0.5),
    "the least": ({"cgroup": V2, "pod/job/cpu.max": "9 1", "pod/cpu.max": "3 1", "cpu.max": "5 1"}, 3),
    "a container sees its own": ({"cgroup": "0::/../../pod\n", "cpu.max": "2 1"}, 2),
    "version 2 beside version 1": ({"cgroup": V2, "unified/pod/cpu.max": "7 2"}, 3.5),
    "version 1": (
        {
            "cgroup": V1,
            "cpu,cpuacct/pod/job/cpu.cfs_quota_us": "5",
            "cpu,cpuacct/pod/job/cpu.cfs_period_us": "2",
        },
        2.5,
    ),
    "version 1, another path": ({"cgroup": V1, "cpu/cpu.cfs_quota_us": "6", "cpu/cpu.cfs_period_us": "2"}, 3),
    "version 1, none": ({"cgroup": V1, "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "2"}, math.inf),
    "version 1, half": ({"cgroup": V1, "cpu/cpu.cfs_quota_us": "6"}, math.inf),
    "none": ({"cgroup": V2, "pod/job/cpu.max": "max 100000"}, math.inf),
    "no file": ({"cgroup": V2}, math.inf),
    "another system": ({}, math.inf),
    "odd": ({"cgroup": "odd\n\n::::\n0::/\0", "cpu.max": "1"}, math.inf),
    "zero": ({"cgroup": V2, "cpu.max": "0 0"}, math.inf),
    "no number": ({"cgroup": V2, "cpu.max": "one two"}, math.inf),
    "another controller": ({"cgroup": "4:memory:/pod\n", "cpu.max": "2 1"}, math.inf),
}


@pytest.mark.parametrize("what", QUOTAS)
def test_a_quota_is_read_as_the_kernel_writes_it(what, tmp_path):
    files, expected = QUOTAS[what]
    for name, content in files.items():
        path = tmp_path / ("proc/self/cgroup" if name == "cgroup" else f"sys/fs/cgroup/{name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert cpu_quota(tmp_path) == expected
    assert cpus(tmp_path) == math.ceil(min(expected, cpus(tmp_path / "absent")))


# --- what there is room for -------------------------------------------------------------------

COUNT_TASKS = """
def tasks():
    return len(os.listdir("/proc/self/task"))
"""
on_linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux does")


@on_linux
def test_a_call_lives_with_the_threads_that_start():
    """OpenMP ends the process if it cannot create a thread. Here memory is left for one or two threads."""
    code = (
        COUNT_TASKS
        + f"""
import os, resource, threading, numpy as np, fastdrop as fd
{AWAKE}
threading.stack_size(0)
resource.setrlimit(resource.RLIMIT_STACK, (2**23, resource.getrlimit(resource.RLIMIT_STACK)[1]))
x = np.linspace(-1, 1, {LARGE}, dtype=np.float32).reshape(-1, 1)
fd.set_num_threads(1)
expected, expected_mask = fd.relu_dropout(x, keep_prob=0.9, rng=1)
sums = fd.dropout_backward(x, expected_mask, bias_grad=True)[1]
y = np.empty_like(x)
before, used = tasks(), int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 28 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]))
fd.set_num_threads(8)
_, mask = fd.relu_dropout(x, keep_prob=0.9, rng=1, out=y)
print(np.array_equal(y, expected), mask == expected_mask)
print(np.array_equal(fd.dropout_backward(x, mask, bias_grad=True, out=y)[1], sums), tasks() - before < 7)
"""
    )
    assert printed_by(code).split() == ["True"] * 4


@on_linux
def test_threads_are_bounded_by_the_work():
    """A small bias gradient has a few strips of rows, and each is for one thread."""
    code = (
        COUNT_TASKS
        + f"""
import os, numpy as np, fastdrop as fd
{AWAKE}
fd.set_num_threads(1)
dy = np.ones((70_000, 1), np.float32)
mask = fd.keep_mask(dy.shape, keep_prob=0.5, rng=1)
before = tasks()
fd.set_num_threads(32768)
fd.dropout_backward(dy, mask, bias_grad=True)
print(tasks() - before)
"""
    )
    assert int(printed_by(code)) < 2


# --- fork -------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_child_that_python_does_not_see_can_call():
    """C's own fork runs none of Python's handlers. The child ends itself if it hangs."""
    code = f"""
import ctypes, os, signal, numpy as np, fastdrop as fd
{AWAKE}
fd.set_num_threads(4)
x = np.linspace(-1, 1, {LARGE}, dtype=np.float32)
expected, expected_mask = fd.relu_dropout(x, keep_prob=0.9, rng=1)
child = ctypes.PyDLL(None).fork()
if child == 0:
    signal.alarm(60)
    y, mask = fd.relu_dropout(x, keep_prob=0.9, rng=1)
    same = np.array_equal(y, expected) and mask == expected_mask and fd.get_num_threads() == 1
    os._exit(0 if same else 3)
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status))
"""
    assert printed_by(code) == "0"


# --- a busy machine ---------------------------------------------------------------------------

WORK = 1e-4  # seconds of each region, by the estimate
QUICK, STALLED = (1e-4, 1e-5), (1e-4, 8e-3)  # how long a region took for its own part, and then waited, in seconds


def regions(*kinds, every=0.5):
    """The pauses after regions that begin `every` so many seconds, or where the pause ends, if that is later."""
    from fastdrop.core.dispatch import pauses_after

    times = []
    for worked, waited in kinds:
        end = pauses_after(times)[-1][1] if times else 0
        begun = max(len(times) * every, end)
        times.append((WORK, begun, begun + worked, begun + worked + waited))
    return [length for length, _ in pauses_after(times)]


def test_calls_run_alone_after_a_call_whose_threads_waited():
    assert regions(QUICK, STALLED, every=0) == [0, 0.1]


def test_they_run_alone_for_longer_after_each_such_call_but_not_for_ever():
    assert regions(*[STALLED] * 5, every=0) == pytest.approx([0.1, 0.4, 1.6, 1.6, 1.6])


def test_a_stall_is_forgotten_after_as_much_time_without_one():
    assert regions(STALLED, QUICK, QUICK, STALLED, every=0) == [0.1, 0.1, 0.1, 0.4]
    assert regions(STALLED, QUICK, QUICK, STALLED) == [0.1, 0, 0, 0.1]


def test_calls_run_alone_after_a_call_whose_own_thread_lost_its_processor():
    assert regions((8e-3, 1e-5), QUICK, every=0) == [0.1, 0.1]


def test_threads_that_work_at_different_speeds_have_not_waited():
    assert regions((1e-3, 1e-3), (1e-3, 1.9e-3), (1e-5, 1e-4)) == [0, 0, 0]


def test_a_call_may_take_much_longer_than_its_work_should():
    """A new result array has its pages cleared, and an old processor is slow."""
    assert regions((3e-3, 1e-5), (12 * WORK, 12 * WORK)) == [0, 0]
