"""Rasterises layouts: backgrounds, clutter, textured objects in depth order, noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.layout import COLOURS, Layout
from vimlight.data.scenes.shapes import Field, signed_distance
from vimlight.data.scenes.textures import patterns

__all__ = ["PALETTE", "Canvas", "background", "composite", "finish", "local_frame", "render"]

Canvas = NDArray[np.float32]
Colours = NDArray[np.float32]
PALETTE: NDArray[np.float32] = (np.array(list(COLOURS.values())) / 255).astype(np.float32)
_CHUNK = 16
_CANDIDATES = 8


def render(
    layout: Layout, rng: np.random.Generator, size: int, difficulty: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draws scenes.

    Args:
        layout: The objects of N scenes.
        rng: Source of randomness for backgrounds, shades and noise.
        size: Image side S in pixels.
        difficulty: In [0, 1]; sets contrast, clutter and noise.

    Returns:
        Images `(N, 3, S, S)` and instance masks `(N, S, S)`, both uint8; a mask holds 0 for the background and k + 1
        where the object of slot k is visible.
    """
    images = np.empty((len(layout), 3, size, size), dtype=np.uint8)
    masks = np.zeros((len(layout), size, size), dtype=np.uint8)
    # Small chunks keep the float planes in the cache.
    for start in range(0, len(layout), _CHUNK):
        part = slice(start, min(start + _CHUNK, len(layout)))
        paint = np.where(layout.present[part, :, None], PALETTE[layout.colour[part]], np.float32(np.nan))
        canvas = background(paint, rng, size, difficulty)
        for slot in range(layout.shape.shape[1]):
            _draw_slot(canvas, masks[part], layout, part, slot, rng)
        images[part] = finish(canvas, rng, difficulty)
    return images, masks


def local_frame(
    centre: NDArray[np.float32], radius: NDArray[np.float32], angle: NDArray[np.float32], size: int
) -> tuple[Field, Field]:
    """Returns local coordinates of all pixels, x to the right and y upwards in units of the radius, each `(M, S, S)`.

    Args:
        centre: `(M, 2)`, fractions of the image side.
        radius: `(M,)`, fractions of the image side.
        angle: `(M,)`, degrees anticlockwise.
        size: Image side S in pixels.
    """
    grid = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)
    turn = np.deg2rad(angle)
    cosine, sine = np.cos(turn) / radius, np.sin(turn) / radius
    right = (grid - centre[:, :1])[:, None, :]
    up = (centre[:, 1:] - grid)[:, :, None]
    x = cosine[:, None, None] * right + sine[:, None, None] * up
    y = cosine[:, None, None] * up - sine[:, None, None] * right
    return x, y


def background(paint: Colours, rng: np.random.Generator, size: int, difficulty: float) -> Canvas:
    """Draws gradients and clutter in a colour that stands off from the objects' colours.

    Args:
        paint: Colours of the objects in [0, 1], `(N, K, 3)`, NaN where there is none.
        rng: Source of randomness.
        size: Image side S in pixels.
        difficulty: In [0, 1]; sets the least contrast and the strength of the clutter.

    Returns:
        A canvas `(N, 3, S, S)`, float32 in about [0, 1].
    """
    count = len(paint)
    grey = rng.random((count, _CANDIDATES, 1))
    tint = rng.normal(0, 0.05 + 0.07 * difficulty, (count, _CANDIDATES, 3))
    colours = np.clip(grey + tint, 0, 1)
    distance = np.linalg.norm(colours[:, :, None] - paint[:, None], axis=-1)
    contrast = np.fmin.reduce(distance, axis=2)
    best = np.minimum(contrast, 0.75 - 0.3 * difficulty).argmax(axis=1)
    base = colours[np.arange(count), best].astype(np.float32)
    slope = rng.normal(0, 0.12 * difficulty, (2, count, 1, 1)).astype(np.float32)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    shade = slope[0] * ramp[None, :, None] + slope[1] * ramp[None, None, :]
    canvas: Canvas = base[:, :, None, None] + shade[:, None]
    if difficulty > 0:
        _add_clutter(canvas, rng, difficulty)
    return canvas


def _add_clutter(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> None:
    """Crosses the canvas with faint soft bands, two an image."""
    count, size = len(canvas), canvas.shape[-1]
    for _ in range(2):
        middle = rng.random((count, 2)).astype(np.float32)
        width = rng.uniform(0.02, 0.12, count).astype(np.float32)
        _, across = local_frame(middle, width, rng.uniform(-90, 90, count).astype(np.float32), size)
        strength = rng.normal(0, 0.12 * difficulty, (count, 1, 1)).astype(np.float32)
        canvas += (strength * np.clip(np.float32(1.5) - np.abs(across), 0, 1))[:, None]


def _draw_slot(
    canvas: Canvas, masks: NDArray[np.uint8], layout: Layout, part: slice, slot: int, rng: np.random.Generator
) -> None:
    """Paints the object of one slot into each image that has one."""
    rows = np.flatnonzero(layout.present[part, slot])
    shape, texture = layout.shape[part, slot][rows], layout.texture[part, slot][rows]
    radius, size = layout.radius[part, slot][rows], canvas.shape[-1]
    x, y = local_frame(layout.centre[part, slot][rows], radius, layout.angle[part, slot][rows], size)
    distance = np.empty_like(x)
    for kind in np.unique(shape):
        same = shape == kind
        distance[same] = signed_distance(int(kind), x[same], y[same])
    cover = np.clip(np.float32(0.5) - distance * (radius * size)[:, None, None], 0, 1)
    pattern = patterns(texture, x, y, radius * size, rng)
    first, second = _shades(PALETTE[layout.colour[part, slot][rows]], rng)
    canvas[rows] = composite(canvas[rows], cover, first, second, pattern)
    for row, visible in zip(rows, cover > 0.5, strict=True):
        masks[row][visible] = slot + 1


def composite(
    below: Canvas, cover: Field, first: Colours, second: Colours | None = None, pattern: Field | None = None
) -> Canvas:
    """Lays colours over images.

    Args:
        below: The images `(M, 3, S, S)`, changed in place.
        cover: Opacity in [0, 1], `(M, S, S)`.
        first: Colours `(M, 3)`.
        second: Colours `(M, 3)` that show where the pattern is 1.
        pattern: Mixture in [0, 1], `(M, S, S)`.

    Returns:
        The images.
    """
    paint = first[:, :, None, None] - below
    if second is not None and pattern is not None:
        paint += (second - first)[:, :, None, None] * pattern[:, None]
    paint *= cover[:, None]
    below += paint
    return below


def _shades(colour: Colours, rng: np.random.Generator) -> tuple[Colours, Colours]:
    """Returns slightly varied colours and, for their textures, much darker ones."""
    varied = np.clip(colour * rng.uniform(0.9, 1.05, (len(colour), 1)) + rng.normal(0, 0.02, colour.shape), 0, 1)
    return varied.astype(np.float32), (varied * rng.uniform(0.2, 0.45, (len(colour), 1))).astype(np.float32)


def finish(canvas: Canvas, rng: np.random.Generator, difficulty: float) -> NDArray[np.uint8]:
    """Adds noise to a canvas, which is used up, and rounds it to uint8, `(N, 3, S, S)`."""
    count, _, height, width = canvas.shape
    noise = rng.standard_normal((count, 1, height, width), dtype=np.float32)
    strength = (rng.random((count, 1, 1, 1), dtype=np.float32) * np.float32(25 * difficulty)).astype(np.float32)
    noise *= strength
    noise += np.float32(0.5)
    canvas *= np.float32(255)
    canvas += noise
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
