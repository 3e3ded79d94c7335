"""Named tasks over drawn images."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vimlight.data.scenes import BACKGROUND_DISTANCE, SCENE_TASKS, SHAPES, distances, make_task
from vimlight.data.scenes.layout import sample_layout
from vimlight.data.scenes.scenes import render_scenes
from vimlight.data.scenes.spatial_tasks import _nearest_last
from vimlight.data.scenes.tasks import _sample_relations
from vimlight.errors import UnknownNameError
from vimlight.tasks import TASKS

CLASSIFICATION = [name for name, task in SCENE_TASKS.items() if task.kind in ("classification", "ordinal")]
# Of one target; none stands for the number of classes.
SHAPES_BY_KIND = {
    "multilabel": ((None,), torch.float32),
    "regression": ((None,), torch.float32),
    "segmentation": ((32, 32), torch.uint8),
    "depth": ((32, 32), torch.float32),
}


@pytest.mark.parametrize("name", SCENE_TASKS)
def test_a_task_is_reproducible_and_well_formed(name):
    images, targets, classes, kind = make_task(name, 20, 7, size=32)
    again = make_task(name, 20, 7, size=32)
    assert images.shape == (20, 3, 32, 32)
    assert images.dtype == torch.uint8
    assert torch.equal(images, again[0])
    assert kind in TASKS
    assert len(targets) == len(again[1]) == 20
    if isinstance(targets, torch.Tensor):
        assert torch.equal(targets, again[1])
        shape, dtype = SHAPES_BY_KIND.get(kind, ((), torch.int64))
        assert targets.shape == (20, *(len(classes) if size is None else size for size in shape))
        assert targets.dtype == dtype
    assert not torch.equal(images, make_task(name, 20, 8, size=32)[0])


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_every_class_occurs_about_equally_often(name):
    _, targets, classes, _ = make_task(name, 60 * len(SCENE_TASKS[name].class_names), 0, size=8)
    counts = torch.bincount(targets, minlength=len(classes))
    assert len(counts) == len(classes)
    assert counts.min() > 25
    assert counts.max() < 110


def test_multilabel_targets_name_colours_and_shapes():
    _, targets, classes, _ = make_task("attributes", 300, 0, size=8)
    colours, shapes = targets[:, :10].sum(dim=1), targets[:, 10:].sum(dim=1)
    assert len(classes) == targets.shape[1] == 22
    assert set(targets.unique().tolist()) == {0.0, 1.0}
    for sums in (colours, shapes):
        assert sums.min() >= 1
        assert sums.max() <= 3


def test_downstream_classes_are_new_or_asked_in_a_new_way():
    midstream = {name for task in SCENE_TASKS.values() if task.stage == "midstream" for name in task.class_names}
    for name in ("lowercase", "numerals", "relations"):
        assert SCENE_TASKS[name].stage == "downstream"
        assert not midstream & set(SCENE_TASKS[name].class_names)
    assert set(SCENE_TASKS["odd_shapes"].class_names) - midstream == {"crescent", "arrow", "drop", "gear"}


def test_tasks_of_one_seed_share_no_images():
    first, second = (make_task(name, 10, 0)[0].float() for name in ("shapes", "textures"))
    assert (first - second).abs().mean(dim=(1, 2, 3)).min() > 5


def test_the_relation_is_the_one_drawn():
    layout, relation = _sample_relations(200, np.random.default_rng(0), 0.5)
    x, y = np.moveaxis(layout.centre[:, 0] - layout.centre[:, 1], -1, 0)
    assert {SHAPES[shape] for shape in layout.shape[:, 0]} == {"circle", "ellipse", "ring"}
    assert not set(layout.shape[:, 0]) & set(layout.shape[:, 1])
    seen = np.where(np.abs(x) > np.abs(y), np.where(x < 0, 0, 1), np.where(y < 0, 2, 3))
    assert np.array_equal(seen, relation)
    assert (np.hypot(x, y) > 0.9 * layout.radius.sum(axis=1)).all()
    assert (np.abs(layout.centre - 0.5) + layout.radius[..., None] < 0.53).all()


@pytest.mark.parametrize("name", ["segments", "odd_segments"])
def test_masks_show_the_classes_that_are_drawn(name):
    _, masks, classes, _ = make_task(name, 200, 0, size=48)
    assert classes[0] == "background"
    assert masks.unique().tolist() == list(range(len(classes)))
    assert 0.3 < (masks == 0).float().mean() < 0.95


def test_what_looks_half_as_large_is_twice_as_far_away():
    layout = sample_layout(60, np.random.default_rng(0), objects=(2, 3))
    scenes = render_scenes(layout, np.random.default_rng(1), size=64, difficulty=0.2)
    depth = distances(scenes)
    assert (depth[scenes.masks == 0] == BACKGROUND_DISTANCE).all()
    for slot in range(3):
        mine = scenes.masks == slot + 1
        radius = np.broadcast_to(layout.radius[:, slot, None, None], mine.shape)[mine]
        np.testing.assert_allclose(depth[mine] * radius, 0.5, rtol=1e-5)
        assert depth[mine].max() < BACKGROUND_DISTANCE


def test_nearer_objects_lie_in_front():
    layout = _nearest_last(sample_layout(100, np.random.default_rng(0), objects=(1, 4)))
    assert (np.diff(layout.radius, axis=1)[layout.present[:, 1:]] >= 0).all()
    assert (layout.shape[layout.present] >= 0).all()
    assert (layout.shape[~layout.present] == -1).all()


def test_geometry_is_that_of_the_drawing():
    images, numbers, names, _ = make_task("geometry", 80, 3, size=64, difficulty=0.0)
    assert names == ("across", "down", "radius")
    # Drawn plainly, what differs from the border's colour is the object.
    grey = images.float().mean(dim=1)
    border = torch.cat([grey[:, 0], grey[:, -1], grey[:, :, 0], grey[:, :, -1]], dim=1).median(dim=1).values
    inside = (grey - border[:, None, None]).abs() > 25
    columns = (inside.sum(dim=1) * (torch.arange(64) + 0.5)).sum(dim=1) / inside.sum(dim=(1, 2)) / 64
    good = inside.float().mean(dim=(1, 2)) > 0.02
    assert torch.corrcoef(torch.stack([columns[good], numbers[good, 0]]))[0, 1] > 0.9


def test_an_unknown_task_is_named():
    with pytest.raises(UnknownNameError, match="letters"):
        make_task("leters", 1, 0)
