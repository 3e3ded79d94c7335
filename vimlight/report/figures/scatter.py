"""What is gained against what it costs, and the line of those that nothing beats in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vimlight.report.figures.canvas import Frame, Scale, axes, drawing, number_text, shape, width_of, words
from vimlight.report.html import Markup

__all__ = ["Spot", "scatter"]

_WIDTH, _HEIGHT, _LONGEST, _LINE = 660.0, 360.0, 30, 14.0


class Spot(NamedTuple):
    """A method.

    Attributes:
        name: Its name.
        cost: What it costs.
        value: What it reaches; more is better.
        marked: Whether it stands out.
    """

    name: str
    cost: float
    value: float
    marked: bool = False


def scatter(spots: Sequence[Spot], x_label: str, y_label: str, *, log: bool = True) -> Markup:
    """Draws methods by cost and value.

    Args:
        spots: The methods.
        x_label: What the cost is.
        y_label: What the value is.
        log: Whether equal steps of cost are equal factors, where all costs are greater than 0.
    """
    frame = Frame(52, 26, _WIDTH - width_of([spot.name for spot in spots], _LONGEST) - 14, _HEIGHT - 40)
    x = Scale.over([spot.cost for spot in spots], frame.left, frame.right, log=log, pad=0.06)
    y = Scale.over([spot.value for spot in spots], frame.bottom, frame.top, pad=0.1)
    best = front(spots)
    corners = [f"{x(spot.cost):.1f},{y(spot.value):.1f}" for spot in best]
    drawn = [shape("polyline", "front", points=" ".join(corners))] if len(best) > 1 else []
    # No name stands on a dot.
    taken = [(x(spot.cost) - 6, x(spot.cost) + 6, y(spot.value) + 4) for spot in spots]
    for spot in sorted(spots, key=lambda spot: -spot.value):
        kind = "s0" if spot.marked else "s1" if spot in best else "plain"
        at, height = x(spot.cost), _free(x(spot.cost) + 9, y(spot.value) + 4, spot.name, taken)
        hint = f"{spot.name}: {number_text(spot.value)} at {number_text(spot.cost)}"
        if abs(height - y(spot.value) - 4) > 6:
            drawn.append(shape("line", "lead", x1=at, y1=y(spot.value), x2=at + 8, y2=height - 4))
        drawn += [
            shape("circle", f"dot {kind}", hint, cx=at, cy=y(spot.value), r=5),
            words(at + 9, height, spot.name, "strong" if spot.marked else "", longest=_LONGEST),
        ]
    return drawing(_WIDTH, _HEIGHT, f"{y_label} against {x_label}", axes(frame, x, y, x_label, y_label), drawn)


def front(spots: Sequence[Spot]) -> list[Spot]:
    """Returns the methods that no other one beats in value without costing more, the cheapest first."""
    best: list[Spot] = []
    for spot in sorted(spots, key=lambda spot: (spot.cost, -spot.value)):
        if not best or spot.value > best[-1].value:
            best.append(spot)
    return best


def _free(x: float, y: float, name: str, taken: list[tuple[float, float, float]]) -> float:
    """Returns a line near `y` on which no name stands yet, and takes it."""
    end = x + width_of([name], _LONGEST)
    while any(abs(line - y) < _LINE and start < end and x < stop for start, stop, line in taken):
        y += 2
    taken.append((x, end, y))
    return y
