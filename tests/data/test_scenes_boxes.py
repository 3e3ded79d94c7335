"""Boxes of drawn objects."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vimlight.data.scenes import SHAPES, draw_scenes
from vimlight.data.scenes.boxes import extents, scene_boxes


@pytest.fixture(scope="module")
def scenes():
    return draw_scenes(40, 3, size=48, objects=(1, 4), difficulty=0.5)


def test_extents_are_those_of_the_masks(scenes):
    found = extents(scenes.masks, 4)
    for image in range(40):
        for slot in range(4):
            rows, columns = np.nonzero(scenes.masks[image] == slot + 1)
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0] * 4
            assert found[image, slot].tolist() == expected


def test_every_visible_object_has_its_box_and_class(scenes):
    names = tuple(reversed(SHAPES))
    targets = scene_boxes(scenes, names)
    for image in range(40):
        visible = [slot for slot in range(4) if (scenes.masks[image] == slot + 1).any()]
        target = targets[image]
        assert [names[label] for label in target["labels"]] == [SHAPES[s] for s in scenes.layout.shape[image, visible]]
        assert target["size"].tolist() == [48, 48]
        assert not target["crowd"].any()
        assert torch.equal(target["boxes"] * 48, torch.from_numpy(extents(scenes.masks, 4)[image, visible]).float())


def test_boxes_agree_with_the_layout(scenes):
    """An object that is not occluded lies inside the circle around it, and covers a good part of that."""
    targets = scene_boxes(scenes, SHAPES)
    for image in np.flatnonzero(scenes.layout.count == 1):
        left, top, right, bottom = targets[int(image)]["boxes"][0].tolist()
        (x, y), radius = scenes.layout.centre[image, 0], scenes.layout.radius[image, 0]
        slack = 1 / 48
        assert max(x - radius, 0) - slack <= left < right <= min(x + radius, 1) + slack
        assert max(y - radius, 0) - slack <= top < bottom <= min(y + radius, 1) + slack
        assert max(right - left, bottom - top) > 0.8 * radius


def test_a_hidden_object_has_no_box(scenes):
    scenes.masks[0][scenes.masks[0] == 1] = 0
    hidden = scene_boxes(scenes, SHAPES)[0]
    assert len(hidden["labels"]) == len(np.unique(scenes.masks[0])) - 1
