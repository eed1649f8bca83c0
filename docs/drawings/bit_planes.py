"""Draw bit_planes.svg from the real bits of a stream: python docs/drawings/bit_planes.py"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import fastdrop as fd
from fastdrop.reference import decisions

SEED, KEEP_PROB, ELEMENTS, PLANES = 12, 0.9, 10, 6
CELL, LEFT, TOP = 40, 110, 96
WIDTH, HEIGHT = LEFT + PLANES * CELL + 210, TOP + ELEMENTS * CELL + 84
TIED, KEPT, DROPPED, UNSEEN = "#d6e4f5", "#9fd8a8", "#f3a6a0", "#f4f4f4"
LEGEND = ((TIED, "tied: go on"), (KEPT, "below T"), (DROPPED, "above T"), (UNSEEN, "not needed"))


def text(x: float, y: float, words: object, anchor: str = "middle", **style: object) -> str:
    extra = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{extra}>{words}</text>'


def cell(row: int, column: int, bit: object, fill: str) -> str:
    x, y = LEFT + column * CELL, TOP + row * CELL
    box = f'<rect x="{x + 2}" y="{y + 2}" width="{CELL - 4}" height="{CELL - 4}" rx="4" fill="{fill}"/>'
    return box + text(x + CELL / 2, y + CELL / 2 + 6, bit)


def element(row: int, bits: list[int], threshold: list[int]) -> tuple[list[str], bool]:
    """Return the cells of an element, coloured up to the bit that decides it, and whether it is kept."""
    decided = next(j for j in range(PLANES) if bits[j] != threshold[j])
    kept = bits[decided] < threshold[decided]
    fills = [TIED] * decided + [KEPT if kept else DROPPED] + [UNSEEN] * (PLANES - decided - 1)
    cells = [cell(row, j, bits[j] if j <= decided else "", fill) for j, fill in enumerate(fills)]
    y = TOP + row * CELL + CELL / 2 + 6
    looked = f"{decided + 1} bit{'s' if decided else ''}"
    verdict = f"{bits[decided]} {'&lt;' if kept else '&gt;'} {threshold[decided]}"
    words = f"{verdict}: {'kept' if kept else 'dropped'}, after {looked}"
    label = text(LEFT - 14, y, f"element {row}", "end")
    return [label, *cells, text(LEFT + PLANES * CELL + 14, y, words, "start")], kept


def drawing() -> str:
    block = np.zeros(1, np.uint64)
    planes = [np.unpackbits(decisions.plane(SEED, block, j)[0], bitorder="little") for j in range(PLANES)]
    threshold = [int(KEEP_PROB * 2**PLANES) >> (PLANES - 1 - j) & 1 for j in range(PLANES)]
    parts = [text(LEFT - 14, TOP - 26, f"T = {KEEP_PROB}", "end", font_weight="bold")]
    parts.append(text(LEFT - 14, 32, "plane", "end", fill="#666"))
    for j, bit in enumerate(threshold):
        parts.append(text(LEFT + (j + 0.5) * CELL, 32, j, fill="#666"))
        parts.append(text(LEFT + (j + 0.5) * CELL, TOP - 26, bit, font_weight="bold"))
    parts.append(f'<path d="M{LEFT} {TOP - 10}H{LEFT + PLANES * CELL}" stroke="#888"/>')
    verdicts = []
    for row in range(ELEMENTS):
        cells, kept = element(row, [int(plane[row]) for plane in planes], threshold)
        parts += cells
        verdicts.append(kept)
    drawn = fd.keep_mask(ELEMENTS, keep_prob=KEEP_PROB, rng=SEED).to_array()
    assert verdicts == drawn.tolist(), "the drawing shows what the calls draw"
    y = TOP + ELEMENTS * CELL + 24
    parts.append(text(LEFT - 14, y, "undecided", "end"))
    parts += [text(LEFT + (j + 0.5) * CELL, y, "1" if j == 0 else f"1/{2**j}") for j in range(PLANES)]
    parts.append(text(LEFT + PLANES * CELL + 14, y, "+ ... = 2 bits per element", "start"))
    x = LEFT
    for fill, words in LEGEND:
        box = f'x="{x}" y="{y + 22}" width="14" height="14" rx="3"'
        parts.append(f'<rect {box} fill="{fill}" stroke="#bbb"/>')
        parts.append(text(x + 20, y + 34, words, "start", font_size=13))
        x += 48 + 6 * len(words)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" font-family="sans-serif" font-size="15" fill="#222">\n'
        f"<title>Ten uniforms compared with T, plane by plane</title>\n"
        f'<rect width="100%" height="100%" rx="8" fill="#fff"/>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    Path(__file__).with_suffix(".svg").write_text(drawing(), encoding="utf-8")
