"""
Digits, with four variants of dropout
=====================================

The network of ``mlp_digits.py``, with 256 units in each hidden layer, learns handwritten digits
from only 200 images. These are so few that it learns them by heart, which dropout is meant to prevent.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np

import fastdrop as fd
from fastdrop.layers import ReLUDropout

sys.path += [".", "examples"]
import mlp_digits


# %%
# Three variants are the layer with other arguments. The fourth shares one mask among the images of a
# batch, so each step trains a single sub-network. Its gradient averages far fewer masks and is much
# noisier: steps of this length work only if more elements are kept.
class SharedDropout:
    """Inverted dropout behind a ReLU, with one mask for the whole batch."""

    def __init__(self, keep_prob, rng):
        self.keep_prob, self.rng, self.training = keep_prob, rng, True

    def __call__(self, x):
        h = np.maximum(x, 0)
        if not self.training:
            return h
        self.passed = x > 0
        h, self.mask = fd.dropout(h, keep_prob=self.keep_prob, broadcast_dims=(0,), rng=self.rng)
        return h

    def backward(self, dy):
        return fd.dropout_backward(dy, self.mask) * self.passed


VARIANTS = {
    "no dropout": lambda rng: ReLUDropout(keep_prob=1.0, rng=rng),
    "vanilla": lambda rng: ReLUDropout(keep_prob=0.5, mode="vanilla", rng=rng),
    "inverted": lambda rng: ReLUDropout(keep_prob=0.5, rng=rng),
    "inverted, one mask per batch": lambda rng: SharedDropout(0.8, rng),
}

# %%
# All variants begin with the same weights and see the same batches.
data = mlp_digits.digits()
data = data._replace(x=data.x[:200], labels=data.labels[:200])
EPOCHS = 60

curves = {}
for name, layer in VARIANTS.items():
    rng = np.random.default_rng(0)
    network = mlp_digits.Network(
        mlp_digits.initial_parameters(rng), [layer(stream) for stream in fd.Stream(0).spawn(2)]
    )
    curves[name] = []
    for _ in range(EPOCHS):
        for x, labels in mlp_digits.batches(data, rng):
            network.train_step(x, labels)
        curves[name].append(mlp_digits.accuracy(network, data.x_test, data.labels_test))
    print(f"{name:30} {curves[name][-1]:.1%} of the test images read correctly")

# %%
fig, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
for name, accuracies in curves.items():
    axes.plot(range(1, EPOCHS + 1), accuracies, label=name)
axes.set(xlabel="epoch", ylabel="test accuracy", ylim=(0.5, 1))
axes.legend()

# One seed and 200 images show that every variant learns. They do not show which is best.
assert min(accuracies[-1] for accuracies in curves.values()) > 0.6
