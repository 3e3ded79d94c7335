"""Numbers, ids, flags and sizes as annotation files state them: some write numbers as text."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vimlight.data.pictures import UNREADABLE, peek
from vimlight.errors import DataError, shown

__all__ = ["as_flag", "as_id", "as_number", "image_size", "stated_side"]

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
# More than any format of images has.
_LONGEST = 1 << 32
_BITS = sys.float_info.max_exp
_FLAGS = {"": False, "false": False, "true": True}


def as_number(value: Any) -> float | None:
    """Returns a number, also one that is written as text; nothing if it is none, as `true` is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        # JSON has whole numbers of any length; as text they would be infinite.
        return float(value) if isinstance(value, float) or value.bit_length() < _BITS else float(str(value))
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value.strip()) else None


def as_id(value: Any) -> int | str | None:
    """Returns an id: 12 for 12, 12.0 and `"12"`, other text as it is, such as `"0012"`; nothing if it is none."""
    whole = as_whole(value)
    return value if isinstance(value, str) and value != str(whole or 0) else whole


def as_whole(value: Any) -> int | None:
    """Returns a whole number, also one that is written as text or with a point; nothing if it is none."""
    number = as_number(value)
    if isinstance(value, int) and number is not None:
        return value
    return int(number) if number is not None and number.is_integer() else None


def as_flag(value: Any) -> bool | None:
    """Returns whether a flag is set: 1 or true, also as text; 0, false, empty or null is not set; nothing otherwise.

    pycocotools takes the text `"0"` for true in one place and for 0 in another.
    """
    text = str("" if value is None else value).strip().lower()
    if text in _FLAGS:
        return _FLAGS[text]
    number = as_number(value)
    return bool(number) if number in (0, 1) else None


def stated_side(value: Any, what: str) -> int | None:
    """Returns the height or width that a file states for an image; nothing where it states none, or 0.

    Args:
        value: What the file says.
        what: What messages call it.

    Raises:
        DataError: If it is no whole number.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    side = as_whole(value)
    if side is None or not 0 <= side <= _LONGEST:
        raise DataError(f"{what} needs a whole number of pixels, got {shown(value)}")
    return side or None


def image_size(stated: Sequence[int | None], file: Path) -> tuple[int, int]:
    """Returns the height and width in pixels of the image that boxes were drawn on.

    Args:
        stated: Height and width; nothing for what the image file is to tell.
        file: The image file.

    Raises:
        DataError: If the file is needed and cannot be read, or nothing tells in which orientation boxes were drawn.
    """
    height, width = stated
    if height is not None and width is not None:
        return height, width
    try:
        size, orientation = peek(file)
    except UNREADABLE as error:
        raise DataError(f"cannot read the size of image {file}: {error}") from error
    if orientation != 1:
        raise DataError(
            f"image {file} has the orientation tag {orientation}, and its annotations state no width and height: "
            "nothing tells whether boxes were drawn upright; state them, or save the image without the tag"
        )
    return height or size[0], width or size[1]
