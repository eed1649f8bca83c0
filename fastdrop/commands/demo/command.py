"""``demo``: train the network of ``examples/mlp_digits.py`` in several ways, and compare them.

The ways that run on the kernels are trained once more on `fastdrop.reference`. The masks are the same, so
the weights must be equal, bit for bit. Then the network learns from few images with wrong labels, with and
without dropout.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fastdrop import cpu
from fastdrop.commands import (
    DONE,
    FAILED,
    add_json_argument,
    add_plot_argument,
    at_least,
    show_json,
    show_table,
)
from fastdrop.commands.demo import wrong_labels
from fastdrop.commands.demo.estimates import CONFIDENCE, estimate, percent
from fastdrop.commands.demo.training import ENSEMBLES, Training, Trainings, differing_seeds, seeds_of, train_all
from fastdrop.commands.demo.ways import ON_REFERENCE, REFERENCES, WAYS
from fastdrop.formulas import MODES
from fastdrop.progress import progress

EXAMPLE = "mlp_digits.py"
SHOWN_EPOCHS = 4  # rows of the table of curves

RIGHT_LABELS = """\
All labels are right and there are many, so this network has little to gain from dropout. "vanilla" has learned
less: its activations and gradients are keep_prob times smaller, at the same learning rate."""
WRONG_LABELS = """\
Without dropout the network learns the wrong labels by heart, and reads fewer of the test images correctly.
Dropout delays this. docs/dropout.md explains both results."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=at_least(2), default=10, metavar="N",
                        help="number of trainings per way, at least 2 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--epochs", type=at_least(1), metavar="N",
                        help="number of passes over the images (default: that of the example)")  # fmt: skip
    add_plot_argument(parser, "the accuracies with wrong labels, with and without dropout")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits

    if arguments.plot:
        import matplotlib  # noqa: F401  (if it is missing, say so before the training)
    example = load_example()
    epochs, seeds = arguments.epochs or example.EPOCHS, range(arguments.seeds)
    longer = epochs * wrong_labels.PASSES
    total = sum(len(seeds_of(way, seeds)) for way in (*WAYS, *REFERENCES)) * epochs
    total += len(wrong_labels.WAYS) * len(seeds) * longer
    # One thread, for a fair comparison: the textbook code has one thread too.
    with threadpool_limits(1), progress("training", total) as advance:
        data = example.digits()
        trainings = train_all(example, data, seeds, epochs, advance)
        curves = wrong_labels.learn(example, data, seeds, longer, advance)
    differences = differing_seeds(trainings)
    result = summary(trainings, differences) | {"wrong_labels": wrong_labels.summary(curves)}
    if arguments.json:
        show_json(result)
    else:
        show(result, epochs)
    if arguments.plot:
        wrong_labels.plot(result["wrong_labels"], arguments.plot)
    return FAILED if any(differences.values()) else DONE


def load_example() -> ModuleType:
    """Load the example. It is inside an installed package, and beside the package in a checkout."""
    package = Path(__file__).parents[2]
    for folder in (package / "examples", package.parent / "examples"):
        path = folder / EXAMPLE
        if path.is_file():
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None  # true for every file that ends in .py
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules[path.stem] = module
            spec.loader.exec_module(module)
            return module
    raise FileNotFoundError(f"{EXAMPLE} is not in {package / 'examples'} or beside the package")


def summary(trainings: Trainings, differences: dict[str, list[int]]) -> dict[str, Any]:
    """Return everything that is shown, as for JSON."""
    return {
        "instruction_set": cpu.active(),
        "seeds": len(trainings["inverted"]),
        "checked_seeds": len(trainings[REFERENCES[0]]),
        "confidence": CONFIDENCE,
        "trained": {
            way: {
                "accuracy": estimate([training.accuracy for training in done]),
                "dropout_us_a_step": 1e6 * median(done, lambda training: training.dropout_seconds),
                "step_us": 1e6 * median(done, lambda training: training.step_seconds),
                "dropout_share": median(
                    done, lambda training: np.divide(training.dropout_seconds, training.step_seconds)
                ),
            }
            for way, done in trainings.items()
        },
        "ensembles": {
            mode: {
                size: estimate([training.ensembles[i] for training in trainings[mode]])
                for i, size in enumerate(ENSEMBLES)
            }
            for mode in MODES
        },
        "differing_seeds": differences,
    }


def median(done: Sequence[Training], per_step: Callable[[Training], Any]) -> float:
    """Return the median over all steps. Some steps are slow because the machine did something else."""
    return float(np.median(np.concatenate([per_step(training) for training in done])))


def show(result: dict[str, Any], epochs: int) -> None:
    print(f"{result['seeds']} seeds, {epochs} epochs, {result['instruction_set']} kernel, one thread\n")
    show_ways(result["trained"], result["checked_seeds"])
    print(RIGHT_LABELS, end="\n\n")
    show_ensembles(result)
    print()
    for mode, seeds in result["differing_seeds"].items():
        print(f"{mode}: {verdict(seeds, result['checked_seeds'])}")
    print()
    show_wrong_labels(result["wrong_labels"])
    print(WRONG_LABELS)


def show_ways(trained: dict[str, Any], checked: int) -> None:
    rows = [
        (
            way + f", {checked} seeds" * way.endswith(ON_REFERENCE),
            percent(training["accuracy"]),
            f"{training['dropout_us_a_step']:,.0f} us",
            f"{training['step_us']:,.0f} us",
            f"{training['dropout_share']:.1%}",
        )
        for way, training in trained.items()
    ]
    columns = ("training", "test accuracy", "ReLU + dropout", "whole step", "share of the step")
    show_table(f"Handwritten digits: test accuracy with {CONFIDENCE:.0%} confidence interval", columns, rows)


def show_ensembles(result: dict[str, Any]) -> None:
    ensembles = result["ensembles"]
    rows = [
        (f"mean of {size} sub-network{'s' if size > 1 else ''}",
         *(percent(ensembles[mode][size]) for mode in MODES))
        for size in ENSEMBLES
    ]  # fmt: skip
    whole = [percent(result["trained"][mode]["accuracy"]) for mode in MODES]
    rows.append(("the whole network, scaled", *whole))
    show_table("Dropout as an ensemble: averages of sampled sub-networks", ("prediction", *MODES), rows)


def show_wrong_labels(curves: dict[str, Any]) -> None:
    """Print the accuracies after some of the epochs."""
    columns = [(way, of) for of in reversed(wrong_labels.SETS) for way in curves]
    epochs = len(curves[columns[0][0]]["test"])
    shown = sorted({-(-epochs * part // SHOWN_EPOCHS) for part in range(1, SHOWN_EPOCHS + 1)})
    rows = [
        (str(epoch), *(percent(curves[way][of][epoch - 1]) for way, of in columns)) for epoch in shown
    ]
    title = f"{wrong_labels.IMAGES} images, {wrong_labels.WRONG:.0%} of them with a wrong label"
    show_table(title, ("epoch", *(f"{of}, {way}" for way, of in columns)), rows)


def verdict(differing: list[int], seeds: int) -> str:
    if not differing:
        return f"weights and accuracy equal those of the reference, bit for bit, for all {seeds} seeds"
    return (
        f"weights or accuracy DIFFER from those of the reference for seeds {', '.join(map(str, differing))}; "
        "run `python -m fastdrop check` to see whether the kernels or the matrix products differ"
    )
