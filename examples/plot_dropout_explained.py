"""
What dropout does to a number, and to a network
===============================================

The two forms of dropout differ in when they make up for the dropped elements. The average of many
sampled sub-networks is close to the prediction of the one scaled network.
"""

import matplotlib.pyplot as plt
import numpy as np

import fastdrop as fd

# %%
# Vanilla or inverted
# -------------------
# A neuron sums 100 activations of 1. With vanilla dropout the sum shrinks to ``keep_prob`` times its
# value, and prediction has to shrink it too. Inverted dropout scales during training instead.

inputs = np.ones((20_000, 100), np.float32)
fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for mode in ("vanilla", "inverted"):
    kept, _ = fd.dropout(inputs, keep_prob=0.8, mode=mode, rng=0)
    sums = kept.sum(axis=1)
    predicted = fd.dropout_predict(inputs[:1], keep_prob=0.8, mode=mode).sum()
    values, counts = np.unique(sums.round(2), return_counts=True)
    (line,) = axes.plot(values, counts, "o-", markersize=3, label=f"{mode}: training")
    axes.axvline(predicted, color=line.get_color(), linestyle="--", label=f"{mode}: prediction")
    assert abs(sums.mean() - predicted) < 0.1
axes.set(xlabel="sum of 100 activations of 1, keep_prob 0.8", ylabel="samples")
axes.legend()

# %%
# The ensemble
# ------------
# Every mask selects a sub-network. The plot shows what sampled sub-networks of a small random network
# predict for one of three classes, the running mean, and the prediction of the whole network.

rng = np.random.default_rng(3)
hidden = rng.standard_normal(50)
weights = rng.standard_normal((50, 3)) / 4


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


sampled, _ = fd.relu_dropout(np.tile(hidden, (2000, 1)), keep_prob=0.8, rng=fd.Stream(1))
chance = softmax(sampled @ weights)[:, 0]
whole = softmax(fd.relu_dropout_predict(hidden, keep_prob=0.8) @ weights)[0]
count = np.arange(1, len(chance) + 1)

fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.semilogx(count, chance, ".", alpha=0.3, label="one sub-network")
axes.semilogx(count, np.cumsum(chance) / count, label="mean of the first k")
axes.axhline(whole, color="black", linestyle="--", label="the whole network")
axes.set(xlabel="k", ylabel="probability of the first class")
axes.legend()
assert abs(chance.mean() - whole) < 0.05
