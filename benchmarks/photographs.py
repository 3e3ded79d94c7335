"""JPEG files for the benchmarks: drawn, smooth as photographs are."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["write_images"]

_DRAWN = 64


def write_images(folder: Path, count: int, size: tuple[int, int], test: int = 4) -> Path:
    """Writes JPEG files of two classes as a folder of images.

    Args:
        folder: Where; it gets the parts `train` and `test`.
        count: How many training images; from the 65th on they are copies of the first.
        size: Height and width in pixels.
        test: How many test images.

    Returns:
        The folder.
    """
    drawn = [_content(number, size) for number in range(min(_DRAWN, count))]
    for split, number in (("train", count), ("test", test)):
        for index in range(number):
            place = folder / split / ("a" if index % 2 else "b")
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{index}.jpg").write_bytes(drawn[index % len(drawn)])
    return folder


def _content(seed: int, size: tuple[int, int]) -> bytes:
    height, width = size
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
