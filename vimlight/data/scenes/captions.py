"""Captions of drawn images, and what each caption says.

The *facts* of an image are one row of integers; a caption *mentions* some of them and leaves the others out. A caption
is true of every image whose facts agree with what it mentions, so that a batch of images and captions can be matched
exactly, and not only along the diagonal.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.layout import COLOURS, POSITIONS, SIZES, Layout
from vimlight.data.scenes.shapes import SHAPES
from vimlight.data.scenes.textures import TEXTURES

__all__ = ["FACTS", "Facts", "caption", "captions", "facts_of_glyphs", "facts_of_scenes", "is_true", "mention"]

Facts = NDArray[np.int64]
FACTS = ("kind", "count", "shape", "colour", "texture", "size", "cell", "other_shape", "other_colour", "glyph")
_KIND, _COUNT, _SHAPE, _COLOUR, _TEXTURE, _SIZE, _CELL, _OTHER_SHAPE, _OTHER_COLOUR, _GLYPH = range(len(FACTS))
_SINGLE, _GROUP, _PAIR, _CROWD, _CHARACTER = range(5)
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_COLOUR_NAMES = tuple(COLOURS)
_CELLS = tuple(name for row in POSITIONS for name in row)
_OPENINGS = ("{}", "{}", "a picture of {}", "a drawing of {}", "an image of {}", "there is {}", "{} on a background")
_PLURALS = {"cross": "crosses"}


def facts_of_scenes(layout: Layout) -> Facts:
    """Returns the facts of drawn scenes, `(N, len(FACTS))` int64, -1 where one does not apply."""
    facts = np.full((len(layout), len(FACTS)), -1, dtype=np.int64)
    facts[:, _COUNT] = layout.count
    first = (layout.shape, layout.colour, layout.texture, layout.size)
    alike = np.ones(len(layout), dtype=bool)
    for values in first:
        alike &= ((values == values[:, :1]) | ~layout.present).all(axis=1)
    facts[:, _KIND] = np.select([layout.count == 1, alike, layout.count == 2], [_SINGLE, _GROUP, _PAIR], _CROWD)
    described = facts[:, _KIND] != _CROWD
    for column, values in zip((_SHAPE, _COLOUR, _TEXTURE, _SIZE), first, strict=True):
        facts[described, column] = values[described, 0]
    single, pair = facts[:, _KIND] == _SINGLE, facts[:, _KIND] == _PAIR
    facts[single, _CELL] = layout.cell[single, 0]
    if layout.shape.shape[1] > 1:
        facts[pair, _OTHER_SHAPE], facts[pair, _OTHER_COLOUR] = layout.shape[pair, 1], layout.colour[pair, 1]
    return facts


def facts_of_glyphs(glyph: NDArray[np.int64], layout: Layout) -> Facts:
    """Returns the facts of drawn characters, `(N, len(FACTS))` int64; `glyph` holds code points `(N,)`."""
    facts = np.full((len(layout), len(FACTS)), -1, dtype=np.int64)
    facts[:, _KIND], facts[:, _GLYPH] = _CHARACTER, glyph
    for column, values in zip((_COLOUR, _SIZE, _CELL), (layout.colour, layout.size, layout.cell), strict=True):
        facts[:, column] = values[:, 0]
    return facts


def mention(facts: Facts, rng: np.random.Generator, detail: float = 0.7) -> Facts:
    """Chooses what captions say.

    Args:
        facts: Facts of N images.
        rng: Source of randomness.
        detail: Probability that a caption is of the fuller kind, which names shape, colour and texture.

    Returns:
        The mentioned facts, `(N, len(FACTS))`, -1 where a caption is silent.
    """
    chances = np.full((len(facts), len(FACTS)), 1.0)
    full = (rng.random(len(facts)) < detail)[:, None]
    chances[:, [_COLOUR, _TEXTURE]] = np.where(full, 0.95, 0.4)
    chances[:, [_SIZE, _CELL]] = np.where(full, 0.25, 0.15)
    chances[:, [_SHAPE]] = np.where(full, 1.0, 0.8)
    # A sentence about two objects names both, colours included.
    pair = facts[:, _KIND] == _PAIR
    chances[pair] = 1.0
    chances[np.ix_(pair, [_TEXTURE, _SIZE, _CELL])] = 0.0
    return np.where(rng.random(facts.shape) < chances, facts, -1)


def is_true(mentions: Facts, facts: Facts) -> NDArray[np.bool_]:
    """Tells which captions are true of which images.

    Args:
        mentions: What M captions say, `(M, len(FACTS))`.
        facts: Facts of N images, `(N, len(FACTS))`.

    Returns:
        `(N, M)`, true where image n agrees with everything that caption m mentions.
    """
    agree: NDArray[np.bool_] = ((mentions[None] == facts[:, None]) | (mentions[None] < 0)).all(axis=-1)
    return agree


def captions(mentions: Facts, rng: np.random.Generator) -> list[str]:
    """Puts what is mentioned into words, with a varying opening; N rows give N sentences."""
    openings = rng.integers(0, len(_OPENINGS), len(mentions))
    return [_OPENINGS[opening].format(caption(row)) for opening, row in zip(openings, mentions, strict=True)]


def caption(mentions: Facts) -> str:
    """Puts one row of mentioned facts `(len(FACTS),)` into words, such as `"a large red striped star at the top"`."""
    row = mentions.tolist()
    if row[_KIND] == _CROWD:
        return f"{_NUMBERS[row[_COUNT]]} objects"
    adjectives = [
        names[row[column]]
        for column, names in ((_SIZE, SIZES), (_COLOUR, _COLOUR_NAMES), (_TEXTURE, TEXTURES))
        if row[column] >= 0
    ]
    if row[_KIND] == _PAIR:
        first = _with_article([*adjectives, SHAPES[row[_SHAPE]]])
        return f"{first} and {_with_article([_COLOUR_NAMES[row[_OTHER_COLOUR]], SHAPES[row[_OTHER_SHAPE]]])}"
    if row[_KIND] == _GROUP:
        noun = _plural(SHAPES[row[_SHAPE]] if row[_SHAPE] >= 0 else "object")
        return " ".join([_NUMBERS[row[_COUNT]], *adjectives, noun])
    phrase = _with_article([*adjectives, _noun(row)])
    return phrase if row[_CELL] < 0 else f"{phrase} at the {_CELLS[row[_CELL]]}"


def _noun(row: list[int]) -> str:
    if row[_KIND] != _CHARACTER:
        return SHAPES[row[_SHAPE]] if row[_SHAPE] >= 0 else "object"
    if row[_GLYPH] < 0:
        return "character"
    character = chr(row[_GLYPH])
    if character.isdigit():
        return f"digit {_NUMBERS[int(character)]}"
    return f"capital letter {character}" if character.isupper() else f"small letter {character}"


def _with_article(words: list[str]) -> str:
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _plural(noun: str) -> str:
    return _PLURALS.get(noun, f"{noun}s")
