"""Curves: values over steps, one line a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from vimlight.report.figures.canvas import Frame, Scale, axes, drawing, legend, number_text, series_class, shape
from vimlight.report.html import Markup

__all__ = ["lines"]

_WIDTH, _HEIGHT = 520.0, 250.0
# More points than these are lines alone; a screen has no more columns than those.
_MARKED, _COLUMNS = 40, 600


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, *, log: bool = False
) -> Markup:
    """Draws curves.

    Args:
        series: Points by the curve's name; those that are not finite are left out.
        x_label: What the level axis measures.
        y_label: What the upright axis measures.
        log: Whether equal steps of the upright axis are equal factors, where all values are greater than 0.
    """
    names = list(series) if len(series) > 1 else []
    key, room = legend(names, _WIDTH)
    frame = Frame(58, room + 26, _WIDTH - 12, room + _HEIGHT - 40)
    points = {name: [p for p in found if all(map(math.isfinite, p))] for name, found in series.items()}
    every = [point for found in points.values() for point in found]
    x = Scale.over([first for first, _ in every], frame.left, frame.right, pad=0.02)
    y = Scale.over([second for _, second in every], frame.bottom, frame.top, log=log)
    curves = [_curve(name, number, found, x, y) for number, (name, found) in enumerate(points.items())]
    label = f"{y_label} over {x_label}: {', '.join(series)}"
    return drawing(_WIDTH, room + _HEIGHT, label, key, axes(frame, x, y, x_label, y_label), curves)


def _curve(name: str, number: int, points: Sequence[tuple[float, float]], x: Scale, y: Scale) -> list[Markup]:
    kind = series_class(number)
    path = " ".join(f"{x(first):.1f},{y(second):.1f}" for first, second in _thinned(points))
    drawn = [shape("polyline", f"line {kind}", points=path)] if len(points) > 1 else []
    if len(points) <= _MARKED:
        drawn += [
            shape("circle", f"dot {kind}", f"{name}: {number_text(second)} at {number_text(first)}",
                  cx=x(first), cy=y(second), r=3.2)
            for first, second in points
        ]  # fmt: skip
    return drawn


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns no more points than can be told apart: of many in a column, the least and the greatest."""
    if len(points) <= 2 * _COLUMNS:
        return list(points)
    size = math.ceil(len(points) / _COLUMNS)
    kept: list[tuple[float, float]] = []
    for start in range(0, len(points), size):
        part = points[start : start + size]
        ends = {min(part, key=lambda point: point[1]), max(part, key=lambda point: point[1])}
        kept += sorted(ends)
    return kept
