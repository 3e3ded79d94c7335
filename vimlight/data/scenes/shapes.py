"""Signed distance functions of the drawn shapes.

A function takes local coordinates `x` to the right and `y` upwards, float32 arrays of one shape, and returns the signed
distance to the outline, negative inside, in the same unit. Every shape fits in the unit circle, has its middle near
the origin and points upwards where it has a direction. Distances need only be exact near the outline, where they
decide the anti-aliasing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["HELD_OUT_SHAPES", "SHAPES", "TRAINING_SHAPES", "Field", "signed_distance"]

Field = NDArray[np.float32]


def signed_distance(shape: int, x: Field, y: Field) -> Field:
    """Returns the signed distance to the outline of one shape.

    Args:
        shape: Index into `SHAPES`.
        x: Local coordinate to the right, any array shape, float32.
        y: Local coordinate upwards, of the same array shape.
    """
    return _FUNCTIONS[SHAPES[shape]](x, y)


def _union(first: Field, second: Field) -> Field:
    union: Field = np.minimum(first, second)
    return union


def _overlap(first: Field, second: Field) -> Field:
    overlap: Field = np.maximum(first, second)
    return overlap


def _disc(x: Field, y: Field, radius: float, cx: float = 0.0, cy: float = 0.0) -> Field:
    distance: Field = np.sqrt(np.square(x - np.float32(cx)) + np.square(y - np.float32(cy))) - np.float32(radius)
    return distance


def _box(x: Field, y: Field, half_width: float, half_height: float, cy: float = 0.0) -> Field:
    return _overlap(np.abs(x) - np.float32(half_width), np.abs(y - np.float32(cy)) - np.float32(half_height))


def _convex(x: Field, y: Field, corners: Sequence[tuple[float, float]]) -> Field:
    """Returns the greatest distance to the edges of a convex polygon given anticlockwise."""
    distance = np.full_like(x, -np.inf)
    for (x0, y0), (x1, y1) in zip(corners, [*corners[1:], corners[0]], strict=True):
        length = np.hypot(x1 - x0, y1 - y0)
        nx, ny = np.float32((y1 - y0) / length), np.float32((x0 - x1) / length)
        np.maximum(distance, nx * x + ny * y - np.float32(nx * x0 + ny * y0), out=distance)
    return distance


def _circle(x: Field, y: Field) -> Field:
    return _disc(x, y, 0.88)


def _ellipse(x: Field, y: Field) -> Field:
    a, b = np.float32(0.98), np.float32(0.55)
    level = np.sqrt(np.square(x / a) + np.square(y / b))
    slope = np.sqrt(np.square(x / (a * a)) + np.square(y / (b * b))) + np.float32(1e-6)
    distance: Field = level * (level - 1) / slope
    return distance


def _square(x: Field, y: Field) -> Field:
    return _box(x, y, 0.7, 0.7)


def _rectangle(x: Field, y: Field) -> Field:
    return _box(x, y, 0.92, 0.36)


def _triangle(x: Field, y: Field) -> Field:
    return _convex(x, y, [(0.0, 0.98), (-0.72, -0.62), (0.72, -0.62)])


def _diamond(x: Field, y: Field) -> Field:
    return _convex(x, y, [(0.0, 0.98), (-0.6, 0.0), (0.0, -0.98), (0.6, 0.0)])


def _hexagon(x: Field, y: Field) -> Field:
    angles = np.arange(6) * np.pi / 3
    return _convex(x, y, [(0.95 * float(np.cos(a)), 0.95 * float(np.sin(a))) for a in angles])


def _star(x: Field, y: Field) -> Field:
    sector = np.float32(np.pi / 5)
    angle = np.abs(np.mod(np.arctan2(x, y) + sector, 2 * sector) - sector)
    radius = np.sqrt(x * x + y * y)
    along, across = radius * np.cos(angle), radius * np.sin(angle)
    tip, notch = 1.0, 0.45
    notch_along, notch_across = notch * np.cos(np.pi / 5), notch * np.sin(np.pi / 5)
    length = np.hypot(tip - notch_along, notch_across)
    nx, ny = np.float32(notch_across / length), np.float32((tip - notch_along) / length)
    distance: Field = (along - np.float32(tip)) * nx + across * ny
    return distance


def _cross(x: Field, y: Field) -> Field:
    return _union(_box(x, y, 0.92, 0.28), _box(x, y, 0.28, 0.92))


def _ring(x: Field, y: Field) -> Field:
    distance: Field = np.abs(_disc(x, y, 0.7)) - np.float32(0.23)
    return distance


def _heart(x: Field, y: Field) -> Field:
    # A square on its corner with a half disc on each of the two upper edges.
    side, low = 1.06, -0.92
    half = side / np.sqrt(2) / 2
    reach = np.abs(x) + np.abs(y - np.float32(low + 2 * half))
    square: Field = (reach - np.float32(2 * half)) * np.float32(np.sqrt(0.5))
    lobe = _disc(np.abs(x), y, side / 2, half, low + 3 * half)
    return _union(square, lobe)


def _semicircle(x: Field, y: Field) -> Field:
    return _overlap(_disc(x, y, 0.95, 0.0, -0.4), np.float32(-0.4) - y)


def _crescent(x: Field, y: Field) -> Field:
    return _overlap(_disc(x, y, 0.88, 0.32), -_disc(x, y, 0.72, 0.72))


def _arrow(x: Field, y: Field) -> Field:
    head = _convex(x, y, [(0.0, 0.98), (-0.68, 0.1), (0.68, 0.1)])
    return _union(head, _box(x, y, 0.25, 0.52, -0.4))


def _drop(x: Field, y: Field) -> Field:
    # A disc and the two tangents to it from the tip.
    radius, low, tip = 0.58, -0.38, 0.98
    sine = radius / (tip - low)
    edge_x, edge_y = radius * np.sqrt(1 - sine**2), low + radius * sine
    return _union(_disc(x, y, radius, 0.0, low), _convex(x, y, [(0.0, tip), (-edge_x, edge_y), (edge_x, edge_y)]))


def _gear(x: Field, y: Field) -> Field:
    teeth = np.tanh(np.float32(3) * np.cos(np.float32(8) * np.arctan2(x, y)))
    rim: Field = np.sqrt(x * x + y * y) - (np.float32(0.8) + np.float32(0.14) * teeth)
    return _overlap(rim, -_disc(x, y, 0.26))


_FUNCTIONS: dict[str, Callable[[Field, Field], Field]] = {
    "circle": _circle,
    "ellipse": _ellipse,
    "square": _square,
    "rectangle": _rectangle,
    "triangle": _triangle,
    "diamond": _diamond,
    "hexagon": _hexagon,
    "star": _star,
    "cross": _cross,
    "ring": _ring,
    "heart": _heart,
    "semicircle": _semicircle,
    "crescent": _crescent,
    "arrow": _arrow,
    "drop": _drop,
    "gear": _gear,
}
SHAPES = tuple(_FUNCTIONS)
TRAINING_SHAPES = SHAPES[:12]
HELD_OUT_SHAPES = SHAPES[12:]
