"""Batches of drawn images with captions, and the compositions that training never sees."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.data.scenes import COLOURS, POSITIONS, SIZES, TEXTURES, TRAINING_SHAPES, draw_glyphs, draw_scenes
from vimlight.data.scenes.captions import FACTS, Facts, caption, captions, is_true, mention
from vimlight.embedded.towers import MEAN, STD

__all__ = ["ATTRIBUTES", "CAPITALS", "Batch", "compositions", "draw_batch", "names_of", "normalise", "prompts"]

CAPITALS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Facts that one phrase can name alone, the kind of image that the phrase is about, and their values.
ATTRIBUTES: dict[str, tuple[int, list[int]]] = {
    "shape": (0, list(range(len(TRAINING_SHAPES)))),
    "colour": (0, list(range(len(COLOURS)))),
    "texture": (0, list(range(len(TEXTURES)))),
    "size": (0, list(range(len(SIZES)))),
    "cell": (0, list(range(sum(map(len, POSITIONS))))),
    "glyph": (4, [ord(letter) for letter in CAPITALS]),
}
_PARTS = {"single": 0.6, "several": 0.15, "glyphs": 0.25}


@dataclass(frozen=True)
class Batch:
    """Images with one caption each.

    Attributes:
        images: `(N, 3, S, S)` uint8.
        facts: What is true of each image, `(N, len(FACTS))`.
        texts: N captions.
        matches: `(N, N)` bool, whether caption m is true of image n.
    """

    images: Tensor
    facts: Facts
    texts: list[str]
    matches: Tensor


def compositions(held_out: bool) -> NDArray[np.int64]:
    """Returns (shape, colour, texture) rows; one in five is held out, evenly over every pair of attributes."""
    triples = product(range(len(TRAINING_SHAPES)), range(len(COLOURS)), range(len(TEXTURES)))
    return np.array([row for row in triples if ((row[0] + 2 * row[1] + row[2]) % 5 == 0) == held_out])


def draw_batch(count: int, seed: int, difficulty: float) -> Batch:
    """Draws single objects, several objects and letters, with captions; held-out compositions never occur."""
    seeds = [int(value) for value in np.random.SeedSequence(seed).generate_state(4)]
    numbers = {part: round(share * count) for part, share in _PARTS.items()}
    numbers["single"] += count - sum(numbers.values())
    seen = compositions(held_out=False)
    drawn = [
        draw_scenes(numbers["single"], seeds[0], difficulty=difficulty, compositions=seen),
        draw_scenes(numbers["several"], seeds[1], difficulty=difficulty, compositions=seen, objects=(2, 4), alike=0.6),
        draw_glyphs(numbers["glyphs"], seeds[2], difficulty=difficulty),
    ]
    facts = np.concatenate([batch.facts for batch in drawn])
    rng = np.random.default_rng(seeds[3])
    mentions = mention(facts, rng)
    images = torch.from_numpy(np.concatenate([batch.images for batch in drawn]))
    return Batch(images, facts, captions(mentions, rng), torch.from_numpy(is_true(mentions, facts)))


def names_of(attribute: str) -> list[str]:
    """Returns one phrase for each value of an attribute, such as `"a red object"`."""
    kind, values = ATTRIBUTES[attribute]
    rows = np.full((len(values), len(FACTS)), -1, dtype=np.int64)
    rows[:, 0], rows[:, FACTS.index(attribute)] = kind, values
    return [caption(row) for row in rows]


def prompts(triples: NDArray[np.int64]) -> list[str]:
    """Returns one phrase for each (shape, colour, texture) row, such as `"a red striped star"`."""
    rows = np.full((len(triples), len(FACTS)), -1, dtype=np.int64)
    rows[:, 0] = 0
    rows[:, [FACTS.index(name) for name in ("shape", "colour", "texture")]] = triples
    return [caption(row) for row in rows]


def normalise(images: Tensor) -> Tensor:
    """Turns uint8 images `(N, 3, S, S)` into the image tower's float32 input."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return ((images.float() / 255 - mean) / std).contiguous(memory_format=torch.channels_last)
