"""Boxes follow what is done to their images."""

from __future__ import annotations

import pytest
import torch

from vimlight.backbone import Preprocessing
from vimlight.data.transforms import AUGMENTATIONS, Augmentation, frame_of, reframe
from vimlight.errors import DataError
from vimlight.tasks.box_layout import BOXES
from vimlight.tasks.targets import Frame


def objects(*boxes, labels=None, crowd=None):
    count = len(boxes)
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels or list(range(count)), dtype=torch.int64),
        "crowd": torch.tensor(crowd or [False] * count, dtype=torch.bool),
        "size": torch.tensor([40, 60]),
        "image": torch.tensor(0),
    }


def drawn(target, height, width):
    """One image a box, white inside."""
    images = torch.zeros(len(target["boxes"]), 3, height, width)
    for image, box in zip(images, target["boxes"], strict=True):
        left, top, right, bottom = (box * torch.tensor([width, height, width, height])).round().int().tolist()
        image[:, top:bottom, left:right] = 1
    return images


def found(images):
    """The extent of what is white, as fractions."""
    boxes = []
    for image in images:
        rows, columns = (image[0] > 0.5).nonzero(as_tuple=True)
        height, width = image.shape[1:]
        boxes.append([
            columns.min() / width, rows.min() / height, (columns.max() + 1) / width, (rows.max() + 1) / height
        ])  # fmt: skip
    return torch.tensor(boxes)


TWO = ((0.2, 0.25, 0.5, 0.75), (0.3, 0.1, 0.9, 0.6))


def prepared(crop_mode, crop_pct=1.0):
    """A preprocessing with a black margin, if any."""
    return Preprocessing((64, 80), (0.0,) * 3, (1.0,) * 3, "bilinear", crop_pct, crop_mode)


@pytest.mark.parametrize("crop_pct", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("old", [(40, 60), (200, 100), (63, 31)])
def test_boxes_are_resized_cropped_and_padded_as_their_images(crop_mode, crop_pct, old):
    target, preprocessing = objects(*TWO), prepared(crop_mode, crop_pct)
    frame = frame_of(old, preprocessing)
    moved = BOXES.fit([target], frame)[0]
    images = reframe(drawn(target, *old), frame, preprocessing)
    assert torch.allclose(moved["boxes"], found(images), atol=2 / 64)
    if (crop_mode, crop_pct) == ("squash", 1.0):
        assert torch.equal(moved["boxes"], target["boxes"])


def test_boxes_outside_the_crop_go_and_slivers_are_ignored():
    frame = Frame((40, 80), (40, 80), (0, 20), (40, 40))
    target = objects((0.0, 0, 0.2, 1), (0.1, 0, 0.3, 1), (0.4, 0.2, 0.6, 0.8), labels=[5, 6, 7])
    moved = BOXES.fit([target], frame)[0]
    assert moved["labels"].tolist() == [6, 7]
    assert moved["crowd"].tolist() == [False, False]
    assert torch.allclose(moved["boxes"], torch.tensor([[0, 0, 0.1, 1], [0.3, 0.2, 0.7, 0.8]]))
    nearly_gone = BOXES.fit([objects((0.0, 0, 0.27, 1))], frame)[0]
    assert nearly_gone["crowd"].tolist() == [True]
    assert target["crowd"].tolist() == [False] * 3


@pytest.mark.parametrize("name", ["light", "photo", "strong"])
def test_boxes_are_warped_as_their_images(name):
    augmentation, target = AUGMENTATIONS[name], objects(*TWO)
    # Without changes of light, so that white stays white.
    augmentation = Augmentation(**{**vars(augmentation), "light": 0.0})
    size = (96, 128)
    for seed in range(8):
        draws = torch.rand(1, 9, generator=torch.Generator().manual_seed(seed))
        images = augmentation(drawn(target, *size), draws.expand(2, -1))
        moved = BOXES.warp([target], augmentation.matrices(draws), size)[0]
        expected = found(images)
        # What is turned fills its box less than wholly; upright boxes fit.
        assert (moved["boxes"][:, :2] <= expected[:, :2] + 2 / 96).all()
        assert (moved["boxes"][:, 2:] >= expected[:, 2:] - 2 / 96).all()
        if not augmentation.turn:
            assert torch.allclose(moved["boxes"], expected, atol=2 / 96)


def test_a_mirror_is_exact_and_undoes_itself():
    mirror = torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]])
    once = BOXES.warp([objects(*TWO)], mirror, (32, 32))
    assert torch.allclose(once[0]["boxes"][0], torch.tensor([0.5, 0.25, 0.8, 0.75]))
    assert torch.allclose(BOXES.warp(once, mirror, (32, 32))[0]["boxes"], objects(*TWO)["boxes"], atol=1e-6)


def test_images_without_objects_stay_empty():
    nothing = objects()
    fitted = BOXES.fit([nothing], frame_of((40, 60), prepared("center", 0.9)))
    for moved in (fitted, BOXES.warp([nothing], torch.eye(3)[None, :2], (8, 8))):
        assert moved[0]["boxes"].shape == (0, 4)
        assert moved[0]["labels"].shape == (0,)


def test_classes_and_checks():
    batch = [objects((0, 0, 1, 1), (0, 0, 0.5, 0.5), labels=[2, 0], crowd=[True, False]), objects()]
    assert BOXES.classes(batch, 3).tolist() == [[1, 0, 0], [0, 0, 0]]
    BOXES.check(batch, 3)
    with pytest.raises(DataError, match="label 2 of a box is not among the 2 classes"):
        BOXES.check(batch, 2)
