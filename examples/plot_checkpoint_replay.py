"""
Checkpoint and replay
=====================

You need not keep the activations of a layer for the backward pass: you can compute them again, if
you drop the same elements again. And a training run that was interrupted can continue as if it had
not been.
"""

import pickle

import matplotlib.pyplot as plt
import numpy as np

import fastdrop as fd

x = np.random.default_rng(0).standard_normal((256, 512), dtype=np.float32)
dy = np.ones_like(x)

# %%
# Replay
# ------
# The forward pass keeps a seed and an offset, 24 bytes, instead of a mask or an activation.

stream = fd.Stream(42)
remembered = stream.seed, stream.offset
y, mask = fd.relu_dropout(x, keep_prob=0.9, rng=stream)
kept_for_backward = fd.relu_dropout_backward(dy, mask)

y_again, mask_again = fd.relu_dropout(x, keep_prob=0.9, rng=fd.Stream(*remembered))
recomputed = fd.relu_dropout_backward(dy, mask_again)

assert np.array_equal(y, y_again)
assert np.array_equal(kept_for_backward, recomputed)
print(f"activations: {y.nbytes:,} bytes; mask: {mask.nbytes:,} bytes; replay: 24 bytes")

# %%
# Resume
# ------
# A logistic regression with dropout on its inputs is trained twice: once without a break, and once
# with an interruption in the middle. Only the weights and the pickled stream survive it.

truth = np.random.default_rng(1).standard_normal(512)
labels = (x @ truth > 0).astype(np.float32)


def train(weights, stream, steps):
    """Run gradient descent, and return the loss at each step."""
    losses = []
    for _ in range(steps):
        h, _ = fd.dropout(x, keep_prob=0.8, rng=stream)
        scores = h @ weights
        losses.append(float(np.mean(np.logaddexp(0, scores) - labels * scores)))
        weights -= 0.5 * h.T @ (1 / (1 + np.exp(-scores)) - labels) / len(labels)
    return losses


straight, weights, stream = np.zeros(512, np.float32), np.zeros(512, np.float32), fd.Stream(5)
in_one_go = train(straight, fd.Stream(5), 60)

first = train(weights, stream, 30)
checkpoint = pickle.dumps((weights, stream))
weights, stream = pickle.loads(checkpoint)
second = train(weights, stream, 30)

assert first + second == in_one_go
assert np.array_equal(weights, straight)

fig, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.plot(in_one_go, linewidth=5, alpha=0.3, label="without a break")
axes.plot(range(30), first, label="until the checkpoint")
axes.plot(range(30, 60), second, label="from the checkpoint")
axes.set(xlabel="step", ylabel="loss, with dropout")
axes.legend()
