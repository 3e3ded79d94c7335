"""Reliability: how often what is said with some confidence is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vimlight.report.figures.canvas import Frame, Scale, axes, drawing, legend, series_class, shape
from vimlight.report.html import Markup

__all__ = ["Bin", "reliability"]

_SIZE = 300.0


class Bin(NamedTuple):
    """The predictions of about one confidence.

    Attributes:
        images: How many there are.
        confidence: How probable they are said to be, on average.
        accuracy: Which share of them is right.
    """

    images: int
    confidence: float
    accuracy: float


def reliability(series: Mapping[str, Sequence[Bin]], label: str) -> Markup:
    """Draws accuracy over confidence; on the dashed line both are one, and larger dots stand for more predictions.

    Args:
        series: Bins by the name of what predicts.
        label: What it shows.
    """
    key, room = legend(list(series) if len(series) > 1 else [], _SIZE + 70)
    frame = Frame(52, room + 26, 52 + _SIZE, room + 26 + _SIZE)
    x, y = Scale(0, 1, frame.left, frame.right), Scale(0, 1, frame.bottom, frame.top)
    even = shape("line", "even", x1=x(0), y1=y(0), x2=x(1), y2=y(1))
    curves = [_curve(name, number, bins, x, y) for number, (name, bins) in enumerate(series.items())]
    shown = axes(frame, x, y, "confidence", "accuracy")
    return drawing(frame.right + 24, frame.bottom + 42, label, key, shown, even, curves)


def _curve(name: str, number: int, bins: Sequence[Bin], x: Scale, y: Scale) -> list[Markup]:
    kind, found = series_class(number), [each for each in bins if each.images]
    most = max((each.images for each in found), default=1)
    path = " ".join(f"{x(each.confidence):.1f},{y(each.accuracy):.1f}" for each in found)
    dots = [
        shape("circle", f"dot {kind}", f"{name}: {each.accuracy:.0%} of {each.images} right at {each.confidence:.0%}",
              cx=x(each.confidence), cy=y(each.accuracy), r=2 + 4 * (each.images / most) ** 0.5)
        for each in found
    ]  # fmt: skip
    return [shape("polyline", f"line {kind}", points=path), *dots]
