"""Draws training curves in a terminal, two by four dots to a character (the Braille patterns of Unicode)."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.text import Text

Points = Sequence[tuple[int, float]]

_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_LABEL = 9


def draw_curves(curves: Mapping[str, Points], *, width: int, height: int, styles: Mapping[str, str]) -> Text:
    """`width` by `height` characters: the curves, the value axis on their left, the steps below.

    The points of a curve are (step, value) by rising step, with finite values. Of two curves in one
    character the later has its colour. Empty when there are no points at all.
    """
    drawn = {name: points for name, points in curves.items() if points}
    if not drawn:
        return Text("")
    columns, rows = 2 * max(width - _LABEL - 2, 4), 4 * max(height - 1, 2)
    last_step = max(points[-1][0] for points in drawn.values())
    values = [value for points in drawn.values() for _, value in points]
    low, high = min(values), max(values)
    if high == low:
        low, high = low - 0.5, high + 0.5

    cells = np.zeros((rows // 4, columns // 2), dtype=int)
    colours: dict[tuple[int, int], str] = {}
    for name, points in drawn.items():
        steps, heights = (np.array(axis, dtype=float) for axis in zip(*points, strict=True))
        at = np.linspace(0, max(last_step, 1), columns)
        level = np.rint((high - np.interp(at, steps, heights)) / (high - low) * (rows - 1)).astype(int)
        before = int(level[0])
        for x in np.flatnonzero((at >= steps[0]) & (at <= steps[-1])) if len(points) > 1 else [0]:
            now = int(level[x])
            onward = 1 if now > before else -1
            for y in [now] if now == before else range(before + onward, now + onward, onward):
                cells[y // 4, x // 2] |= _DOTS[y % 4][x % 2]
                colours[y // 4, int(x) // 2] = styles.get(name, "")
            before = now

    picture = Text()
    for row, line in enumerate(cells):
        value = {0: high, len(cells) - 1: low}.get(row)
        picture.append(f"{value:>{_LABEL}.4g} ┤" if value is not None else " " * (_LABEL + 1) + "│", style="dim")
        for column, dots in enumerate(line):
            picture.append(chr(_BRAILLE + int(dots)), style=colours.get((row, column), ""))
        picture.append("\n")
    end = f"round {last_step + 1}"
    picture.append(" " * (_LABEL + 2) + "1" + end.rjust(columns // 2 - 1), style="dim")
    return picture
