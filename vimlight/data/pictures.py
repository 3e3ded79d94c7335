"""How an image becomes pixels: upright, RGB, eight bits a channel. Every reader of the package opens images here.

*Upright* means as the orientation tag (EXIF, or XMP) says, which is how browsers and Hugging Face's `datasets` show
photographs. Numbers become brightness by the range of their type: 16 bits by 65,535, floats by 1. What has no known
white is refused. What is transparent lies over a background.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageColor, UnidentifiedImageError
from torch import Tensor

from vimlight.errors import ConfigError, DataError, unknown_name

__all__ = [
    "UNREADABLE",
    "WHITE",
    "check_colour",
    "grey_step",
    "open_picture",
    "opened",
    "orientation",
    "peek",
    "rgb_tensor",
    "upright",
]

WHITE = "white"

UNREADABLE = (
    OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError, EOFError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What PIL raises where a file is missing, damaged, or larger than any image: its parsers believe what they read."""

_DAMAGED_TAGS = (SyntaxError, ValueError, TypeError, KeyError, struct.error)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
# By how much PIL multiplies grey numbers of few bits so that they reach 255.
_STEPS = {"L;2": 85, "L;4": 17}
_CURE = "save it with 8 or 16 bits a channel"


def check_colour(name: str) -> str:
    """Returns the name of a colour, as CSS has them, such as `"white"` or `"#808080"`.

    Raises:
        ConfigError: If it starts with `#` and is no opaque colour.
        UnknownNameError: If there is no such colour.
    """
    try:
        if len(ImageColor.getrgb(name)) == 3:
            return name
    except ValueError:
        if not name.startswith("#"):
            raise unknown_name("colour", name, ImageColor.colormap) from None
    raise ConfigError(f"background {name!r} is no opaque colour; give a name such as white, or #rrggbb")


def open_picture(file: str | Path | BinaryIO) -> Image.Image:
    """Opens an image file, or its content, and loads it, upright and otherwise as it is stored.

    Raises:
        DataError: If it has a kind of transparency that cannot be read.
        UNREADABLE: If it is missing or damaged.
    """
    with opened(file) as image:
        return upright(image)


def peek(file: str | Path) -> tuple[tuple[int, int], int]:
    """Returns height and width of an image file as PIL opens it, and its orientation tag; decodes no pixels.

    Raises:
        UNREADABLE: If it is missing or damaged.
    """
    with opened(file) as image:
        return (image.height, image.width), orientation(image)


@contextmanager
def opened(file: str | Path | BinaryIO) -> Iterator[Image.Image]:
    """Opens an image file, or its content, and loads nothing yet.

    Raises:
        UNREADABLE: If it is missing or damaged.
    """
    # Given a path, Pillow 13 maps uncompressed TIFF files into memory with height and width of turned ones mixed up.
    with _stream(file) as stream, _recognised(stream) as image:
        yield image


def _recognised(stream: BinaryIO) -> Image.Image:
    try:
        return Image.open(stream)
    except UnidentifiedImageError:
        # PIL's own text shows the stream in place of the file.
        raise UnidentifiedImageError("it is empty, or no image of a known kind") from None


def _stream(file: str | Path | BinaryIO) -> AbstractContextManager[BinaryIO]:
    return Path(file).open("rb") if isinstance(file, str | Path) else nullcontext(file)


def orientation(image: Image.Image) -> int:
    """Returns the orientation tag of an image, from 1, which is upright, to 8; 1 where it is missing or damaged.

    A TIFF file tells it before it is loaded only: PIL turns it while loading, and forgets the tag.
    """
    try:
        tag = image.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGED_TAGS:
        # Viewers show such photographs as they are stored.
        return 1
    return tag if tag in _TURNS else 1


def upright(image: Image.Image) -> Image.Image:
    """Returns an image loaded and turned as its orientation tag says, in its own mode.

    Raises:
        DataError: If it has a kind of transparency that cannot be read.
        UNREADABLE: If it is damaged.
    """
    _settle_transparency(image)
    image.load()
    turn = _TURNS.get(orientation(image))
    image = _settle_grey(image)
    if turn is None:
        return image
    turned = image.transpose(turn)
    # With its tags it would be turned again by the next who asks.
    turned.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return turned


def rgb_tensor(image: Any, background: str = WHITE) -> Tensor:
    """Turns an image into pixels, upright.

    Args:
        image: A PIL image of any mode; an array `(H, W)` or `(H, W, C)`, or a tensor `(H, W)` or `(C, H, W)`, of 1, 3
            or 4 channels. Numbers are bool, 8-bit, 16-bit (whose upper eight bits stay), or floats from 0 to 1.
        background: Colour that transparent pixels lie over, as CSS names it.

    Returns:
        `(3, H, W)` uint8, a view of interleaved pixels `(H, W, 3)`, which torch resizes faster.

    Raises:
        DataError: If it is no image, or its numbers have no known white; the text does not name the image.
        UNREADABLE: If it is damaged.
    """
    if isinstance(image, Tensor):
        array = (image.float() if image.is_floating_point() else image).cpu().numpy()
        image = array.transpose(1, 2, 0) if array.ndim == 3 else array
    image = upright(image) if isinstance(image, Image.Image) else _from_array(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        image = _grey(image)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, ImageColor.getrgb(background))
        image = Image.alpha_composite(canvas, image.convert("RGBA"))
    pixels = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    return torch.from_numpy(pixels).permute(2, 0, 1)


def grey_step(image: Image.Image) -> int:
    """Returns by how much PIL multiplies the grey numbers of a file that is opened but not loaded: 1, 17 or 85."""
    tiles = getattr(image, "tile", None)
    args = tiles[0][3] if tiles else ""
    return _STEPS.get(args if isinstance(args, str) else str(args[0]), 1)


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Scales numbers of any shape by the range of their type.

    Raises:
        DataError: If the type's white is not known, or floats are not within 0 and 1.
    """
    if values.dtype == np.uint8:
        return np.asarray(values, dtype=np.uint8)
    if values.dtype == np.bool_:
        return np.asarray(np.where(values, 255, 0), dtype=np.uint8)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return np.asarray(values >> 8, dtype=np.uint8)
    if values.dtype.kind != "f":
        raise DataError(f"its pixels are {values.dtype} numbers without a known white; {_CURE}")
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    # Written so that what is not a number is caught too.
    if not 0 <= low <= high <= 1:
        raise DataError(f"its pixels are floats from {low:g} to {high:g}, expected 0 to 1; {_CURE}")
    return np.asarray(np.rint(values * 255), dtype=np.uint8)


def _from_array(values: Any) -> Image.Image:
    if not isinstance(values, np.ndarray):
        raise DataError(f"it is {'missing' if values is None else f'a {type(values).__name__}'}, not an image")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2 and not (values.ndim == 3 and values.shape[2] in (3, 4)):
        raise DataError(f"it is an array {values.shape}, expected (H, W) or (H, W, 1, 3 or 4)")
    return Image.fromarray(np.ascontiguousarray(eight_bits(values)))


def _grey(image: Image.Image) -> Image.Image:
    """Turns grey of more than eight bits into `L`, or `LA` where one value stands for transparent pixels."""
    values = np.asarray(image)
    try:
        grey = Image.fromarray(eight_bits(values))
    except DataError as error:
        raise DataError(f"{error} (PIL mode {image.mode})") from None
    transparent = image.info.get("transparency")
    if transparent is None:
        return grey
    return Image.merge("LA", (grey, Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))))


def _settle_transparency(image: Image.Image) -> None:
    """Makes the value that stands for transparent pixels that of PIL's pixels, which it stretches to eight bits."""
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        image.info["transparency"] = transparent * grey_step(image)
    if isinstance(transparent, tuple) and max(transparent) > 255:
        raise DataError("it has 16 bits a channel and one transparent colour; save it with an alpha channel")


def _settle_grey(image: Image.Image) -> Image.Image:
    """Makes white the largest number of the type, where the file has it that PIL leaves this to the reader."""
    tags = getattr(image, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    if image.mode == "F" and inverted:
        return Image.fromarray(1 - np.asarray(image))
    # PNM files of 16 bits are opened with 32.
    if not image.mode.startswith("I;16") and not (image.mode == "I" and image.format == "PPM"):
        return image
    values = np.asarray(image).astype(np.uint16) << (16 - tags.get(_BITS_PER_SAMPLE, (16,))[0])
    settled = Image.fromarray(65535 - values if inverted else values)
    settled.info = dict(image.info)
    return settled
