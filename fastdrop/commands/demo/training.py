"""Trainings of the example network: how accurate, how long, and whether the reference gives the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastdrop.commands.demo.ways import ON_REFERENCE, REFERENCES, WAYS, activations_of
from fastdrop.formulas import MODES

ENSEMBLES = (1, 4, 16, 64)  # numbers of sub-networks that are averaged
CHECKED_SEEDS = 3  # the reference takes eight times as long, so it trains with the first seeds only


@dataclass
class Training:
    """The result of one training."""

    parameters: list[NDArray[np.float32]]
    accuracy: float
    step_seconds: list[float]
    dropout_seconds: list[float]  # the part of each step that the activations took
    ensembles: list[float]  # the accuracy for each number of sub-networks in ENSEMBLES


Trainings = dict[str, list[Training]]  # by way; one training per seed


def train_all(
    example: ModuleType, data: Any, seeds: Sequence[int], epochs: int, advance: Callable[[], None]
) -> Trainings:
    """Train once for each way and seed, and on the reference for the first seeds."""
    return {
        way: [train(example, data, way, seed, epochs, advance) for seed in seeds_of(way, seeds)]
        for way in (*WAYS, *REFERENCES)
    }


def seeds_of(way: str, seeds: Sequence[int]) -> Sequence[int]:
    return seeds[:CHECKED_SEEDS] if way in REFERENCES else seeds


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
        example.accuracy(network, data.x_test, data.labels_test),
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
