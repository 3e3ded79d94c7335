"""Textures: how two shades of a colour alternate on an object."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.shapes import Field

__all__ = ["TEXTURES", "patterns"]


def patterns(
    texture: NDArray[np.int64], x: Field, y: Field, pixels: NDArray[np.float32], rng: np.random.Generator
) -> Field:
    """Returns how much of the second shade shows.

    Args:
        texture: Index into `TEXTURES` of each of M objects, `(M,)`.
        x: Local coordinate to the right in units of the radius, `(M, S, S)`.
        y: Local coordinate upwards, `(M, S, S)`.
        pixels: Radii in pixels, `(M,)`.
        rng: Source of randomness for periods, offsets and grain.

    Returns:
        Mixtures in [0, 1], `(M, S, S)`.
    """
    mixture = np.zeros_like(x)
    period = np.maximum(rng.uniform(0.32, 0.5, len(x)).astype(np.float32) * pixels, np.float32(4.5))
    offset = rng.random((2, len(x), 1, 1), dtype=np.float32)
    for index, pattern in enumerate(_PATTERNS.values()):
        same = np.flatnonzero(texture == index)
        if len(same):
            step = period[same, None, None]
            u, v = (axis[same] * (pixels[same, None, None] / step) + offset[i, same] for i, axis in enumerate((x, y)))
            mixture[same] = pattern(_wave(u), _wave(v), step, rng)
    return mixture


def _wave(phase: Field) -> Field:
    """Returns a triangle wave of period 1 with values from -0.25 to 0.25."""
    wave: Field = np.abs(phase - np.floor(phase) - np.float32(0.5)) - np.float32(0.25)
    return wave


def _plain(u: Field, v: Field, step: Field, rng: np.random.Generator) -> Field:
    return np.zeros_like(u)


def _striped(u: Field, v: Field, step: Field, rng: np.random.Generator) -> Field:
    return _soft(u * step)


def _dotted(u: Field, v: Field, step: Field, rng: np.random.Generator) -> Field:
    quarter = np.float32(0.25)
    return _soft((np.float32(0.3) - np.sqrt(np.square(u + quarter) + np.square(v + quarter))) * step)


def _checked(u: Field, v: Field, step: Field, rng: np.random.Generator) -> Field:
    return _soft(u * v * step * 6)


def _speckled(u: Field, v: Field, step: Field, rng: np.random.Generator) -> Field:
    grain = rng.random((len(u), u.shape[1] // 2 + 1, u.shape[2] // 2 + 1), dtype=np.float32)
    coarse = _soft((grain - np.float32(0.6)) * 4)
    return coarse.repeat(2, axis=1).repeat(2, axis=2)[:, : u.shape[1], : u.shape[2]]


def _soft(edge: Field) -> Field:
    """Turns signed distances in pixels into opacities."""
    opacity: Field = np.clip(edge + np.float32(0.5), 0, 1)
    return opacity


_PATTERNS: dict[str, Callable[[Field, Field, Field, np.random.Generator], Field]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "speckled": _speckled,
}
TEXTURES = tuple(_PATTERNS)
