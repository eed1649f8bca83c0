"""A network with dropout that reads handwritten digits, written from scratch in NumPy.

It is the network of the usual introductions to dropout. The only thing that it takes from fastdrop
is `fastdrop.layers.ReLUDropout`:

    h1 = relu_dropout(x W1 + b1)
    h2 = relu_dropout(h1 W2 + b2)
    o  = h2 W3 + b3

It is trained on the cross-entropy of softmax(o), by gradient descent with momentum. Run it:

    python examples/mlp_digits.py

``python -m fastdrop demo`` trains the same network in several ways and compares them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from fastdrop.layers import ReLUDropout

Floats = NDArray[np.float32]
Labels = NDArray[np.int64]

HIDDEN = 256  # units in each hidden layer
KEEP_PROB = 0.5  # what Srivastava et al. (2014) found best for hidden units
EPOCHS = 20
BATCH = 64
LEARNING_RATE = 0.05
MOMENTUM = 0.9


class Activation(Protocol):
    """What the network needs of a ReLU with dropout, such as `ReLUDropout`."""

    training: bool

    def __call__(self, x: Floats) -> Floats: ...

    def backward(self, dy: Floats) -> Floats: ...


class Network:
    """A network of two hidden layers, each with its activation, and a softmax.

    `parameters` are W1, b1, W2, b2, W3, b3; the network trains them in place.
    """

    def __init__(self, parameters: list[Floats], activations: Sequence[Activation]) -> None:
        self.parameters = parameters
        self.activations = activations
        self.velocities = [np.zeros_like(parameter) for parameter in parameters]

    def forward(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Return both hidden layers and the scores of the classes."""
        W1, b1, W2, b2, W3, b3 = self.parameters
        relu_dropout_1, relu_dropout_2 = self.activations
        h1 = relu_dropout_1(x @ W1 + b1)
        h2 = relu_dropout_2(h1 @ W2 + b2)
        return h1, h2, h2 @ W3 + b3

    def gradients(self, x: Floats, labels: Labels) -> list[Floats]:
        """Return the gradient of the mean cross-entropy with respect to each parameter."""
        _, _, W2, _, W3, _ = self.parameters
        relu_dropout_1, relu_dropout_2 = self.activations
        h1, h2, scores = self.forward(x)
        d_scores = softmax(scores)
        d_scores[np.arange(len(labels)), labels] -= 1
        d_scores /= len(labels)
        d_z2 = relu_dropout_2.backward(d_scores @ W3.T)
        d_z1 = relu_dropout_1.backward(d_z2 @ W2.T)
        return [
            x.T @ d_z1, d_z1.sum(axis=0),
            h1.T @ d_z2, d_z2.sum(axis=0),
            h2.T @ d_scores, d_scores.sum(axis=0),
        ]  # fmt: skip

    def train_step(self, x: Floats, labels: Labels) -> None:
        """Take one step of gradient descent on a batch."""
        gradients = self.gradients(x, labels)
        for parameter, velocity, gradient in zip(self.parameters, self.velocities, gradients):
            velocity *= MOMENTUM
            velocity -= LEARNING_RATE * gradient
            parameter += velocity

    def probabilities(self, x: Floats) -> Floats:
        """Return the probability of each class.

        In training it is that of a sampled sub-network, otherwise that of the whole network.
        """
        return softmax(self.forward(x)[-1])

    def set_training(self, training: bool) -> None:
        """Turn dropout in the activations on or off."""
        for activation in self.activations:
            activation.training = training


def softmax(scores: Floats) -> Floats:
    """Compute the softmax along the last axis. Subtracting the largest score keeps exp from overflowing."""
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def initial_parameters(rng: np.random.Generator) -> list[Floats]:
    """Return weights of variance 2 / inputs, which suits ReLU (He et al. 2015), and zero biases."""
    sizes = (64, HIDDEN, HIDDEN, 10)
    parameters = []
    for inputs, outputs in pairwise(sizes):
        weights = rng.standard_normal((inputs, outputs)) * np.sqrt(2 / inputs)
        parameters += [weights.astype(np.float32), np.zeros(outputs, np.float32)]
    return parameters


class Digits(NamedTuple):
    """Images of 8 x 8 pixels in [0, 1], and the digit that each of them shows."""

    x: Floats
    labels: Labels
    x_test: Floats
    labels_test: Labels


def digits() -> Digits:
    """Load scikit-learn's 1,797 handwritten digits (UCI, Alpaydin and Kaynak 1998), a third for testing."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, x_test, y, y_test = train_test_split(
        images, labels, test_size=1 / 3, stratify=labels, random_state=0
    )
    return Digits(x, y, x_test, y_test)


def batches(data: Digits, rng: np.random.Generator) -> Iterator[tuple[Floats, Labels]]:
    """Go through the training images once, in random order."""
    order = rng.permutation(len(data.x))
    for first in range(0, len(order), BATCH):
        chosen = order[first : first + BATCH]
        yield data.x[chosen], data.labels[chosen]


def with_wrong_labels(data: Digits, images: int, wrong: float, rng: np.random.Generator) -> Digits:
    """Keep only some training images, and give about the share `wrong` of them the label of another digit."""
    chosen = rng.permutation(len(data.x))[:images]
    shift = rng.integers(1, 10, images) * (rng.random(images) < wrong)
    return data._replace(x=data.x[chosen], labels=(data.labels[chosen] + shift) % 10)


def accuracy(network: Network, x: Floats, labels: Labels) -> float:
    """Return the share of images for which the whole network gives the label."""
    network.set_training(False)
    guesses = network.probabilities(x).argmax(axis=1)
    network.set_training(True)
    return float(np.mean(guesses == labels))


def main() -> None:
    """Train with inverted dropout, and print the accuracy after every five epochs."""
    data, rng = digits(), np.random.default_rng(0)
    activations = [ReLUDropout(keep_prob=KEEP_PROB, rng=seed) for seed in (1, 2)]
    network = Network(initial_parameters(rng), activations)
    print(*activations, sep="\n")
    for epoch in range(1, EPOCHS + 1):
        for x, labels in batches(data, rng):
            network.train_step(x, labels)
        if epoch % 5 == 0:
            right = accuracy(network, data.x_test, data.labels_test)
            print(f"epoch {epoch:2}: {right:.1%} of the test images read correctly")


if __name__ == "__main__":
    main()
