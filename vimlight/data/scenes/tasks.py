"""Named tasks over drawn images: those of the midstream and, disjoint from them, those of the downstream."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.data.scenes.glyphs import HELD_OUT_FONTS, draw_glyphs
from vimlight.data.scenes.layout import COLOURS, POSITIONS, Layout, indices_of, sample_layout
from vimlight.data.scenes.scenes import draw_scenes, render_scenes
from vimlight.data.scenes.shapes import HELD_OUT_SHAPES, SHAPES, TRAINING_SHAPES
from vimlight.data.scenes.textures import TEXTURES
from vimlight.errors import unknown_name

__all__ = ["SCENE_TASKS", "SceneTask", "make_task"]

Drawn = tuple[NDArray[np.uint8], Any]
_CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_DIRECTIONS = ("up", "up left", "left", "down left", "down", "down right", "right", "up right")
_RELATIONS = ("left of", "right of", "above", "below")
_LOOK_ALIKES = ("semicircle", "triangle", "ellipse", "star")
_ROUND, _ANGULAR = ("circle", "ellipse", "ring"), ("square", "diamond", "triangle")


@dataclass(frozen=True)
class SceneTask:
    """A labelled task over drawn images.

    Attributes:
        name: The task's name.
        stage: Whether modules of the zoo are trained on it, or it is left for downstream.
        kind: Kind of task, such as `"classification"`; see `vimlight.tasks.list_tasks`.
        class_names: One name for each class.
        draw: Function of (count, seed, size, difficulty) that returns images `(N, 3, S, S)` uint8 and targets: class
            indices `(N,)`, for multilabel which classes are present `(N, C)`, or what else the kind of task takes.
        difficulty: The difficulty unless another is asked for.
    """

    name: str
    stage: Literal["midstream", "downstream"]
    kind: str
    class_names: tuple[str, ...]
    draw: Callable[[int, int, int, float], Drawn]
    difficulty: float = 0.5


def make_task(
    name: str, count: int, seed: int, *, size: int = 64, difficulty: float | None = None
) -> tuple[Tensor, Any, tuple[str, ...], str]:
    """Draws the images of a task.

    Args:
        name: A key of `SCENE_TASKS`.
        count: Number of images N.
        seed: The same seed and arguments give the same images bit for bit.
        size: Image side S in pixels.
        difficulty: In [0, 1]; by default the task's own.

    Returns:
        Images `(N, 3, S, S)` uint8, targets `(N,)` int64 (multilabel: `(N, C)` float32; other kinds: see their
            layout), class names, kind.

    Raises:
        UnknownNameError: If there is no such task.
    """
    if name not in SCENE_TASKS:
        raise unknown_name("scene task", name, SCENE_TASKS)
    task = SCENE_TASKS[name]
    # Tasks of one seed must not share backgrounds and places.
    own_seed = int(np.random.SeedSequence([seed, crc32(name.encode())]).generate_state(1)[0])
    images, targets = task.draw(count, own_seed, size, task.difficulty if difficulty is None else difficulty)
    if isinstance(targets, np.ndarray):
        targets = torch.from_numpy(targets)
        targets = targets.float() if task.kind == "multilabel" else targets.long() if targets.ndim == 1 else targets
    return torch.from_numpy(images), targets, task.class_names, task.kind


def _scenes(target: Callable[[Layout], NDArray[Any]], **options: Any) -> Callable[[int, int, int, float], Drawn]:
    """Returns a drawing function whose targets are read off the layout."""

    def draw(count: int, seed: int, size: int, difficulty: float) -> Drawn:
        scenes = draw_scenes(count, seed, size=size, difficulty=difficulty, **options)
        return scenes.images, target(scenes.layout)

    return draw


def _glyphs(characters: str, **options: Any) -> Callable[[int, int, int, float], Drawn]:
    """Returns a drawing function whose targets are indices into `characters`, which are in order of code points."""

    def draw(count: int, seed: int, size: int, difficulty: float) -> Drawn:
        glyphs = draw_glyphs(count, seed, characters=characters, size=size, difficulty=difficulty, **options)
        return glyphs.images, glyphs.glyph - ord(characters[0])

    return draw


def _direction(layout: Layout) -> NDArray[np.int64]:
    return np.asarray(np.round(layout.angle[:, 0] / 45).astype(np.int64) % 8)


def _present_attributes(layout: Layout) -> NDArray[np.bool_]:
    """Returns which colours, then which shapes, occur in each scene."""
    colours = layout.colour[..., None] == np.arange(len(COLOURS))
    shapes = layout.shape[..., None] == np.arange(len(TRAINING_SHAPES))
    return np.concatenate([colours.any(axis=1), shapes.any(axis=1)], axis=1)


def _odd_shape(layout: Layout) -> NDArray[np.int64]:
    return np.searchsorted(indices_of("shape", _ODD_SHAPES, SHAPES), layout.shape[:, 0])


def _draw_relations(count: int, seed: int, size: int, difficulty: float) -> Drawn:
    """Draws a round and an angular object; the target is where the round one lies as seen from the other."""
    rng = np.random.default_rng(seed)
    layout, relation = _sample_relations(count, rng, difficulty)
    return render_scenes(layout, rng, size=size, difficulty=difficulty).images, relation


def _sample_relations(count: int, rng: np.random.Generator, difficulty: float) -> tuple[Layout, NDArray[np.int64]]:
    layout = sample_layout(count, rng, objects=(2, 2), difficulty=difficulty, radius=(0.12, 0.2))
    layout.shape[:, 0] = rng.choice(indices_of("shape", _ROUND, SHAPES), count)
    layout.shape[:, 1] = rng.choice(indices_of("shape", _ANGULAR, SHAPES), count)
    relation = rng.integers(0, len(_RELATIONS), count)
    along = rng.uniform(0.36, 0.55, count)
    across = rng.uniform(-0.5, 0.5, count) * along
    steps = np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])[relation]
    offset = steps * along[:, None] + steps[:, ::-1] * across[:, None]
    reach = np.abs(offset) / 2 + 0.18
    middle = reach + rng.random((count, 2)) * (1 - 2 * reach)
    centre = np.stack([middle + offset / 2, middle - offset / 2], axis=1).astype(np.float32)
    return replace(layout, centre=centre), relation


_ODD_SHAPES = tuple(sorted(HELD_OUT_SHAPES + _LOOK_ALIKES, key=SHAPES.index))
_DIRECTED = {"shapes": ("heart", "triangle", "semicircle"), "rotation": 180.0, "radius": (0.2, 0.42)}
_MIDSTREAM = (
    SceneTask("shapes", "midstream", "classification", TRAINING_SHAPES, _scenes(lambda layout: layout.shape[:, 0])),
    SceneTask("textures", "midstream", "classification", TEXTURES, _scenes(lambda layout: layout.texture[:, 0])),
    SceneTask("colours", "midstream", "classification", tuple(COLOURS), _scenes(lambda layout: layout.colour[:, 0])),
    SceneTask(
        "count",
        "midstream",
        "classification",
        ("one", "two", "three", "four", "five"),
        _scenes(lambda layout: layout.count - 1, objects=(1, 5), alike=0.5),
    ),
    SceneTask("orientation", "midstream", "classification", _DIRECTIONS, _scenes(_direction, **_DIRECTED)),
    SceneTask(
        "position",
        "midstream",
        "classification",
        tuple(name for row in POSITIONS for name in row),
        _scenes(lambda layout: layout.cell[:, 0], radius=(0.1, 0.18)),
    ),
    SceneTask("letters", "midstream", "classification", tuple(_CAPITALS), _glyphs(_CAPITALS)),
    SceneTask(
        "attributes",
        "midstream",
        "multilabel",
        (*COLOURS, *TRAINING_SHAPES),
        _scenes(_present_attributes, objects=(1, 3)),
    ),
)
_DOWNSTREAM = (
    SceneTask(
        "lowercase",
        "downstream",
        "classification",
        tuple(_CAPITALS.lower()),
        _glyphs(_CAPITALS.lower(), fonts=HELD_OUT_FONTS),
    ),
    SceneTask(
        "numerals", "downstream", "classification", tuple("0123456789"), _glyphs("0123456789", fonts=HELD_OUT_FONTS)
    ),
    SceneTask("odd_shapes", "downstream", "classification", _ODD_SHAPES, _scenes(_odd_shape, shapes=_ODD_SHAPES), 0.8),
    SceneTask("relations", "downstream", "classification", _RELATIONS, _draw_relations),
)
SCENE_TASKS = {task.name: task for task in (*_MIDSTREAM, *_DOWNSTREAM)}
