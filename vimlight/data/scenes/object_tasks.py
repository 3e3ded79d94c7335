"""Tasks on drawn scenes whose answer is a box for every object: one for the midstream, one for downstream."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimlight.data.boxes import BoxTargets
from vimlight.data.scenes.boxes import scene_boxes
from vimlight.data.scenes.scenes import draw_scenes
from vimlight.data.scenes.shapes import TRAINING_SHAPES
from vimlight.data.scenes.tasks import SCENE_TASKS, SceneTask

__all__: list[str] = []

Draw = Callable[[int, int, int, float], tuple[NDArray[np.uint8], Any]]


def _objects(shapes: tuple[str, ...]) -> Draw:
    """Returns a drawing function of scenes with one to three of some shapes, and their boxes."""

    def draw(count: int, seed: int, size: int, difficulty: float) -> tuple[NDArray[np.uint8], BoxTargets]:
        scenes = draw_scenes(count, seed, size=size, difficulty=difficulty, objects=(1, 3), shapes=shapes)
        return scenes.images, scene_boxes(scenes, shapes)

    return draw


_ODD = SCENE_TASKS["odd_shapes"].class_names
_TASKS = (
    SceneTask("objects", "midstream", "detection", TRAINING_SHAPES, _objects(TRAINING_SHAPES)),
    SceneTask("odd_objects", "downstream", "detection", _ODD, _objects(_ODD)),
)
SCENE_TASKS.update({task.name: task for task in _TASKS})
