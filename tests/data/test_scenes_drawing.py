"""Drawn scenes: reproducible, and every label can be read back from the pixels."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from vimlight.data.scenes import COLOURS, SHAPES, TEXTURES, Layout, draw_scenes
from vimlight.data.scenes.layout import sample_layout
from vimlight.data.scenes.scenes import render_scenes
from vimlight.errors import ConfigError, UnknownNameError

PALETTE = np.array(list(COLOURS.values()), dtype=np.float32)


def one_object(shape: str, *, angle: float = 0.0, count: int = 1, centre=(0.5, 0.5), radius=0.35) -> Layout:
    return Layout(
        count=np.full(count, 1),
        shape=np.full((count, 1), SHAPES.index(shape)),
        colour=np.zeros((count, 1), dtype=np.int64),
        texture=np.zeros((count, 1), dtype=np.int64),
        radius=np.full((count, 1), radius, dtype=np.float32),
        centre=np.full((count, 1, 2), centre, dtype=np.float32),
        angle=np.full((count, 1), angle, dtype=np.float32),
    )


def mask_of(layout: Layout, size: int = 64) -> np.ndarray:
    return render_scenes(layout, np.random.default_rng(0), size=size, difficulty=0.0).masks[0] > 0


def test_the_seed_decides_every_bit():
    first, again, other = (draw_scenes(40, seed, objects=(1, 4), alike=0.5) for seed in (5, 5, 6))
    assert np.array_equal(first.images, again.images)
    assert np.array_equal(first.masks, again.masks)
    assert first.captions(1) == again.captions(1)
    assert not np.array_equal(first.images, other.images)


@pytest.mark.parametrize("size", [32, 64, 96])
def test_images_and_masks_have_the_size_asked_for(size):
    scenes = draw_scenes(5, 0, size=size, objects=(2, 3))
    assert scenes.images.shape == (5, 3, size, size)
    assert scenes.images.dtype == np.uint8
    assert scenes.masks.shape == (5, size, size)
    assert scenes.masks.max() <= 3


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_circle_and_lies_where_the_label_says(shape):
    centre, radius = np.array((0.4, 0.6)), 0.3
    rows, columns = np.nonzero(mask_of(one_object(shape, centre=centre, radius=radius)))
    x, y = (columns + 0.5) / 64, (rows + 0.5) / 64
    reach = np.hypot(x - centre[0], y - centre[1]).max()
    assert 0.8 * radius < reach < radius + 1.5 / 64
    assert np.hypot(x.mean() - centre[0], y.mean() - centre[1]) < 0.3 * radius


@pytest.mark.parametrize("shape", SHAPES)
def test_the_angle_turns_anticlockwise(shape):
    upright, turned = mask_of(one_object(shape)), mask_of(one_object(shape, angle=90.0))
    assert (np.rot90(upright) != turned).mean() < 0.005


def test_no_two_shapes_are_alike():
    masks = np.stack([mask_of(one_object(shape)) for shape in SHAPES])
    overlap = np.array([[(a & b).sum() / (a | b).sum() for b in masks] for a in masks])
    assert (overlap - np.eye(len(SHAPES))).max() < 0.92


def test_the_colour_under_the_mask_is_the_label():
    scenes = draw_scenes(100, 1, difficulty=0.0, textures=["plain"])
    for image, mask, label in zip(scenes.images, scenes.masks, scenes.layout.colour[:, 0], strict=True):
        mean = image[:, mask == 1].mean(axis=1)
        assert np.linalg.norm(PALETTE - mean, axis=1).argmin() == label


def test_only_plain_objects_are_of_one_shade():
    scenes = draw_scenes(150, 2, difficulty=0.0)
    for image, mask, label in zip(scenes.images, scenes.masks, scenes.layout.texture[:, 0], strict=True):
        light = image[:, mask == 1].astype(int).sum(axis=0)
        dark = (light < 0.7 * np.quantile(light, 0.9)).mean()
        assert (dark < 0.1) == (TEXTURES[label] == "plain")


def test_later_slots_hide_earlier_ones():
    layout = replace(one_object("circle"), count=np.array([2]))
    layout = replace(
        layout,
        **{
            name: np.repeat(getattr(layout, name), 2, axis=1)
            for name in ("shape", "colour", "texture", "centre", "angle")
        },
        radius=np.array([[0.4, 0.2]], dtype=np.float32),
    )
    scenes = render_scenes(layout, np.random.default_rng(0), size=64, difficulty=0.0)
    assert scenes.masks[0, 32, 32] == 2
    assert scenes.masks[0, 32, 32 - 20] == 1
    assert scenes.depth.tolist() == [[1, 0]]


def test_every_object_that_is_counted_can_be_seen():
    scenes = draw_scenes(200, 3, objects=(1, 4), difficulty=0.0)
    visible = np.array([len(np.unique(mask[mask > 0])) for mask in scenes.masks])
    assert (visible == scenes.layout.count).mean() > 0.99
    assert set(visible) == {1, 2, 3, 4}
    assert (scenes.layout.shape[~scenes.layout.present] == -1).all()


def test_difficulty_brings_small_objects_turns_and_noise():
    easy, hard = (draw_scenes(200, 4, difficulty=value).layout for value in (0.0, 1.0))
    assert easy.radius.min() > hard.radius.min() + 0.1
    assert np.abs(easy.angle).max() <= 20 < np.abs(hard.angle).max()
    rough = [np.abs(np.diff(draw_scenes(50, 4, difficulty=d).images[:, 0, :6].astype(int))).mean() for d in (0.0, 1.0)]
    assert rough[1] > rough[0] + 3


def test_alike_objects_share_everything_but_place_and_angle():
    layout = draw_scenes(50, 5, objects=(3, 3), alike=1.0, size=16).layout
    for values in (layout.shape, layout.colour, layout.texture, layout.radius):
        assert (values == values[:, :1]).all()
    assert (layout.centre[:, 0] != layout.centre[:, 1]).any()


def test_only_the_given_compositions_are_drawn():
    allowed = np.array([(0, 1, 2), (3, 4, 1)])
    layout = draw_scenes(60, 6, objects=(1, 2), compositions=allowed, size=16).layout
    drawn = np.stack([values[layout.present] for values in (layout.shape, layout.colour, layout.texture)], axis=1)
    assert {tuple(row) for row in drawn.tolist()} == {(0, 1, 2), (3, 4, 1)}


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"shapes": ["strr"]}, UnknownNameError, "star"),
        ({"colours": ["rad"]}, UnknownNameError, "red"),
        ({"textures": ["stripes"]}, UnknownNameError, "striped"),
        ({"objects": (0, 1)}, ConfigError, "objects"),
        ({"difficulty": 1.5}, ConfigError, "difficulty"),
    ],
)
def test_mistakes_are_named(options, error, text):
    with pytest.raises(error, match=text):
        draw_scenes(1, 0, **options)


def test_the_global_random_state_is_left_alone():
    state = np.random.get_state()[1].copy()
    draw_scenes(3, 0)
    assert np.array_equal(state, np.random.get_state()[1])


def test_sizes_and_cells_follow_from_radius_and_centre():
    layout = sample_layout(500, np.random.default_rng(0), difficulty=1.0)
    assert set(layout.size.ravel()) == {0, 1, 2}
    assert layout.radius[layout.size == 0].max() < layout.radius[layout.size == 2].min()
    assert one_object("star", centre=(0.9, 0.1)).cell.item() == 2
    assert one_object("star", centre=(0.1, 0.9)).cell.item() == 6


@pytest.mark.slow
def test_thousands_of_scenes_a_second():
    draw_scenes(100, 0)
    started = time.process_time()
    draw_scenes(2000, 1)
    assert 2000 / (time.process_time() - started) > 1000
