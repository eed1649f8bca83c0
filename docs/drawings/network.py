"""Draw network.svg, a network with all of its units and one sub-network: python docs/drawings/network.py"""

from __future__ import annotations

from itertools import pairwise, product
from pathlib import Path

import fastdrop as fd

SEED, KEEP_PROB = 3, 0.6
LAYERS = (3, 5, 5, 2)  # units, from the inputs to the outputs
RADIUS, ACROSS, DOWN = 15, 105, 52
MARGIN, GAP, TOP = 40, 110, 50
WIDTH = 2 * (MARGIN + (len(LAYERS) - 1) * ACROSS) + GAP
HEIGHT = TOP + max(LAYERS) * DOWN + 40
UNIT, OUT, LINE, CROSS = "#9fc4ea", "#f0f0f0", "#777", "#c0392b"

Unit = tuple[int, int]  # its layer and its place there


def place(left: float, unit: Unit) -> tuple[float, float]:
    layer, row = unit
    return left + layer * ACROSS, TOP + (row + (max(LAYERS) - LAYERS[layer] + 1) / 2) * DOWN


def connection(left: float, start: Unit, end: Unit) -> str:
    (x1, y1), (x2, y2) = place(left, start), place(left, end)
    return f'<path d="M{x1:g} {y1:g}L{x2:g} {y2:g}" stroke="{LINE}" stroke-width="1"/>'


def circle(left: float, unit: Unit, dropped: set[Unit]) -> str:
    x, y = place(left, unit)
    if unit not in dropped:
        return f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="{UNIT}" stroke="#345"/>'
    arm = RADIUS * 0.55
    cross = f"M{x - arm:g} {y - arm:g}l{2 * arm:g} {2 * arm:g}m0 {-2 * arm:g}l{-2 * arm:g} {2 * arm:g}"
    return (f'<circle cx="{x:g}" cy="{y:g}" r="{RADIUS}" fill="{OUT}" stroke="#999" stroke-dasharray="4 3"/>'
            f'<path d="{cross}" stroke="{CROSS}" stroke-width="2.5"/>')  # fmt: skip


def network(left: float, title: str, dropped: set[Unit]) -> list[str]:
    units = [(layer, row) for layer, count in enumerate(LAYERS) for row in range(count)]
    pairs = [pair for layers in pairwise(range(len(LAYERS)))
             for pair in product(*([unit for unit in units if unit[0] == layer] for layer in layers))]  # fmt: skip
    middle = left + (len(LAYERS) - 1) * ACROSS / 2
    return [
        f'<text x="{middle:g}" y="26" text-anchor="middle" font-weight="bold">{title}</text>',
        *(connection(left, *pair) for pair in pairs if not dropped & set(pair)),
        *(circle(left, unit, dropped) for unit in units),
        *(f'<text x="{left + layer * ACROSS:g}" y="{HEIGHT - 12}" text-anchor="middle" fill="#555">{word}</text>'
          for layer, word in enumerate(("inputs", "hidden", "hidden", "outputs"))),
    ]  # fmt: skip


def drawing() -> str:
    kept = fd.keep_mask((2, LAYERS[1]), keep_prob=KEEP_PROB, rng=SEED).to_array()
    dropped = {(layer + 1, row) for layer, row in product(range(2), range(LAYERS[1])) if not kept[layer, row]}
    right = MARGIN + (len(LAYERS) - 1) * ACROSS + GAP
    body = "\n".join(network(MARGIN, "prediction: all units", set())
                     + network(right, "one training step: a random part", dropped))  # fmt: skip
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="15" fill="#222">\n'
        f"<title>A network with all units, and with some hidden units dropped</title>\n{body}\n</svg>\n"
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawing(), encoding="utf-8")
