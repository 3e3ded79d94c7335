"""Pictures put together from others: how many, where, which way up, which pixels; and letters of many fonts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from random import Random

from PIL import Image, ImageDraw, ImageFont

from benchmarks.real.pictures import SIDE, fitted

__all__ = ["counted", "fonts_with", "letter", "masked", "placed", "turned"]

_CELLS = 3


def counted(files: Sequence[Path], count: int, random: Random) -> Image.Image:
    """Draws a number of things of random sizes that do not touch, on a plain or shaded ground.

    Args:
        files: Transparent pictures to choose from; half of the images show one thing alone, several times.
        count: How many.
        random: Decides the rest.
    """
    canvas = _ground(random)
    chosen = [random.choice(files)] * count if random.random() < 0.5 else [random.choice(files) for _ in range(count)]
    taken: list[tuple[int, int, int]] = []
    for file in chosen:
        side = random.randint(22, 40)
        for attempt in range(400):
            # A crowded image gets smaller things rather than overlapping ones.
            side = max(14, side - attempt // 40)
            spot = (random.randint(0, SIDE - side), random.randint(0, SIDE - side), side)
            if all(_apart(spot, other) for other in taken):
                break
        taken.append(spot)
        _paste(canvas, file, spot)
    return canvas


def _apart(one: tuple[int, int, int], other: tuple[int, int, int]) -> bool:
    gap_x = max(one[0], other[0]) - min(one[0] + one[2], other[0] + other[2])
    gap_y = max(one[1], other[1]) - min(one[1] + one[2], other[1] + other[2])
    return max(gap_x, gap_y) >= 1


def placed(file: Path, cell: int, random: Random) -> Image.Image:
    """Draws a thing whose middle lies in one of nine cells.

    Args:
        file: Its transparent picture.
        cell: The cell, row by row from the upper left one.
        random: Decides the rest.
    """
    canvas, side = _ground(random), random.randint(26, 64)
    width = SIDE / _CELLS
    middle = [round((place + random.uniform(0.1, 0.9)) * width) for place in (cell % _CELLS, cell // _CELLS)]
    _paste(canvas, file, (middle[0] - side // 2, middle[1] - side // 2, side))
    return canvas


def turned(file: Path, degrees: int, random: Random) -> Image.Image:
    """Draws a thing that is turned counterclockwise.

    Args:
        file: Its transparent picture.
        degrees: The angle.
        random: Decides the ground.
    """
    canvas = _ground(random)
    # A circle around the thing keeps its corners from telling the angle.
    picture = _open(file, round(SIDE / math.sqrt(2)))
    spun = picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True)
    canvas.paste(spun, ((SIDE - spun.width) // 2, (SIDE - spun.height) // 2), spun)
    return canvas


def masked(file: Path, grounds: Sequence[Path], random: Random) -> tuple[Image.Image, Image.Image]:
    """Draws a thing on a patterned ground.

    Args:
        file: Its transparent picture.
        grounds: Transparent pictures that serve as ground in two of three images.
        random: Decides the rest.

    Returns:
        The image, and its mask: 1 where the thing is, 0 elsewhere.
    """
    canvas = _ground(random)
    if random.random() < 2 / 3:
        pattern = _open(random.choice(grounds), 2 * SIDE)
        corner = (random.randint(0, SIDE), random.randint(0, SIDE))
        part = pattern.crop((*corner, corner[0] + SIDE, corner[1] + SIDE))
        canvas.paste(part, (0, 0), part)
    side = random.randint(44, 104)
    spot = (random.randint(0, SIDE - side), random.randint(0, SIDE - side))
    thing = _open(file, side)
    canvas.paste(thing, spot, thing)
    mask = Image.new("L", canvas.size, 0)
    mask.paste(thing.getchannel("A").point(lambda alpha: int(alpha > 127)), spot)
    return canvas, mask


def letter(character: str, font: Path, random: Random) -> Image.Image:
    """Draws a letter in random size, tilt and colours; light on dark in one image of four.

    Args:
        character: The letter.
        font: Font file.
        random: Decides the rest.
    """
    ink, paper = random.randint(0, 110), random.randint(175, 255)
    colours = [tuple(min(255, max(0, value + random.randint(-25, 25))) for _ in range(3)) for value in (ink, paper)]
    if random.random() < 0.25:
        colours.reverse()
    glyph = Image.new("RGBA", (2 * SIDE, 2 * SIDE), (*colours[0], 0))
    face = _font(font)
    ImageDraw.Draw(glyph).text((SIDE, SIDE), character, font=face, fill=(*colours[0], 255), anchor="mm")
    shape = fitted(glyph.rotate(random.uniform(-20, 20), Image.Resampling.BICUBIC), random.randint(56, 112))
    canvas = Image.new("RGB", (SIDE, SIDE), colours[1])
    if shape is not None:
        free = SIDE - shape.width
        canvas.paste(shape, (random.randint(0, free), random.randint(0, free)), shape)
    return canvas


def fonts_with(characters: str, fonts: Sequence[Path]) -> list[Path]:
    """Returns the fonts that have all the letters, each with a shape of its own.

    Args:
        characters: The letters.
        fonts: Font files.
    """
    return [font for font in fonts if len(_shapes(characters, font)) == len(characters)]


def _shapes(characters: str, font: Path) -> set[bytes]:
    try:
        face = ImageFont.truetype(str(font), 24)
        missing = bytes(face.getmask("\U0010fffd"))
        return {bytes(face.getmask(character)) for character in characters} - {missing, b""}
    except OSError:
        return set()


@lru_cache(maxsize=64)
def _font(file: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(file), SIDE)


@lru_cache(maxsize=512)
def _decoded(file: Path) -> Image.Image:
    with Image.open(file) as picture:
        return picture.convert("RGBA")


def _open(file: Path, side: int) -> Image.Image:
    return _decoded(file).convert("RGBa").resize((side, side), Image.Resampling.BILINEAR).convert("RGBA")


def _ground(random: Random) -> Image.Image:
    first, second = ([random.randint(90, 255) for _ in range(3)] for _ in range(2))
    if random.random() < 0.5:
        return Image.new("RGB", (SIDE, SIDE), tuple(first))
    shade = Image.linear_gradient("L").resize((SIDE, SIDE)).rotate(90 * random.randint(0, 3))
    grounds = [Image.new("RGB", (SIDE, SIDE), tuple(colour)) for colour in (first, second)]
    return Image.composite(*grounds, shade)


def _paste(canvas: Image.Image, file: Path, spot: tuple[int, int, int]) -> None:
    thing = _open(file, spot[2])
    canvas.paste(thing, spot[:2], thing)
