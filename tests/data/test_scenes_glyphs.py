"""Drawn characters."""

from __future__ import annotations

import string

import numpy as np
import pytest

from vimlight.data.scenes import FONTS, HELD_OUT_FONTS, TRAINING_FONTS, draw_glyphs
from vimlight.errors import ConfigError, UnknownNameError


def test_the_seed_decides_every_bit():
    first, again = (draw_glyphs(30, 3) for _ in range(2))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.glyph, again.glyph)


@pytest.mark.parametrize("font", FONTS)
def test_every_character_of_every_font_has_strokes_of_its_own(font):
    characters = string.ascii_letters + string.digits
    glyphs = draw_glyphs(400, 0, characters=characters, fonts=[font], difficulty=0.0, radius=(0.45, 0.45), size=32)
    assert glyphs.masks.reshape(400, -1).any(axis=1).all()
    assert set(glyphs.font) == {FONTS.index(font)}
    shapes = {chr(code): glyphs.masks[glyphs.glyph == code][0].sum() for code in np.unique(glyphs.glyph)}
    assert len(set(shapes.values())) > 20


def test_strokes_lie_where_the_label_says():
    glyphs = draw_glyphs(60, 1, characters="OXH", difficulty=0.0, radius=(0.2, 0.3))
    for mask, (x, y), radius in zip(glyphs.masks, glyphs.layout.centre[:, 0], glyphs.layout.radius[:, 0], strict=True):
        rows, columns = np.nonzero(mask)
        assert np.hypot((columns.mean() + 0.5) / 64 - x, (rows.mean() + 0.5) / 64 - y) < 0.25 * radius


def test_an_upright_letter_is_upright():
    glyph = draw_glyphs(1, 0, characters="L", fonts=["DejaVuSans"], rotation=0.0, radius=(0.5, 0.5))
    rows, columns = np.nonzero(glyph.masks[0])
    foot, head = columns[rows > rows.max() - 3], columns[rows < rows.min() + 3]
    assert foot.max() > head.max() + 5


def test_strokes_are_darker_than_the_ground_here_and_lighter_there():
    glyphs = draw_glyphs(200, 2)
    grey = glyphs.images.mean(axis=1)
    lighter = [
        image[mask == 1].mean() > image[mask == 0].mean() for image, mask in zip(grey, glyphs.masks, strict=True)
    ]
    assert 0.2 < np.mean(lighter) < 0.8


def test_held_out_fonts_are_held_out():
    assert not set(TRAINING_FONTS) & set(HELD_OUT_FONTS)
    assert not set(draw_glyphs(100, 0, size=16).font) & {FONTS.index(font) for font in HELD_OUT_FONTS}


def test_mistakes_are_named():
    with pytest.raises(UnknownNameError, match="DejaVuSans"):
        draw_glyphs(1, 0, fonts=["DejaVuSanz"])
    with pytest.raises(ConfigError, match="difficulty"):
        draw_glyphs(1, 0, difficulty=-1)
