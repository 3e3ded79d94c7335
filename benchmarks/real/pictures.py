"""Drawings and photographs as small squares: decoded once, within bounded memory, their transparency kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image

__all__ = ["LARGEST", "SIDE", "fitted", "save", "shrink", "shrink_all"]

SIDE = 128
_MARGIN = 4
# Pixels; decoded they take four bytes each. A few drawings of openclipart-png have 160 to 620 million.
LARGEST = 40_000_000


def shrink_all(jobs: Iterable[tuple[Path, Path]], workers: int = 2) -> list[Path]:
    """Shrinks image files; those that are there already are left as they are.

    Args:
        jobs: Pairs of an image file and the PNG to write.
        workers: Threads; Pillow decodes and resizes side by side.

    Returns:
        The files that were refused.
    """
    waiting = [job for job in jobs if not job[1].exists()]
    # Pillow warns of large images; these are measured before they are decoded.
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)
    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(shrink, *zip(*waiting, strict=True)))
    return [source for (source, _), kept in zip(waiting, done, strict=True) if not kept]


def shrink(source: Path, target: Path) -> bool:
    """Writes an image as a transparent square of `SIDE` pixels that its visible part fills.

    Args:
        source: The image file.
        target: The PNG to write.

    Returns:
        Whether it was written: not if the image has more than `LARGEST` pixels, cannot be read, or shows nothing.
    """
    try:
        with Image.open(source) as image:
            if image.width * image.height > LARGEST:
                return False
            picture = fitted(image.convert("RGBA"), SIDE, _MARGIN)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return False
    if picture is None:
        return False
    save(picture, target)
    return True


def fitted(image: Image.Image, side: int, margin: int = 0) -> Image.Image | None:
    """Returns the visible part of an RGBA image, as large as fits into a transparent square, in its middle.

    Args:
        image: The image.
        side: Side of the square, pixels.
        margin: Free pixels along each edge.

    Returns:
        The square, or nothing if no pixel is visible.
    """
    # Pixels that are hardly there, such as the rim of a shadow, do not count as visible.
    box = image.getchannel("A").point(lambda alpha: 255 * (alpha > 8)).getbbox()
    if box is None:
        return None
    part = image.crop(box)
    scale = (side - 2 * margin) / max(part.size)
    size = (max(1, round(part.width * scale)), max(1, round(part.height * scale)))
    # Premultiplied, or the colours of invisible pixels would bleed into the rim.
    part = part.convert("RGBa").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0).convert("RGBA")
    square = Image.new("RGBA", (side, side), (255, 255, 255, 0))
    square.paste(part, ((side - size[0]) // 2, (side - size[1]) // 2))
    return square


def save(picture: Image.Image, target: Path) -> None:
    """Writes a PNG, whole or not at all.

    Args:
        picture: The picture.
        target: The file; its folder is created.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_name(f".{target.name}.part")
    picture.save(draft, "PNG", compress_level=1)
    draft.replace(target)
