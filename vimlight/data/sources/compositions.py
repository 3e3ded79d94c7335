"""Compositions: drawn objects of a certain shape and texture, some of which are held out from training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from vimlight.data.scenes import SHAPES, TEXTURES
from vimlight.data.scenes.layout import indices_of, sample_layout
from vimlight.data.scenes.scenes import render_scenes
from vimlight.data.scenes.tasks import SCENE_TASKS
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import TensorTable
from vimlight.errors import ConfigError

__all__ = ["composition_names", "compositions", "held_out_compositions"]

ODD_SHAPES = SCENE_TASKS["odd_shapes"].class_names


def composition_names() -> tuple[str, ...]:
    """Returns the class names, such as `"striped star"`: shape by shape, each in every texture."""
    return tuple(f"{texture} {shape}" for shape in ODD_SHAPES for texture in TEXTURES)


def held_out_compositions() -> tuple[int, ...]:
    """Returns the indices of the classes that training images never show.

    Two diagonals of the square of shapes and textures: each shape is seen in three textures of five, and each texture
    on five shapes of eight, or four.
    """
    width = len(TEXTURES)
    return tuple(index for index in range(len(ODD_SHAPES) * width) if (index // width + index % width) % width < 2)


@SOURCES.register("compositions")
def compositions(
    train: int = 16, val: int = 8, test: int = 25, seed: int = 0, size: int = 64, difficulty: float = 0.5
) -> Source:
    """Draws four shapes that the embedded models were not trained on and four that they were, in all textures.

    Args:
        train: Training images of each class that is not held out.
        val: Validation images of each class that is not held out.
        test: Test images of every class.
        seed: Decides what is drawn.
        size: Side of the images in pixels.
        difficulty: From 0 to 1.

    Raises:
        ConfigError: If a number of images is below 1.
    """
    if min(train, val, test) < 1:
        raise ConfigError(f"compositions need at least 1 image of each class and split, got {train}, {val} and {test}")
    seen = sorted(set(range(len(composition_names()))) - set(held_out_compositions()))
    wanted = {"train": (seen, train), "val": (seen, val), "test": (range(len(composition_names())), test)}
    tables = {}
    for place, (split, (classes, count)) in enumerate(wanted.items()):
        targets = np.repeat(np.array(classes, dtype=np.int64), count)
        images = _draw(targets, 3 * seed + place, size, difficulty)
        tables[split] = TensorTable(torch.from_numpy(images), torch.from_numpy(targets), f"compositions/{split}")
    return Source("compositions", "classification", composition_names(), **tables)


def _draw(targets: NDArray[np.int64], seed: int, size: int, difficulty: float) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    layout = sample_layout(len(targets), rng, difficulty=difficulty)
    shapes = indices_of("shape", ODD_SHAPES, SHAPES)[targets // len(TEXTURES)]
    textures = targets % len(TEXTURES)
    layout = replace(layout, shape=shapes[:, None], texture=textures[:, None])
    return render_scenes(layout, rng, size=size, difficulty=difficulty).images
