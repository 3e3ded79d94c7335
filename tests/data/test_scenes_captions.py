"""Captions: true of their images, and of no image that contradicts them."""

from __future__ import annotations

import numpy as np
import pytest

from vimlight.data.scenes import COLOURS, SHAPES, draw_glyphs, draw_scenes
from vimlight.data.scenes.captions import FACTS, caption, captions, is_true, mention


def mentions(**facts: int) -> np.ndarray:
    return np.array([facts.get(name, -1) for name in FACTS])


@pytest.mark.parametrize(
    ("facts", "sentence"),
    [
        ({"kind": 0, "shape": 7}, "a star"),
        ({"kind": 0, "shape": 7, "colour": 1}, "an orange star"),
        (
            {"kind": 0, "size": 2, "colour": 0, "texture": 1, "shape": 7, "cell": 0},
            "a large red striped star at the top left",
        ),
        ({"kind": 0, "texture": 2}, "a dotted object"),
        ({"kind": 1, "count": 2, "size": 0, "colour": 5, "shape": 8}, "two small blue crosses"),
        (
            {"kind": 2, "count": 2, "shape": 0, "colour": 0, "other_shape": 1, "other_colour": 1},
            "a red circle and an orange ellipse",
        ),
        ({"kind": 3, "count": 3}, "three objects"),
        ({"kind": 4, "glyph": ord("K"), "colour": 3}, "a green capital letter K"),
        ({"kind": 4, "glyph": ord("k")}, "a small letter k"),
        ({"kind": 4, "glyph": ord("7")}, "a digit seven"),
        ({"kind": 4, "cell": 4}, "a character at the centre"),
    ],
)
def test_facts_become_sentences(facts, sentence):
    assert caption(mentions(**facts)) == sentence


def test_captions_name_what_is_in_the_image():
    scenes = draw_scenes(60, 0, size=16)
    for text, shape, colour in zip(
        scenes.captions(detail=1.0), scenes.layout.shape[:, 0], scenes.layout.colour[:, 0], strict=True
    ):
        assert SHAPES[shape] in text
        assert not {word for word in COLOURS if word in text.split()} - {list(COLOURS)[colour]}
    assert len(set(scenes.captions(1))) > 50


def test_wording_varies_with_the_seed():
    scenes = draw_scenes(30, 0, size=16)
    assert scenes.captions(1) == scenes.captions(1)
    assert scenes.captions(1) != scenes.captions(2)


@pytest.mark.parametrize("batch", [draw_scenes(80, 1, size=16, objects=(1, 4), alike=0.5), draw_glyphs(80, 1, size=16)])
def test_a_caption_is_true_of_its_own_image(batch):
    said = mention(batch.facts, np.random.default_rng(0))
    assert is_true(said, batch.facts).diagonal().all()
    assert len(captions(said, np.random.default_rng(0))) == 80


def test_a_caption_is_true_exactly_where_all_it_says_holds():
    facts = np.stack([mentions(kind=0, shape=s, colour=c) for s, c in ((1, 1), (1, 2), (2, 2))])
    said = np.stack([mentions(kind=0, shape=1), mentions(kind=0, colour=2), mentions(kind=0, shape=2, colour=1)])
    assert is_true(said, facts).tolist() == [[True, False, False], [True, True, False], [False, True, False]]
