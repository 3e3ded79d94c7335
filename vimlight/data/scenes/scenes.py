"""Drawn scenes: labelled images of shapes, as many and as hard as asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.captions import Facts, captions, facts_of_scenes, mention
from vimlight.data.scenes.layout import Layout, sample_layout
from vimlight.data.scenes.render import render

__all__ = ["SceneBatch", "draw_scenes", "render_scenes"]


@dataclass(frozen=True)
class SceneBatch:
    """Drawn scenes and everything that is known of them.

    Attributes:
        images: `(N, 3, S, S)` uint8.
        masks: `(N, S, S)` uint8; 0 is background, k + 1 where the object of slot k is visible. Later slots lie in
            front of earlier ones.
        layout: The objects.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    layout: Layout

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.images)

    @property
    def facts(self) -> Facts:
        """What captions can say of the images, `(N, len(FACTS))`."""
        return facts_of_scenes(self.layout)

    @property
    def depth(self) -> NDArray[np.int64]:
        """Depth order `(N, K)`: 0 is the object in front of all others, -1 an empty slot."""
        slots = np.arange(self.layout.shape.shape[1])
        return np.where(self.layout.present, self.layout.count[:, None] - 1 - slots, -1)

    def captions(self, seed: int = 0, detail: float = 0.7) -> list[str]:
        """Returns a true sentence for each image; the seed chooses what is said and how."""
        rng = np.random.default_rng(seed)
        return captions(mention(self.facts, rng, detail), rng)


def draw_scenes(count: int, seed: int, *, size: int = 64, difficulty: float = 0.5, **options: Any) -> SceneBatch:
    """Draws scenes of one or more shapes.

    Args:
        count: Number of images N.
        seed: The same seed and arguments give the same images bit for bit.
        size: Image side S in pixels.
        difficulty: From 0 (large, upright, plain background, no noise) to 1 (any size and turn, clutter, faint
            contrast, noise).
        **options: What is in the scenes; see `sample_layout`.

    Raises:
        ConfigError: If the number of objects or the difficulty is out of range.
        UnknownNameError: If a shape, colour or texture does not exist.
    """
    rng = np.random.default_rng(seed)
    layout = sample_layout(count, rng, difficulty=difficulty, **options)
    return render_scenes(layout, rng, size=size, difficulty=difficulty)


def render_scenes(layout: Layout, rng: np.random.Generator, *, size: int, difficulty: float) -> SceneBatch:
    """Draws scenes whose objects are decided already."""
    images, masks = render(layout, rng, size, difficulty)
    return SceneBatch(images, masks, layout)
