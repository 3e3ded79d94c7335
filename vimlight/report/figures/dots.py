"""Means with their spread: one row a method, a dot for the mean, a bar for the spread, a mark for each seed."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from vimlight.report.figures.canvas import Scale, drawing, rules, shape, ticks, width_of, words
from vimlight.report.html import Markup

__all__ = ["Interval", "intervals"]

_ROW, _PLOT, _LONGEST = 24.0, 250.0, 30


class Interval(NamedTuple):
    """One row.

    Attributes:
        name: What it is of.
        values: A value for each seed; none where there is no result.
        marked: Whether it stands out.
    """

    name: str
    values: Sequence[float]
    marked: bool = False


def intervals(rows: Sequence[Interval], label: str, unit: str) -> Markup:
    """Draws means with one standard deviation to both sides.

    Args:
        rows: The rows, from the top.
        label: What it shows.
        unit: What is measured.
    """
    left = width_of([row.name for row in rows], _LONGEST) + 14
    bottom = 26 + _ROW * len(rows)
    ends = [value + sign * _spread(row.values) for row in rows for value in _means(row) for sign in (-1, 1)]
    x = Scale.over([*ends, *(value for row in rows for value in row.values)], left, left + _PLOT, pad=0.04)
    drawn = [words(0, 12, label, "label", longest=int((left + _PLOT) / 7)), *rules(x, ticks(x, 4), 24, bottom)]
    for number, row in enumerate(rows):
        drawn += _row(row, left, 26 + _ROW * (number + 0.5), x)
    drawn.append(words(left + _PLOT, bottom + 32, unit, "label", "end"))
    return drawing(left + _PLOT + 76, bottom + 38, label, drawn)


def _row(row: Interval, left: float, y: float, x: Scale) -> list[Markup]:
    kind = "s0" if row.marked else "plain"
    name = words(left - 10, y + 4, row.name, "strong" if row.marked else "", "end", _LONGEST)
    if not row.values:
        return [name, words(left + 4, y + 4, "—")]
    (mean,), spread = _means(row), _spread(row.values)
    several = len(row.values) > 1
    text = f"{mean:.1f}" + (f" ± {spread:.1f}" if several else "")
    drawn = [name]
    if several:
        drawn.append(shape("line", f"spread {kind}", x1=x(mean - spread), x2=x(mean + spread), y1=y, y2=y))
        drawn += [shape("line", f"seed {kind}", x1=x(v), x2=x(v), y1=y - 5, y2=y + 5) for v in row.values]
    end = max([mean + spread, *row.values]) if several else mean
    return [
        *drawn,
        shape("circle", f"dot {kind}", f"{row.name}: {text}", cx=x(mean), cy=y, r=4.5),
        words(x(end) + 10, y + 4, text, "strong" if row.marked else "faint"),
    ]


def _means(row: Interval) -> list[float]:
    return [statistics.fmean(row.values)] if row.values else []


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0
