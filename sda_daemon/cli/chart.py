"""Draws curves with characters. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

MARKS = "•×+o"
ASCII_MARKS = "*x+o"
BOTH = "#"
_LOG_RATIO = 20.0
"""Curves whose values span more than this are drawn on a logarithmic scale."""
Points = Sequence[tuple[float, float]]


def draw_curves(curves: Mapping[str, Points], width: int, height: int = 10, *, ascii_only: bool = False) -> list[str]:
    """Return the lines of a chart, axes and legend included; empty if there is nothing to draw.

    Between points lines are drawn straight. `#` is where two curves meet.

    Args:
        curves: points (x, y) by name, in order of x; only finite values.
        width: of all lines, in characters.
        height: of the chart itself, in lines.
        ascii_only: for terminals without Unicode.
    """
    drawn = {name: list(points) for name, points in curves.items() if points}
    if not drawn or width < 30 or height < 3:
        return []
    values = [y for points in drawn.values() for _, y in points]
    low, high = min(values), max(values)
    is_log = low > 0 and high / low > _LOG_RATIO
    labels = [_label(_unscale(share, low, high, is_log=is_log)) for share in (1.0, 0.5, 0.0)]
    margin = max(map(len, labels)) + 1
    columns = max(10, width - margin - 2)
    marks = ASCII_MARKS if ascii_only else MARKS
    grid = [[" "] * columns for _ in range(height)]
    first, last = min(p[0][0] for p in drawn.values()), max(p[-1][0] for p in drawn.values())
    for number, points in enumerate(drawn.values()):
        mark = marks[number % len(marks)]
        for column in range(columns):
            share = column / max(1, columns - 1)
            x = first * (1 - share) + last * share
            y = _at(points, x)
            if y is None:
                continue
            row = round((1.0 - _scale(y, low, high, is_log=is_log)) * (height - 1))
            grid[row][column] = mark if grid[row][column] in (" ", mark) else BOTH
    edge, corner, line = ("|", "+", "-") if ascii_only else ("│", "└", "─")
    named = {0: labels[0], height // 2: labels[1], height - 1: labels[2]}
    rows = [f"{named.get(index, ''):>{margin}}{edge}{''.join(row).rstrip()}" for index, row in enumerate(grid)]
    ends = f"{_label(first)}{_label(last):>{max(1, columns - len(_label(first)))}}"
    legend = "  ".join(f"{marks[number % len(marks)]} {name}" for number, name in enumerate(drawn))
    met = f"  {BOTH} both" if any(BOTH in row for row in grid) else ""
    scale = met + ("  (logarithmic)" if is_log else "")
    return [
        *rows,
        " " * margin + corner + line * columns,
        " " * (margin + 1) + ends,
        " " * (margin + 1) + legend + scale,
    ]


def _scale(value: float, low: float, high: float, *, is_log: bool) -> float:
    """Return where a value lies between the ends, from 0 to 1."""
    if high <= low:
        return 0.5
    if is_log:
        return (math.log(max(value, low)) - math.log(low)) / (math.log(high) - math.log(low))
    span = high / 2 - low / 2  # halves, because the whole range may be beyond all floats
    return (value / 2 - low / 2) / span if span else 0.5


def _unscale(share: float, low: float, high: float, *, is_log: bool) -> float:
    if is_log and 0.0 < share < 1.0:
        return math.exp(math.log(low) * (1 - share) + math.log(high) * share)
    return low * (1 - share) + high * share


def _at(points: Points, x: float) -> float | None:
    """Return the height of a curve at x, None beyond its ends."""
    if not points[0][0] <= x <= points[-1][0]:
        return None
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 <= x <= x1:
            share = _scale(x, x0, x1, is_log=False) if x1 > x0 else 0.0
            return y0 * (1 - share) + y1 * share
    return points[-1][1]


def _label(value: float) -> str:
    return f"{value:.3g}"
