"""The benchmarks compare what they say they compare, and report what they measured."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import cpu
from fastdrop.commands.bench import timing
from support import ROOT, environment, output_of

if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))  # after everything that is installed

pytest.importorskip("pytest_benchmark", reason="the suite is written for pytest-benchmark")

from benchmarks import planes, report, sizes, targets


@pytest.fixture(autouse=True)
def as_before():
    """Restore the kernel and the number of threads, which competitors choose."""
    isa, threads = cpu.active(), fd.get_num_threads()
    yield
    cpu.activate(isa)
    fd.set_num_threads(threads)


def run_suite(*arguments):
    """Run the suite in a process of its own, because it imports libraries that start threads."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return output_of(command, cwd=ROOT, env=environment())


def test_every_competitor_computes_dropout():
    """Those that first compile for half a minute are left out: `make bench` tries them before it measures."""
    interpreted = "not compiled and not numba and not jax"
    assert " passed" in run_suite("benchmarks/test_competitors.py", "--show-capture=no", "-k", interpreted)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Return the path of the JSON that a tiny run of the suite writes."""
    path = tmp_path_factory.mktemp("suite") / "results.json"
    run_suite("benchmarks/test_speed.py", "--sizes", "64,1Ki", "--comparison-seconds", "0.01",
              f"--benchmark-json={path}", "--competitors=fastdrop,copy,NumPy",
              "-k", "everybody or undecided or threads")  # fmt: skip
    return path


# --- the clock --------------------------------------------------------------------------------


def test_every_competitor_is_entered_before_it_is_timed():
    entered, called = [], []

    def trial(name):
        return timing.Trial(lambda: called.append((name, entered[-1])), lambda: entered.append(name))

    comparison = timing.alternate({name: trial(name) for name in ("first", "second")}, rounds=6)
    assert comparison.seconds.shape == (6, 2)
    assert set(called) == {("first", "first"), ("second", "second")}


def test_ratios_are_taken_within_a_round():
    seconds = np.array([[1.0, 2.0], [10.0, 20.0], [100.0, 400.0]])
    comparison = timing.Comparison(["ours", "copy"], seconds)
    assert comparison.ratio("copy", "ours") == timing.Spread(2.0, 2.0, 3.0)
    assert comparison.time("ours") == timing.Spread(10.0, 5.5, 55.0)


# --- what is written ---------------------------------------------------------------------------


@pytest.mark.parametrize("together", [1, 128])
@pytest.mark.parametrize("keep_prob", [0.5, 0.75, 0.9, 0.999])
def test_planes_are_as_many_as_theory_says(keep_prob, together):
    counts = planes.counted(keep_prob, together)
    assert counts == pytest.approx(planes.expected(keep_prob, together), rel=0.03)


def test_planes_of_a_short_threshold_are_exact():
    assert [planes.expected(p, 1) for p in (0.5, 0.75, 0.875)] == [1, 1.5, 1.75]
    assert planes.counted(0.5, 128) == 1


def test_the_suite_makes_a_report(tmp_path, results):
    machine, rows = report.load(results)
    assert machine["instruction sets"] == ", ".join(cpu.available())
    ours = [row for row in rows if row["contender"] == f"fastdrop {cpu.available()[0]}"]
    assert {row["series"] for row in ours} == {"peers", "undecided bits"}
    assert all(row["ratios"]["copy"]["median"] > 0 for row in ours if row["series"] == "peers")
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- benchmarks:forward -->\nold\n<!-- /benchmarks:forward -->\nafter\n")
    assert report.main([str(results), "--into", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert f"| fastdrop {cpu.available()[0]} |" in text


def test_a_report_makes_a_page_and_keeps_the_tables_of_what_was_not_measured(tmp_path, results):
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    assert report.main([str(results), "--into", str(page)]) == 0
    assert f"| fastdrop {cpu.available()[0]} |" in page.read_text()
    other.write_text("<!-- benchmarks:float64 -->\nold\n<!-- /benchmarks:float64 -->\n")
    assert report.main([str(results), "--into", str(other)]) == 0
    assert "old" in other.read_text()


def test_a_history_keeps_each_run(tmp_path, results):
    path = tmp_path / "history.csv"
    for _ in range(2):
        assert report.main([str(results), "--history", str(path)]) == 0
    header, *lines = path.read_text().splitlines()
    assert header.split(",") == list(report.HISTORY)
    assert len(lines) % 2 == 0
    assert {line.split(",")[4] for line in lines} == set(cpu.available())


def test_plots_are_drawn(tmp_path, results):
    pytest.importorskip("matplotlib", reason="it draws the plots")
    assert report.main([str(results), "--plots", str(tmp_path / "plots")]) == 0
    drawn = {path.stem for path in (tmp_path / "plots").iterdir()}
    assert drawn == {"overview", "time_an_element", "share_of_copy", "threads", "undecided_bits"}


def test_targets_are_judged_by_the_median():
    target = targets.Target("forward", "forward", 0.9, targets.COPY, small=1.5, large=0.9)
    comparison = timing.Comparison(["ours", "copy"], np.array([[1.4, 1.0], [1.6, 1.0], [1.45, 1.0]]))
    assert targets.verdict(target, "avx2", "float32", 2**14, comparison, "ours").met
    assert not targets.verdict(target, "avx2", "float32", targets.LARGE, comparison, "ours").met


def test_each_target_has_a_reason_that_can_keep_a_call_from_it():
    named = (*targets.PROMISES, *targets.PAST_CACHE, *targets.RIVALS, *targets.RELATIONS)
    assert {*(target.what for target in named), *targets.OVERHEAD, "two threads"} == set(targets.WHY)


def test_quick_targets_are_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(timing, "SAMPLE", 1e-5)  # what is measured does not matter here
    files = tmp_path / "targets.json", tmp_path / "targets.md"
    assert targets.main(["--quick", "--json", str(files[0]), "--markdown", str(files[1])]) == 0
    verdicts = json.loads(files[0].read_text())["verdicts"]
    assert {verdict["isa"] for verdict in verdicts} == set(cpu.available())
    assert "numpy" in capsys.readouterr().out
    assert files[1].read_text().count("\n| ") >= len(verdicts)


@pytest.mark.parametrize(("text", "size"), [("64", 64), ("16Ki", 2**14), ("16Mi", 2**24)])
def test_sizes_are_read_and_written(text, size):
    assert sizes.parse(text) == size
    assert sizes.label(size) == text


@pytest.mark.parametrize("text", ["", "0", "Ki", "16G", "-1"])
def test_other_sizes_are_refused(text):
    with pytest.raises(ValueError, match="a size must be a number of elements"):
        sizes.parse(text)

