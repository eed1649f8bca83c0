"""DropConnect: dropout of the weights, in a network that reads handwritten digits.

Wan et al. (2013) drop weights instead of units. The weights are dropped by `fastdrop.dropout`, and
their gradient is `fastdrop.dropout_backward`. The layer `fastdrop.layers.DropConnect` puts these two
around a matrix product. Run it:

    python examples/dropconnect.py
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import fastdrop as fd
from fastdrop.layers import DropConnect

HIDDEN = 256
KEEP_PROB = 0.5
EPOCHS = 30
BATCH = 64
LEARNING_RATE = 0.02
MOMENTUM = 0.9


def main() -> None:
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32)
    x, x_test, labels, labels_test = train_test_split(images, labels, test_size=0.25, random_state=0)
    rng, stream = np.random.default_rng(0), fd.Stream(0)
    first, last = (
        DropConnect(
            rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)).astype(np.float32),
            keep_prob=KEEP_PROB,
            bias=np.zeros(outputs, np.float32),
            rng=stream,
        )
        for inputs, outputs in ((x.shape[1], HIDDEN), (HIDDEN, 10))
    )
    layers = (first, last)
    momenta = [(np.zeros_like(layer.weights), np.zeros_like(layer.bias)) for layer in layers]

    def logits(x: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        hidden = np.maximum(first(x), 0)
        return hidden, last(hidden)

    for _ in range(EPOCHS):
        for batch in np.array_split(rng.permutation(len(x)), len(x) // BATCH):
            hidden, output = logits(x[batch])
            d = np.exp(output - output.max(axis=1, keepdims=True))
            d /= d.sum(axis=1, keepdims=True)
            d[np.arange(len(batch)), labels[batch]] -= 1
            first.backward(last.backward(d / len(batch)) * (hidden > 0))
            for layer, (weights_step, bias_step) in zip(layers, momenta):
                weights_step *= MOMENTUM
                weights_step -= LEARNING_RATE * layer.weights_gradient
                bias_step *= MOMENTUM
                bias_step -= LEARNING_RATE * layer.bias_gradient
                layer.weights += weights_step
                layer.bias += bias_step

    for layer in layers:
        layer.eval()
    accuracy = np.mean(logits(x_test)[1].argmax(axis=1) == labels_test)
    print(f"accuracy on {len(x_test)} digits that it has not seen: {100 * accuracy:.1f} %")


if __name__ == "__main__":
    main()
