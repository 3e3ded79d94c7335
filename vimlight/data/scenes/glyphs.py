"""Drawn characters: letters and digits in many fonts, sizes, places, turns and colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.captions import Facts, captions, facts_of_glyphs, mention
from vimlight.data.scenes.layout import Layout, indices_of, sample_layout
from vimlight.data.scenes.render import PALETTE, background, composite, finish, local_frame
from vimlight.data.scenes.shapes import Field

__all__ = ["FONTS", "HELD_OUT_FONTS", "TRAINING_FONTS", "GlyphBatch", "draw_glyphs"]

TRAINING_FONTS = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSansMono",
    "DejaVuSansMono-Bold",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "STIXGeneral",
    "STIXGeneralBol",
    "cmr10",
    "cmb10",
)
HELD_OUT_FONTS = ("DejaVuSerif-Italic", "DejaVuSans-BoldOblique", "STIXGeneralItalic", "cmss10", "cmtt10")
FONTS = TRAINING_FONTS + HELD_OUT_FONTS
_CELL = 64
_CHUNK = 16


@dataclass(frozen=True)
class GlyphBatch:
    """Drawn characters and everything that is known of them.

    Attributes:
        images: `(N, 3, S, S)` uint8.
        masks: `(N, S, S)` uint8, 1 on the strokes.
        glyph: Code points `(N,)`.
        font: Index into `FONTS`, `(N,)`.
        layout: Colour, radius, centre and angle, one slot an image; the shape is -1.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    glyph: NDArray[np.int64]
    font: NDArray[np.int64]
    layout: Layout

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    @property
    def facts(self) -> Facts:
        """What captions can say of the images, `(N, len(FACTS))`."""
        return facts_of_glyphs(self.glyph, self.layout)

    def captions(self, seed: int = 0, detail: float = 0.7) -> list[str]:
        """Returns a true sentence for each image; the seed chooses what is said and how."""
        rng = np.random.default_rng(seed)
        return captions(mention(self.facts, rng, detail), rng)


def draw_glyphs(
    count: int,
    seed: int,
    *,
    characters: str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    fonts: Sequence[str] = TRAINING_FONTS,
    size: int = 64,
    difficulty: float = 0.5,
    rotation: float | None = None,
    radius: tuple[float, float] | None = None,
) -> GlyphBatch:
    """Draws one character an image, in a colour or in grey, dark on light or light on dark.

    Args:
        count: Number of images N.
        seed: The same seed and arguments give the same images bit for bit.
        characters: What to draw from, uniformly.
        fonts: Names of fonts to draw from, uniformly.
        size: Image side S in pixels.
        difficulty: From 0 (large, upright, plain background) to 1 (any size, tilted, clutter, noise).
        rotation: Largest turn to either side in degrees; by default `30 * difficulty`.
        radius: Smallest and largest radius as fractions of the image side; by default set by the difficulty.

    Raises:
        ConfigError: If the difficulty is out of range.
        UnknownNameError: If a font does not exist.
    """
    rng = np.random.default_rng(seed)
    turn = 30 * difficulty if rotation is None else rotation
    bounds = radius or (0.38 - 0.16 * difficulty, 0.52)
    layout = sample_layout(count, rng, difficulty=difficulty, textures=["plain"], rotation=turn, radius=bounds)
    layout.shape[:] = -1
    which = rng.integers(0, len(characters), count)
    font = rng.choice(indices_of("font", fonts, FONTS), count)
    atlas = np.stack([_atlas(name, characters) for name in fonts])
    face = np.array([list(fonts).index(FONTS[index]) for index in font], dtype=np.int64)
    images = np.empty((count, 3, size, size), dtype=np.uint8)
    masks = np.empty((count, size, size), dtype=np.uint8)
    for start in range(0, count, _CHUNK):
        part = slice(start, min(start + _CHUNK, count))
        frame = (layout.centre[part, 0], layout.radius[part, 0], layout.angle[part, 0])
        cover = _sample(atlas[face[part], which[part]], *local_frame(*frame, size))
        images[part], masks[part] = _paint(cover, layout.colour[part, 0], rng, difficulty), cover > 0.5
    return GlyphBatch(images, masks, np.array([ord(c) for c in characters], dtype=np.int64)[which], font, layout)


def _paint(cover: Field, colour: NDArray[np.int64], rng: np.random.Generator, difficulty: float) -> NDArray[np.uint8]:
    """Paints strokes of the given opacity `(M, S, S)` and returns images `(M, 3, S, S)`."""
    ink = PALETTE[colour]
    canvas = background(ink[:, None], rng, cover.shape[-1], difficulty)
    return finish(composite(canvas, cover, ink), rng, difficulty)


def _sample(cells: NDArray[np.float32], x: Field, y: Field) -> Field:
    """Reads glyph cells `(M, C, C)` at local coordinates `(M, S, S)` in [-1, 1], bilinearly, 0 outside."""
    side = cells.shape[-1]
    column = np.clip((x + 1) * np.float32(side / 2) - np.float32(0.5), 0, side - 1.001).astype(np.float32)
    row = np.clip((1 - y) * np.float32(side / 2) - np.float32(0.5), 0, side - 1.001).astype(np.float32)
    left, top = column.astype(np.int32), row.astype(np.int32)
    right_part, low_part = column - left.astype(np.float32), row - top.astype(np.float32)
    corner = (np.arange(len(cells), dtype=np.int32) * (side * side))[:, None, None] + top * side + left
    flat = cells.reshape(-1)
    upper = flat[corner] * (1 - right_part) + flat[corner + 1] * right_part
    lower = flat[corner + side] * (1 - right_part) + flat[corner + side + 1] * right_part
    return np.asarray(upper * (1 - low_part) + lower * low_part, dtype=np.float32)


@lru_cache(maxsize=64)
def _atlas(font: str, characters: str) -> NDArray[np.float32]:
    """Renders characters with the fonts that matplotlib ships; `(len(characters), C, C)` opacities in [0, 1]."""
    import matplotlib
    from PIL import Image, ImageDraw, ImageFont

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{font}.ttf"
    face = ImageFont.truetype(str(path), int(_CELL * 0.95))
    cells = []
    for character in characters:
        cell = Image.new("L", (_CELL, _CELL))
        left, top, right, bottom = face.getbbox(character)
        place = ((_CELL - left - right) / 2, (_CELL - top - bottom) / 2)
        ImageDraw.Draw(cell).text(place, character, fill=255, font=face)
        cells.append(np.asarray(cell))
    atlas = (np.stack(cells) / 255).astype(np.float32)
    # An empty rim makes everything outside the cell transparent.
    atlas[:, [0, -1]] = 0
    atlas[:, :, [0, -1]] = 0
    return atlas
