"""Tasks on drawn scenes whose answer is no class: masks, distances, numbers, and how many objects there are.

Each comes twice: on shapes of the midstream, and for downstream on those of `odd_shapes`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.layout import COLOURS, Layout, indices_of, sample_layout
from vimlight.data.scenes.scenes import SceneBatch, render_scenes
from vimlight.data.scenes.shapes import SHAPES, TRAINING_SHAPES
from vimlight.data.scenes.tasks import SCENE_TASKS, SceneTask

__all__ = ["BACKGROUND_DISTANCE", "distances"]

BACKGROUND_DISTANCE = 8.0
# All objects are of one size in space: what looks half as large is twice as far away.
_SIZE = 0.5
_NUMBERS = ("one", "two", "three", "four", "five")
_GEOMETRY = ("across", "down", "radius")
_ODD = SCENE_TASKS["odd_shapes"].class_names

Read = Callable[[SceneBatch], Any]


def distances(scenes: SceneBatch) -> NDArray[np.float32]:
    """Returns how far away every pixel is, `(N, S, S)`: objects by how large they look, the background behind all."""
    radius = scenes.layout.radius
    by_slot = np.where(scenes.layout.present, _SIZE / np.maximum(radius, 1e-3), 0).astype(np.float32)
    far = np.full((len(radius), 1), BACKGROUND_DISTANCE, dtype=np.float32)
    flat = np.take_along_axis(np.concatenate([far, by_slot], axis=1), scenes.masks.reshape(len(radius), -1), axis=1)
    return np.asarray(flat.reshape(scenes.masks.shape))


def _nearest_last(layout: Layout) -> Layout:
    """Orders the objects by how large they look, so that nearer ones lie in front."""
    order = np.argsort(np.where(layout.present, layout.radius, np.inf), axis=1, kind="stable")
    slots = {
        name: np.take_along_axis(getattr(layout, name), order, axis=1)
        for name in ("shape", "colour", "texture", "radius", "angle")
    }
    return replace(layout, centre=np.take_along_axis(layout.centre, order[..., None], axis=1), **slots)


def _draws(read: Read, shapes: Sequence[str], **options: Any) -> Callable[[int, int, int, float], Any]:
    """Returns a drawing function whose targets are read off scenes of some shapes."""

    def draw(count: int, seed: int, size: int, difficulty: float) -> tuple[NDArray[np.uint8], Any]:
        rng = np.random.default_rng(seed)
        layout = _nearest_last(sample_layout(count, rng, difficulty=difficulty, shapes=shapes, **options))
        scenes = render_scenes(layout, rng, size=size, difficulty=difficulty)
        return scenes.images, read(scenes)

    return draw


def _shape_masks(shapes: Sequence[str]) -> Read:
    """Returns a function to masks of class numbers: 0 is the background, k + 1 the k-th of the shapes."""
    number = np.zeros(len(SHAPES), dtype=np.uint8)
    number[indices_of("shape", shapes, SHAPES)] = np.arange(1, len(shapes) + 1)

    def read(scenes: SceneBatch) -> NDArray[np.uint8]:
        by_slot = np.where(scenes.layout.present, number[scenes.layout.shape], 0)
        classes = np.concatenate([np.zeros((len(by_slot), 1), dtype=np.int64), by_slot], axis=1).astype(np.uint8)
        flat = np.take_along_axis(classes, scenes.masks.reshape(len(by_slot), -1), axis=1)
        return np.asarray(flat.reshape(scenes.masks.shape))

    return read


def _geometry(scenes: SceneBatch) -> NDArray[np.float32]:
    layout = scenes.layout
    return np.column_stack([layout.centre[:, 0], layout.radius[:, :1]]).astype(np.float32)


def _count(scenes: SceneBatch) -> NDArray[np.int64]:
    return scenes.layout.count - 1


def _attributes(shapes: Sequence[str]) -> Read:
    """Returns a function to which colours, then which of the shapes, occur in each scene."""
    known = indices_of("shape", shapes, SHAPES)

    def read(scenes: SceneBatch) -> NDArray[np.bool_]:
        colours = scenes.layout.colour[..., None] == np.arange(len(COLOURS))
        found = scenes.layout.shape[..., None] == known
        return np.concatenate([colours.any(axis=1), found.any(axis=1)], axis=1)

    return read


_SEVERAL: dict[str, Any] = {"objects": (1, 4)}
_FAR: dict[str, Any] = {"objects": (1, 4), "radius": (0.1, 0.42)}
_COUNTED: dict[str, Any] = {"objects": (1, 5), "alike": 0.5}
_ALONE: dict[str, Any] = {"radius": (0.1, 0.42)}
_TASKS = (
    SceneTask(
        "segments", "midstream", "segmentation", ("background", *TRAINING_SHAPES),
        _draws(_shape_masks(TRAINING_SHAPES), TRAINING_SHAPES, **_SEVERAL),
    ),
    SceneTask("depth", "midstream", "depth", (), _draws(distances, TRAINING_SHAPES, **_FAR)),
    SceneTask("geometry", "midstream", "regression", _GEOMETRY, _draws(_geometry, TRAINING_SHAPES, **_ALONE)),
    SceneTask("amounts", "midstream", "ordinal", _NUMBERS, _draws(_count, TRAINING_SHAPES, **_COUNTED)),
    SceneTask(
        "odd_segments", "downstream", "segmentation", ("background", *_ODD),
        _draws(_shape_masks(_ODD), _ODD, **_SEVERAL),
    ),
    SceneTask("odd_depth", "downstream", "depth", (), _draws(distances, _ODD, **_FAR)),
    SceneTask("odd_geometry", "downstream", "regression", _GEOMETRY, _draws(_geometry, _ODD, **_ALONE)),
    SceneTask("odd_amounts", "downstream", "ordinal", _NUMBERS, _draws(_count, _ODD, **_COUNTED)),
    SceneTask(
        "odd_attributes", "downstream", "multilabel", (*COLOURS, *_ODD), _draws(_attributes(_ODD), _ODD, objects=(1, 3))
    ),
)  # fmt: skip
SCENE_TASKS.update({task.name: task for task in _TASKS})
