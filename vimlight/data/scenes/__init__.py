"""Scenes: a procedural family of labelled, captioned images, drawn in batches from a seed."""

from __future__ import annotations

import vimlight.data.scenes.object_tasks  # noqa: F401  (enters its tasks)
from vimlight.data.scenes.glyphs import FONTS, HELD_OUT_FONTS, TRAINING_FONTS, GlyphBatch, draw_glyphs
from vimlight.data.scenes.layout import COLOURS, POSITIONS, SIZES, Layout
from vimlight.data.scenes.scenes import SceneBatch, draw_scenes
from vimlight.data.scenes.shapes import HELD_OUT_SHAPES, SHAPES, TRAINING_SHAPES
from vimlight.data.scenes.spatial_tasks import BACKGROUND_DISTANCE, distances
from vimlight.data.scenes.tasks import SCENE_TASKS, SceneTask, make_task
from vimlight.data.scenes.textures import TEXTURES

__all__ = [
    "BACKGROUND_DISTANCE",
    "COLOURS",
    "FONTS",
    "HELD_OUT_FONTS",
    "HELD_OUT_SHAPES",
    "POSITIONS",
    "SCENE_TASKS",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "TRAINING_FONTS",
    "TRAINING_SHAPES",
    "GlyphBatch",
    "Layout",
    "SceneBatch",
    "SceneTask",
    "distances",
    "draw_glyphs",
    "draw_scenes",
    "make_task",
]
