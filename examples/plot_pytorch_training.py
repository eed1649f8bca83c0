"""
Train a model in PyTorch
========================

One line lets the dropout modules of a model use the kernels. The training loop stays as it is, and so do
the model's parameters, its seeds, and what it computes in evaluation.
"""

import copy

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

import fastdrop.torch as ft

torch.set_num_threads(1)
pictures, digits = map(torch.as_tensor, load_digits(return_X_y=True))
pictures = pictures.float() / 16
train_x, train_y, test_x, test_y = pictures[:1000], digits[:1000], pictures[1000:], digits[1000:]

torch.manual_seed(0)
theirs = nn.Sequential(
    nn.Linear(64, 256), nn.ReLU(), nn.Dropout(0.5),
    nn.Linear(256, 256), nn.ReLU(), nn.Dropout(0.5),
    nn.Linear(256, 10),
)  # fmt: skip
ours = copy.deepcopy(theirs)

# %%
# The one line
# ------------
# `accelerate` changes the model in place, and says what it did. A `Dropout` that follows a `ReLU` in an
# `nn.Sequential` becomes one pass over the tensor. `ft.restore(ours)` undoes it.

print(ft.accelerate(ours))

# %%
# In evaluation mode both models compute the same.

theirs.eval(), ours.eval()
assert torch.equal(theirs(test_x), ours(test_x))

# %%
# The loop
# --------
# This is any loop over batches. A seed of PyTorch fixes the masks of both models, but ours are other masks:
# the kernels have a generator of their own, which takes its key from PyTorch's.


def train(model, seed, epochs=15):
    """Train with Adam, and return the accuracy on the test pictures after each epoch."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters())
    accuracies = []
    for _ in range(epochs):
        model.train()
        for rows in torch.randperm(len(train_x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(train_x[rows]), train_y[rows]).backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            accuracies.append((model(test_x).argmax(1) == test_y).float().mean().item())
    return accuracies


start = copy.deepcopy(ours.state_dict())
with_theirs, with_ours = train(theirs, seed=1), train(ours, seed=1)

# %%
# The same seed gives the same masks, so a second run from the same start ends with the same weights.

ours.load_state_dict(start)
assert train(ours, seed=1) == with_ours

fig, axes = plt.subplots(figsize=(7, 3.5), layout="constrained")
axes.plot(range(1, 16), with_theirs, "--", label="PyTorch's dropout")
axes.plot(range(1, 16), with_ours, label="accelerate")
axes.set(xlabel="epoch", ylabel="accuracy on the test pictures", ylim=(0.6, 1))
axes.legend()
axes.grid(alpha=0.3)

# %%
# Save and load
# -------------
# The parameters keep their names, so a checkpoint fits both models.

theirs.load_state_dict(ours.state_dict())
theirs.eval()
assert torch.equal(theirs(test_x), ours(test_x))
print(f"accuracy after 15 epochs: {with_theirs[-1]:.1%} with PyTorch's dropout, {with_ours[-1]:.1%} with ours")
