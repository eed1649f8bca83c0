"""The command line prints for people and for machines, and returns the right exit codes."""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from subprocess import PIPE, Popen

import numpy as np
import pytest

import fastdrop as fd
from fastdrop import cpu, progress
from fastdrop.__main__ import COMMANDS, EXAMPLES, UNREAD, main, parser_for
from fastdrop.commands import DONE, FAILED, MISUSED, check
from fastdrop.commands.bench import command as bench
from fastdrop.commands.demo import ways
from fastdrop.settings import is_command
from support import environment, output_of, run


def refused(*arguments: str) -> int:
    """Return the exit code of arguments that argparse refuses."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return stopped.value.code


def test_help_names_every_command(capsys):
    assert refused("--help") == DONE
    text = capsys.readouterr().out
    assert all(f"\n    {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_and_json(command, capsys):
    assert refused(command, "--help") == DONE
    assert "--json" in capsys.readouterr().out


def test_without_arguments_it_helps(capsys):
    assert refused() == DONE
    text = capsys.readouterr().out
    assert all(f"\n  fastdrop {name}" in text for name in COMMANDS), "an example of each command"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_of_the_help_are_accepted(command):
    for example in EXAMPLES[command]:
        arguments = example.partition("fastdrop ")[2].split()
        assert parser_for(command).parse_args(arguments).run


@pytest.mark.parametrize("arguments", [("info",), ("mask", "200x200", "--seed", "1")])
def test_a_reader_that_ends_first_sees_no_traceback(arguments):
    command = [sys.executable, "-m", "fastdrop", *arguments]
    with Popen(command, stdout=PIPE, stderr=PIPE, env=environment()) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == UNREAD


WRONG_SETTINGS = {
    "FASTDROP_ISA": ("mmx", "must name an instruction set that is available here"),
    "FASTDROP_NUM_THREADS": ("many", "must be a number of threads, got 'many'"),
    "FASTDROP_STREAMING_BYTES": ("-1", "must be a number of bytes, got '-1'"),
}


@pytest.mark.parametrize("name", WRONG_SETTINGS)
def test_a_wrong_setting_is_a_sentence_of_a_command_and_an_error_of_an_import(name):
    value, sentence = WRONG_SETTINGS[name]
    wrong = environment(**{name: value})
    as_command = run([sys.executable, "-m", "fastdrop", "info"], env=wrong)
    assert as_command.returncode == MISUSED
    assert as_command.stderr.startswith(f"fastdrop: {name} {sentence}")
    assert as_command.stderr.count("\n") == 1
    imported = run([sys.executable, "-c", "import fastdrop"], env=wrong)
    assert imported.returncode == 1
    assert f"ValueError: {name} {sentence}" in imported.stderr


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        (["/usr/bin/fastdrop", "info"], [], True),
        ([r"fastdrop.exe", "info"], [], True),
        (["-m"], ["python", "-m", "fastdrop", "info"], True),
        (["-m"], ["python", "-X", "dev", "-m", "fastdrop"], True),
        (["-m"], ["python", "-m", "pytest", "-m", "fastdrop"], False),
        (["-c"], ["python", "-c", "import fastdrop"], False),
        (["train.py", "fastdrop"], [], False),
        ([], [], False),
    ],
)
def test_what_counts_as_a_command(argv, orig_argv, expected, monkeypatch):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert is_command() is expected


def test_it_runs_as_a_module():
    printed = output_of([sys.executable, "-m", "fastdrop", "--version"], env=environment())
    assert printed.strip() == f"fastdrop {fd.__version__}"


@pytest.mark.parametrize("arguments", [("train",), ("check", "--cases", "0"), ("demo", "--seeds", "1")])
def test_wrong_arguments(arguments, capsys):
    assert refused(*arguments) == MISUSED
    assert "error:" in capsys.readouterr().err


def test_a_missing_package_hurts_its_command_alone(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)  # import of it raises
    assert main(["demo"]) == MISUSED
    printed = capsys.readouterr().err
    assert "needs threadpoolctl, which is not installed: run pip install '.[demo]' in the checkout" in printed
    assert main(["info"]) == DONE


def test_info(capsys):
    assert main(["info", "--json"]) == DONE
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == fd.__version__
    assert facts["instruction_set"] == cpu.active()
    assert facts["available"] == list(cpu.available())
    assert facts["threads"] == fd.get_num_threads()
    assert main(["info"]) == DONE
    assert cpu.active() in capsys.readouterr().out


def test_check_finds_every_kernel_equal(capsys):
    before = cpu.active()
    assert main(["check", "--cases", "400", "--seed", "5", "--json"]) == DONE
    result = json.loads(capsys.readouterr().out)
    assert cpu.active() == before
    assert result["seed"] == 5
    assert result["kernels"] == list(cpu.available())
    assert result["differences"] == []
    assert {row["call"] for row in result["compared"]} == set(check.CALLS)
    assert {row["dtype"] for row in result["compared"]} == {dtype.name for dtype in check.known_dtypes()}
    assert sum(row["cases"] for row in result["compared"]) == 400


def test_check_knows_every_call_of_the_reference():
    """A new call must not be forgotten in the check command."""
    names = {call.partition(" ")[0] for call in check.CALLS}
    assert names == {name for name, value in vars(fd.reference).items() if name in fd.__all__
                     and inspect.isfunction(value)}  # fmt: skip


def test_check_draws_every_option():
    cases = [check.random_case(5, number, 2)[0] for number in range(300)]
    assert {case.bias for case in cases} == {case.tiled for case in cases} == {False, True}
    assert {case.shared for case in cases} == set(check.SHARED)
    assert {case.layout for case in cases} == set(check.LAYOUTS)


def test_a_tile_of_check_fits_into_its_stream():
    for case in (check.random_case(5, number, 2)[0] for number in range(300)):
        if case.tiled:
            case.rng().place(case.shape, case.shared)  # raises otherwise


def test_check_reports_a_difference_and_how_to_reproduce_it(monkeypatch, capsys):
    def wrong_in_one_bit(*arguments, **keywords):
        y, mask = fd.reference.dropout(*arguments, **keywords)
        if y.size:
            y.view(f"u{y.itemsize}").flat[-1] ^= 1
        return y, mask

    class Calls:
        def __getattr__(self, name):
            return wrong_in_one_bit if name == "dropout" else getattr(fd, name)

    monkeypatch.setattr(check, "fastdrop", Calls())
    kernel = cpu.available()[-1]
    assert main(["check", "--cases", "100", "--seed", "5", "--isa", kernel, "--json"]) == FAILED
    difference = json.loads(capsys.readouterr().out)["differences"][0]
    again = difference["reproduce"].partition("fastdrop ")[2].split()
    assert main(again) == FAILED
    printed = capsys.readouterr()
    assert f"{kernel} differs from the reference: Case(number={difference['case']}, " in printed.err
    monkeypatch.undo()
    assert main(again) == DONE


def test_mask_saves_what_keep_mask_draws(tmp_path, capsys):
    expected = fd.keep_mask((5, 7), keep_prob=0.25, rng=fd.Stream(3, 11)).to_array()
    arguments = ["mask", "5x7", "--keep-prob", "0.25", "--seed", "3", "--offset", "11"]
    assert main([*arguments, "-o", str(tmp_path / "mask.npy")]) == DONE
    saved = np.load(tmp_path / "mask.npy")
    assert saved.dtype == np.bool_
    assert np.array_equal(saved, expected)
    capsys.readouterr()
    assert main(arguments) == DONE
    lines = capsys.readouterr().out.splitlines()
    assert [[letter == "#" for letter in line] for line in lines[:5]] == expected.tolist()
    assert lines[5] == f"{expected.sum()} of 35 kept; seed 3, offset 11, keep_prob 0.25"
    assert main([*arguments, "--json"]) == DONE
    bits = bytes.fromhex(json.loads(capsys.readouterr().out)["bits"])
    assert bits == np.packbits(expected, bitorder="little").tobytes()


def test_mask_as_a_picture(tmp_path):
    image = pytest.importorskip("matplotlib.image", reason="matplotlib is in the extra demo")
    path = tmp_path / "mask.png"
    assert main(["mask", "5x7", "--seed", "3", "-o", str(path)]) == DONE
    kept = fd.keep_mask((5, 7), keep_prob=0.5, rng=3).to_array()
    assert np.array_equal(image.imread(path)[..., 0] == 0, kept)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-prob", "1.5"), "keep_prob must be in [0, 1], got 1.5"),
        (("--seed", "x"), "must be an integer, got 'x'"),
        (("-o", "mask.txt"), "must end in one of .npy, .png, .svg, .pdf, got 'mask.txt'"),
    ],
)
def test_mask_refuses_bad_arguments(arguments, message, capsys):
    assert refused("mask", "8", *arguments) == MISUSED
    assert message in capsys.readouterr().err


def test_mask_refuses_a_seed_outside_of_the_stream(capsys):
    assert main(["mask", "8", "--seed", "-1"]) == MISUSED
    assert "seed must be in [0, 2**128), got -1" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "demo"])
@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("plot.txt", "must end in one of .png, .svg, .pdf, got 'plot.txt'"),
        ("no/where.svg", "must be in a folder that exists, got 'no/where.svg'"),
    ],
)
def test_a_plot_that_cannot_be_written_is_refused_at_once(command, file, message, capsys):
    assert refused(command, "--plot", file) == MISUSED
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("command", ["bench", "demo"])
def test_a_plot_needs_matplotlib_before_the_work_begins(command, monkeypatch, capsys):
    pytest.importorskip("threadpoolctl", reason="threadpoolctl is in the extra bench")
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # import of it raises
    assert main([command, "--plot", "plot.svg"]) == MISUSED
    printed = capsys.readouterr().err
    hint = f"run pip install '.[{command}]' in the checkout"
    assert f"needs matplotlib, which is not installed: {hint}" in printed


def test_bench_measures_and_draws(monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="matplotlib is in the extra bench")
    monkeypatch.setattr(bench, "SIZES", {"64": 64, "1 Ki": 1024})
    monkeypatch.setattr(bench.timing, "SAMPLE", 1e-5)  # what is measured does not matter here
    monkeypatch.setattr(bench.competitors, "present", lambda chosen: (chosen[:2], []))  # fastdrop and the copy
    path = tmp_path / "plot.svg"
    assert main(["bench", "--seconds", "0.1", "--plot", str(path), "--json"]) == DONE
    result = json.loads(capsys.readouterr().out)
    assert {row["operation"] for row in result["results"]} == set(bench.OPERATIONS)
    assert {row["size"] for row in result["results"]} == set(bench.SIZES.values())
    assert {row["contender"] for row in result["results"]} == {f"fastdrop {cpu.active()}", "copy"}
    assert all(row["ns_an_element"]["median"] > 0 for row in result["results"])
    assert path.read_text("utf-8").count("<svg ") == 1


@pytest.fixture
def short_demo(capsys):
    """Run a demo of one epoch, and return its exit code and the result that it prints."""
    pytest.importorskip("sklearn", reason="scikit-learn is in the extra demo")

    def run() -> tuple[int, dict]:
        code = main(["demo", "--seeds", "2", "--epochs", "1", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return run


def test_demo_trains_to_the_reference_s_weights(short_demo):
    code, result = short_demo()
    assert code == DONE
    assert result["instruction_set"] == cpu.active()
    assert result["differing_seeds"] == {"inverted": [], "vanilla": []}
    assert set(result["trained"]) == {*ways.WAYS, *ways.REFERENCES}
    assert all(trained["accuracy"]["mean"] > 0.5 for trained in result["trained"].values())
    assert list(result["ensembles"]["inverted"]) == ["1", "4", "16", "64"]


def test_demo_fails_where_the_weights_differ(short_demo, monkeypatch):
    def off_by_a_little(dy, mask, *, out=None):
        return fd.reference.relu_dropout_backward(dy, mask, out=out) * np.float32(1.0001)

    monkeypatch.setattr(ways.ReferenceReLUDropout, "_backward", staticmethod(off_by_a_little))
    code, result = short_demo()
    assert code == FAILED
    assert result["differing_seeds"] == {"inverted": [0, 1], "vanilla": [0, 1]}


def test_without_a_terminal_progress_is_a_line_every_few_seconds(monkeypatch, capsys):
    now = iter(range(100))
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))
    monkeypatch.setattr(progress, "EVERY", 3)
    with progress.progress("training", 9) as advance:
        for _ in range(9):
            advance()
    assert capsys.readouterr().err == "training: 3 of 9\ntraining: 6 of 9\ntraining: 9 of 9\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no device that is always full")
def test_a_full_disk_and_a_closed_output_end_a_command_without_a_traceback():
    info = [sys.executable, "-m", "fastdrop", "info"]
    with open("/dev/full", "w") as full:
        process = Popen(info, stdout=full, stderr=PIPE, text=True, env=environment())
        told = process.communicate()[1]
    assert process.returncode == UNREAD
    assert told.startswith("the output cannot be written: ")
    assert len(told.splitlines()) == 1
    closed = run(["sh", "-c", 'exec "$@" >&-', "sh", *info], env=environment())
    assert (closed.returncode, closed.stderr) == (0, "")
