"""Whether a target was drawn on the image that it comes with: of one size, and in one orientation."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vimlight.errors import DataError
from vimlight.tasks.targets import TargetLayout

__all__ = ["check_extent"]


def check_extent(place: str, image: Tensor, orientation: int, target: Any, layout: TargetLayout) -> None:
    """Checks that a target has the size of its image, and that the image was not turned under it.

    Images are upright. A target that was drawn on one with an orientation tag is accepted where its size tells that
    it was drawn on the upright image, as annotation tools do today. The width and height that annotation files state
    are often those of the stored pixels although boxes were drawn upright, so that a target is never turned along.

    Args:
        place: What messages call the image.
        image: Its pixels, upright, `(3, H, W)`.
        orientation: The tag of the stored image, 1 to 8.
        target: Its target, which lies in the image.
        layout: The layout of the target.

    Raises:
        DataError: If it is not so, or cannot be told; the text gives sizes and cure.
    """
    upright = (image.shape[-2], image.shape[-1])
    drawn = layout.extent(target)
    # From 5 on, the tag swaps height and width.
    stored = upright[::-1] if orientation >= 5 else upright
    if orientation == 1 and drawn in (None, upright):
        return
    if drawn == upright != stored:
        return
    says = f"{layout.extent_name} {_size(drawn)}" if drawn else "its target says no size"
    if orientation == 1 or drawn not in (None, upright, stored):
        raise DataError(
            f"image {place} has {_size(upright)} pixels, but {says}; make both one size, or set skip_corrupt: true"
        )
    told = "it fits the stored pixels" if drawn == stored != upright else "nothing tells on which it was drawn"
    raise DataError(
        f"image {place} has the orientation tag {orientation}: {_size(upright)} pixels upright, {_size(stored)} as "
        f"stored; {says}: {told}. Save the image upright, or, where the target was drawn on the stored pixels, without "
        "the tag; or set skip_corrupt: true"
    )


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
