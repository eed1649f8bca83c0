"""An experiment in which dropout wins: few images, of which some have a wrong label.

The network has enough weights to learn every wrong label by heart. Without dropout it does so, and then
reads fewer of the test images correctly, whose labels are right.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastdrop.commands.demo.estimates import Estimate, estimate
from fastdrop.commands.demo.ways import NO_DROPOUT, activations_of

IMAGES = 400  # to train on
WRONG = 0.3  # the share of them that gets the label of another digit
PASSES = 2  # times as many epochs as for right labels, which shows where each curve goes
WAYS = {NO_DROPOUT: NO_DROPOUT, "dropout": "inverted"}
SETS = ("training", "test")


class Accuracies(NamedTuple):
    """The accuracy after each epoch, for each seed: arrays of shape (seeds, epochs)."""

    training: NDArray[np.float64]  # of the labels that the network saw, wrong ones too
    test: NDArray[np.float64]


Curves = dict[str, Accuracies]  # by way


def learn(
    example: ModuleType, data: Any, seeds: Sequence[int], epochs: int, advance: Callable[[], None]
) -> Curves:
    """Train with and without dropout on the same images, labels and batches."""
    curves = {}
    for name, way in WAYS.items():
        accuracies = np.array([train(example, data, way, seed, epochs, advance) for seed in seeds])
        curves[name] = Accuracies(accuracies[..., 0], accuracies[..., 1])
    return curves


def train(
    example: ModuleType, data: Any, way: str, seed: int, epochs: int, advance: Callable[[], None]
) -> list[tuple[float, float]]:
    """Train once, and return the accuracies on the training and on the test images after each epoch."""
    rng = np.random.default_rng(seed)
    data = example.with_wrong_labels(data, IMAGES, WRONG, rng)
    network = example.Network(example.initial_parameters(rng), activations_of(way, example.KEEP_PROB, seed))
    accuracies = []
    for _ in range(epochs):
        for x, labels in example.batches(data, rng):
            network.train_step(x, labels)
        accuracies.append((example.accuracy(network, data.x, data.labels),
                           example.accuracy(network, data.x_test, data.labels_test)))  # fmt: skip
        advance()
    return accuracies


def summary(curves: Curves) -> dict[str, dict[str, list[Estimate]]]:
    """Return the mean and its confidence interval for each way and set, one per epoch."""
    return {
        way: {of: [estimate(column) for column in getattr(accuracies, of).T] for of in SETS}
        for way, accuracies in curves.items()
    }


PANELS = {"training": f"training labels, {WRONG:.0%} wrong", "test": "test images"}


def plot(result: dict[str, dict[str, list[Estimate]]], path: Path) -> None:
    """Plot the accuracies against the epoch, with a band for the confidence interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    panels = figure.subplots(1, len(SETS), sharey=True)
    for axes, of in zip(panels, SETS):
        for number, (way, curves) in enumerate(result.items()):
            means, half_widths = (100 * np.array([each[key] for each in curves[of]]) for key in ("mean", "half_width"))
            epochs = np.arange(1, len(means) + 1)
            axes.plot(epochs, means, color=f"C{number}")
            axes.fill_between(epochs, means - half_widths, means + half_widths, color=f"C{number}", alpha=0.2, lw=0)
            axes.annotate(f" {way}", (epochs[-1], means[-1]), color=f"C{number}", va="center", annotation_clip=False)
        axes.set(title=PANELS[of], xlabel="epoch", ylim=(None, 102))
        axes.grid(alpha=0.3)
    panels[0].axhline(100 * (1 - WRONG), color="0.4", ls=":")
    corner = (len(epochs), 100 * (1 - WRONG) - 1)
    panels[0].annotate("all right labels, no wrong one", corner, color="0.4", fontsize="small", ha="right", va="top")
    panels[0].set_ylabel("accuracy in %, dropout off")
    figure.savefig(path, transparent=True)
