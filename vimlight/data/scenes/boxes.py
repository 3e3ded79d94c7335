"""Where the objects of drawn scenes are: exact boxes, read off the masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vimlight.data.boxes import BoxTargets, RawBox, pack_boxes
from vimlight.data.scenes.layout import indices_of
from vimlight.data.scenes.scenes import SceneBatch
from vimlight.data.scenes.shapes import SHAPES

__all__ = ["extents", "scene_boxes"]


def extents(masks: NDArray[np.uint8], slots: int) -> NDArray[np.int64]:
    """Returns left, top, right and bottom of the pixels of each object.

    Args:
        masks: `(N, S, S)`; k + 1 where the object of slot k is visible.
        slots: Number of slots K.

    Returns:
        `(N, K, 4)` in pixels, right and bottom exclusive; four times 0 where no pixel is visible.
    """
    mine = masks[:, None] == np.arange(1, slots + 1, dtype=np.uint8)[:, None, None]
    sides = []
    for axis in (2, 3):
        # Over rows for the columns that an object covers, and the other way round.
        covered = mine.any(axis=axis)
        first = covered.argmax(axis=2)
        last = covered.shape[2] - covered[..., ::-1].argmax(axis=2)
        sides.append((first, np.where(covered.any(axis=2), last, 0)))
    (left, right), (top, bottom) = sides
    return np.stack([left, top, right, bottom], axis=-1).astype(np.int64)


def scene_boxes(scenes: SceneBatch, shapes: tuple[str, ...]) -> BoxTargets:
    """Returns the boxes of what is visible of each object; objects that are wholly hidden have none.

    Args:
        scenes: Drawn scenes.
        shapes: Names of the classes, in order; every shape in the scenes is among them.
    """
    layout, size = scenes.layout, scenes.images.shape[-1]
    boxes = extents(scenes.masks, layout.shape.shape[1])
    label = {int(shape): number for number, shape in enumerate(indices_of("shape", shapes, SHAPES))}
    objects = [
        [
            RawBox(f"object {slot}", tuple(map(float, box)), label[int(shape)])  # type: ignore[arg-type]  # four numbers
            for slot, (box, shape) in enumerate(zip(image_boxes, image_shapes, strict=True))
            if box[2] > box[0]
        ]
        for image_boxes, image_shapes in zip(boxes, layout.shape, strict=True)
    ]
    return pack_boxes(objects, [(size, size)] * len(boxes), [f"scene {number}" for number in range(len(boxes))])
