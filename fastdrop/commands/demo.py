"""``demo``: train the network of ``examples/mlp_digits.py`` in four ways, and compare them.

The two ways that run on the kernels are trained once more on `fastdrop.reference`. The masks are the
same, so the weights must be equal, bit for bit.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from types import ModuleType
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fastdrop import cpu, reference
from fastdrop.commands import (
    DONE,
    FAILED,
    add_json_argument,
    add_plot_argument,
    at_least,
    show_json,
    show_table,
)
from fastdrop.formulas import MODES
from fastdrop.layers import ReLUDropout
from fastdrop.progress import progress
from fastdrop.stream import Stream

EXAMPLE = "mlp_digits.py"
ENSEMBLES = (1, 4, 16, 64)  # numbers of sub-networks that are averaged
CONFIDENCE = 0.95


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seeds", type=at_least(2), default=8, metavar="N",
                        help="number of trainings per way, at least 2 (default: %(default)s)")  # fmt: skip
    parser.add_argument("--epochs", type=at_least(1), metavar="N",
                        help="number of passes over the images (default: that of the example)")  # fmt: skip
    add_plot_argument(parser, "the accuracy of the ensembles")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    from threadpoolctl import threadpool_limits

    if arguments.plot:
        import matplotlib  # noqa: F401  (if it is missing, say so before the training)
    example = load_example()
    epochs = arguments.epochs or example.EPOCHS
    with threadpool_limits(1):  # for a fair comparison: the textbook code has one thread too
        trainings = train_all(example, range(arguments.seeds), epochs)
    differences = differing_seeds(trainings)
    result = summary(trainings, differences)
    if arguments.json:
        show_json(result)
    else:
        show(result, epochs)
    if arguments.plot:
        plot(result, arguments.plot)
    return FAILED if any(differences.values()) else DONE


def load_example() -> ModuleType:
    """Load the example. It is inside an installed package, and beside the package in a checkout."""
    package = Path(__file__).parents[1]
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


# --- ways to train ----------------------------------------------------------------------------


class TextbookReLUDropout:
    """Inverted dropout as it is usually written in NumPy."""

    def __init__(self, keep_prob: float, rng: np.random.Generator) -> None:
        self.keep_prob, self.rng = keep_prob, rng
        self.training = True

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        h = np.maximum(x, 0)
        if self.training:
            self.passed = x > 0
            self.scaled_mask = (self.rng.random(h.shape) < self.keep_prob) / self.keep_prob
            h *= self.scaled_mask
        return h

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        dx = dy * self.passed
        dx *= self.scaled_mask
        return dx


class ReferenceReLUDropout(ReLUDropout):
    """The layer, with the calls of the NumPy reference."""

    _forward: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout)
    _backward: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout_backward)
    _predict: ClassVar[Callable[..., Any]] = staticmethod(reference.relu_dropout_predict)


class Timed:
    """An activation, and the time spent in it since `taken` was last called."""

    def __init__(self, activation: Any) -> None:
        self.activation = activation
        self.seconds = 0.0

    @property
    def training(self) -> bool:
        return bool(self.activation.training)

    @training.setter
    def training(self, training: bool) -> None:
        self.activation.training = training

    def __call__(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._timed(self.activation, x)

    def backward(self, dy: NDArray[Any]) -> NDArray[Any]:
        return self._timed(self.activation.backward, dy)

    def _timed(self, call: Callable[[NDArray[Any]], NDArray[Any]], x: NDArray[Any]) -> NDArray[Any]:
        start = perf_counter()
        y = call(x)
        self.seconds += perf_counter() - start
        return y

    def taken(self) -> float:
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def activations_of(way: str, keep_prob: float, seed: int) -> list[Timed]:
    """Return the two activations of a network, for one of the `WAYS` or for the reference."""
    streams = Stream(seed).spawn(2)
    if way == "no dropout":
        return [Timed(ReLUDropout(keep_prob=1.0, rng=stream)) for stream in streams]
    if way == TEXTBOOK:
        generator = np.random.default_rng(seed)
        return [Timed(TextbookReLUDropout(keep_prob, generator)) for _ in streams]
    layer = ReferenceReLUDropout if way.endswith(ON_REFERENCE) else ReLUDropout
    mode: Any = way.removesuffix(ON_REFERENCE)
    return [Timed(layer(keep_prob=keep_prob, mode=mode, rng=stream)) for stream in streams]


TEXTBOOK = "inverted, plain NumPy"
ON_REFERENCE = ", reference"
WAYS = ("no dropout", "vanilla", "inverted", TEXTBOOK)
REFERENCES = tuple(mode + ON_REFERENCE for mode in MODES)


# --- training ---------------------------------------------------------------------------------


@dataclass
class Training:
    """The result of one training."""

    parameters: list[NDArray[np.float32]]
    accuracy: float
    step_seconds: list[float]
    dropout_seconds: list[float]  # the part of each step that the activations took
    ensembles: list[float]  # the accuracy for each number of sub-networks in ENSEMBLES


Trainings = dict[str, list[Training]]  # by way; one training per seed


def train_all(example: ModuleType, seeds: Sequence[int], epochs: int) -> Trainings:
    data = example.digits()
    trainings: Trainings = {way: [] for way in (*WAYS, *REFERENCES)}
    with progress("training", len(trainings) * len(seeds) * epochs) as advance:
        for seed in seeds:
            for way, done in trainings.items():
                done.append(train(example, data, way, seed, epochs, advance))
    return trainings


def train(
    example: ModuleType, data: Any, way: str, seed: int, epochs: int, advance: Callable[[], None]
) -> Training:
    """Train once. For a given seed, every way begins with the same weights and sees the same batches."""
    rng = np.random.default_rng(seed)
    activations = activations_of(way, example.KEEP_PROB, seed)
    network = example.Network(example.initial_parameters(rng), activations)
    step_seconds, dropout_seconds = [], []
    for _ in range(epochs):
        for x, labels in example.batches(data, rng):
            start = perf_counter()
            network.train_step(x, labels)
            step_seconds.append(perf_counter() - start)
            dropout_seconds.append(sum(activation.taken() for activation in activations))
        advance()
    return Training(
        network.parameters,
        example.accuracy(network, data),
        step_seconds,
        dropout_seconds,
        ensemble_accuracies(network, data) if way in MODES else [],
    )


def ensemble_accuracies(network: Any, data: Any) -> list[float]:
    """Return the accuracy of the mean probabilities of 1, 4, ... sampled sub-networks."""
    network.set_training(True)
    total, accuracies = 0.0, []
    for count in range(1, max(ENSEMBLES) + 1):
        total = total + network.probabilities(data.x_test)
        if count in ENSEMBLES:
            accuracies.append(float(np.mean(total.argmax(axis=1) == data.labels_test)))
    return accuracies


def differing_seeds(trainings: Trainings) -> dict[str, list[int]]:
    """Return, for each mode, the seeds for which kernels and reference gave different results."""
    return {
        mode: [
            seed
            for seed, (ours, theirs) in enumerate(zip(trainings[mode], trainings[mode + ON_REFERENCE]))
            if not same_bits(ours, theirs)
        ]
        for mode in MODES
    }


def same_bits(a: Training, b: Training) -> bool:
    weights = (
        ours.tobytes() == theirs.tobytes() for ours, theirs in zip(a.parameters, b.parameters)
    )
    return a.accuracy == b.accuracy and all(weights)


# --- what is printed --------------------------------------------------------------------------


def summary(trainings: Trainings, differences: dict[str, list[int]]) -> dict[str, Any]:
    """Return everything that is shown, as for JSON."""
    return {
        "instruction_set": cpu.active(),
        "seeds": len(trainings["inverted"]),
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


def estimate(values: Sequence[float]) -> dict[str, float]:
    """Return the mean and half the width of its confidence interval (Student's t)."""
    from scipy.stats import sem, t

    half_width = float(sem(values)) * float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1))
    return {"mean": float(np.mean(values)), "half_width": half_width}


def median(done: Sequence[Training], per_step: Callable[[Training], Any]) -> float:
    """Return the median over all steps. Some steps are slow because the machine did something else."""
    return float(np.median(np.concatenate([per_step(training) for training in done])))


def show(result: dict[str, Any], epochs: int) -> None:
    print(f"{result['seeds']} seeds, {epochs} epochs, {result['instruction_set']} kernel, one thread\n")
    rows = [
        (
            way,
            percent(trained["accuracy"]),
            f"{trained['dropout_us_a_step']:,.0f} us",
            f"{trained['step_us']:,.0f} us",
            f"{trained['dropout_share']:.1%}",
        )
        for way, trained in result["trained"].items()
    ]
    columns = ("training", "test accuracy", "ReLU + dropout", "whole step", "share")
    show_table(f"Handwritten digits: test accuracy with {CONFIDENCE:.0%} confidence interval", columns, rows)
    print()
    ensembles = result["ensembles"]
    averaged = [
        (f"mean of {size} sub-network{'s' if size > 1 else ''}",
         *(percent(ensembles[mode][size]) for mode in MODES))
        for size in ENSEMBLES
    ]  # fmt: skip
    whole = [percent(result["trained"][mode]["accuracy"]) for mode in MODES]
    averaged.append(("the whole network, scaled", *whole))
    show_table("Dropout as an ensemble: averages of sampled sub-networks", ("prediction", *MODES), averaged)
    print()
    for mode, seeds in result["differing_seeds"].items():
        print(f"{mode}: {verdict(seeds, result['seeds'])}")


def percent(accuracy: dict[str, float]) -> str:
    return f"{accuracy['mean']:.1%} ± {accuracy['half_width']:.1%}"


def verdict(differing: list[int], seeds: int) -> str:
    if not differing:
        return f"weights and accuracy equal those of the reference, bit for bit, for all {seeds} seeds"
    return (
        f"weights or accuracy DIFFER from those of the reference for seeds {', '.join(map(str, differing))}; "
        "run `python -m fastdrop check` to see whether the kernels or the matrix products differ"
    )


def plot(result: dict[str, Any], path: Path) -> None:
    """Plot the accuracy against the size of the ensemble, with the scaled prediction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xscale="log", xlabel="sub-networks averaged", ylabel="test accuracy")
    for number, mode in enumerate(MODES):
        color = f"C{number}"
        points = [result["ensembles"][mode][size] for size in ENSEMBLES]
        means, half_widths = ([point[key] for point in points] for key in ("mean", "half_width"))
        label = f"{mode}, ensemble"
        axes.errorbar(ENSEMBLES, means, half_widths, color=color, marker="o", capsize=3, label=label)
        scaled = result["trained"][mode]["accuracy"]["mean"]
        axes.axhline(scaled, color=color, linestyle="--", label=f"{mode}, scaled")
    axes.set_xticks(ENSEMBLES, [str(size) for size in ENSEMBLES])
    axes.legend()
    figure.savefig(path)
