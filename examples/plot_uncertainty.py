"""Plot how sure a network is against the distance from its data.

A small network with dropout learns a curve from points in two places, by gradient descent on the
mean squared error. Predictions with dropout left on are spread out (Gal and Ghahramani 2016). The
spread is narrow near the data, and wide between and beyond them. Run it:

    python examples/plot_uncertainty.py uncertainty.png
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

import fastdrop as fd

Floats = NDArray[np.float64]

HIDDEN = 128
KEEP_PROB = 0.9
STEPS = 4000
LEARNING_RATE = 0.003
SAMPLES = 400


def data(rng: np.random.Generator) -> tuple[Floats, Floats]:
    x = np.concatenate([rng.uniform(-2.5, -1, 40), rng.uniform(0.5, 2, 40)])[:, np.newaxis]
    return x, np.sin(2 * x) + 0.5 * x + rng.normal(0, 0.1, x.shape)


def initial_parameters(rng: np.random.Generator) -> list[Floats]:
    """Return W1, b1, W2, b2, W3, b3."""
    parameters = []
    for inputs, outputs in ((1, HIDDEN), (HIDDEN, HIDDEN), (HIDDEN, 1)):
        parameters.append(rng.normal(0, np.sqrt(2 / inputs), (inputs, outputs)))
        parameters.append(rng.normal(0, 1, outputs))
    return parameters


def forward(parameters: list[Floats], x: Floats, stream: fd.Stream) -> tuple[Floats, list[Any]]:
    """Return the prediction of one thinned network, and what a backward pass needs."""
    w1, b1, w2, b2, w3, b3 = parameters
    h1, mask1 = fd.relu_dropout(x @ w1 + b1, keep_prob=KEEP_PROB, rng=stream)
    h2, mask2 = fd.relu_dropout(h1 @ w2 + b2, keep_prob=KEEP_PROB, rng=stream)
    return h2 @ w3 + b3, [x, h1, mask1, h2, mask2]


def gradients(parameters: list[Floats], saved: list[Any], dy: Floats) -> list[Floats]:
    _, _, w2, _, w3, _ = parameters
    x, h1, mask1, h2, mask2 = saved
    d2 = fd.relu_dropout_backward(dy @ w3.T, mask2)
    d1 = fd.relu_dropout_backward(d2 @ w2.T, mask1)
    pairs = ((x, d1), (h1, d2), (h2, dy))
    return [gradient for inputs, d in pairs for gradient in (inputs.T @ d, d.sum(axis=0))]


def trained(x: Floats, y: Floats, rng: np.random.Generator) -> list[Floats]:
    """Train with Adam (Kingma and Ba 2015), with its authors' constants except the learning rate."""
    parameters, stream = initial_parameters(rng), fd.Stream(1)
    means = [np.zeros_like(p) for p in parameters]
    squares = [np.zeros_like(p) for p in parameters]
    for step in range(1, STEPS + 1):
        prediction, saved = forward(parameters, x, stream)
        found = gradients(parameters, saved, 2 * (prediction - y) / len(x))
        for p, m, s, g in zip(parameters, means, squares, found):
            m += 0.1 * (g - m)
            s += 0.001 * (g * g - s)
            p -= LEARNING_RATE * (m / (1 - 0.9**step)) / (np.sqrt(s / (1 - 0.999**step)) + 1e-8)
    return parameters


def distance_from(x: Floats, points: Floats) -> Floats:
    return np.abs(x - points.T).min(axis=1)


def draw(path: str, x: Floats, y: Floats, grid: Floats, mean: Floats, spread: Floats) -> None:
    figure = Figure(figsize=(11, 4), layout="constrained")
    curve, scatter = figure.subplots(1, 2)
    line = grid[:, 0]
    for width in (2, 1):
        band = mean - width * spread, mean + width * spread
        curve.fill_between(line, *band, color="C0", alpha=0.2, linewidth=0)
    curve.plot(line, mean, label=f"mean of {SAMPLES} thinned networks")
    curve.plot(x[:, 0], y[:, 0], ".", color="black", label="data")
    curve.set(title="Prediction, with one and two standard deviations", xlabel="x", ylabel="y")
    curve.legend()
    scatter.plot(distance_from(grid, x), spread, ".")
    scatter.set(title="Uncertainty", xlabel="distance from the nearest data", ylabel="standard deviation")
    figure.savefig(path, dpi=120)


def main(path: str) -> None:
    rng = np.random.default_rng(0)
    x, y = data(rng)
    parameters = trained(x, y, rng)
    grid = np.linspace(-5, 5, 401)[:, np.newaxis]
    result = fd.mc_predict(
        lambda x, stream: forward(parameters, x, stream)[0], grid, SAMPLES, rng=2, progress=True
    )
    mean, spread = result.mean[:, 0], np.sqrt(result.variance[:, 0])
    draw(path, x, y, grid, mean, spread)

    distance = distance_from(grid, x)
    print("average standard deviation of the predictions")
    for least, most in ((0, 0.1), (0.1, 0.5), (0.5, 1), (1, 2), (2, 3)):
        within = (distance >= least) & (distance < most)
        print(f"    {least:3} to {most:3} from the data: {spread[within].mean():.3f}")
    print(f"plotted in {path}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "uncertainty.png")
