"""Layouts of targets: they follow their images."""

from __future__ import annotations

import pytest
import torch

from vimlight.backbone import Preprocessing
from vimlight.data.transforms import AUGMENTATIONS, Augmentation, frame_of, reframe
from vimlight.errors import DataError
from vimlight.tasks.targets import FIELDS, FLAGS, IGNORE, LABELS, MASKS, NUMBERS

WAYS = {"center": 0.9, "squash": 1.0, "border": 1.0, "squash, less": 0.8, "border, less": 0.8, "border, wide": 1.1}


def prepared(way):
    """The preprocessing of one of the ways above."""
    return Preprocessing((24, 32), (0.5,) * 3, (0.2,) * 3, "bilinear", WAYS[way], way.split(",")[0])


def discs(count=6, size=(60, 60)):
    """Masks of a disc each, and images that are white inside of it and black elsewhere."""
    rows, columns = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    masks = torch.stack([(rows - 20 - 3 * n) ** 2 + (columns - 24 - 2 * n) ** 2 < 200 for n in range(count)])
    return masks[:, None].expand(-1, 3, -1, -1).float(), masks.to(torch.uint8)


def agreement(images, masks):
    known = masks != IGNORE
    assert known.float().mean() > 0.2
    return ((images[:, 0] > 0.5) == (masks == 1))[known].float().mean()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(60, 60), (50, 90), (17, 23), (90, 41)])
def test_masks_are_resized_cropped_and_padded_with_their_images(size, way):
    images, masks = discs(size=size)
    frame = frame_of(size, prepared(way))
    moved = MASKS.fit(masks, frame)
    assert (moved.shape, moved.dtype) == ((6, 24, 32), torch.uint8)
    assert agreement(reframe(images, frame, prepared(way)), moved) > 0.95
    field = FIELDS.fit(masks.float(), frame)
    assert torch.equal(field.isnan(), moved == IGNORE)
    assert torch.equal(field.nan_to_num(IGNORE).byte(), moved)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [(60, 61), (50, 90), (90, 41)])
def test_the_margin_of_a_mask_is_that_of_its_image(size, way):
    frame = frame_of(size, prepared(way))
    margin = reframe(torch.ones(1, 3, *size), frame, prepared(way))[0, 0] < 0.9
    assert margin.any() == (frame.resized[0] < 24 or frame.resized[1] < 32)
    assert torch.equal(MASKS.fit(torch.zeros(1, *size, dtype=torch.uint8), frame)[0] == IGNORE, margin)


@pytest.mark.parametrize("name", [name for name, change in AUGMENTATIONS.items() if change])
def test_masks_are_warped_with_their_images(name):
    images, masks = discs()
    augmentation = Augmentation(**{**vars(AUGMENTATIONS[name]), "light": 0.0})
    draws = torch.rand(6, Augmentation.DRAWS)
    moved = MASKS.warp(masks, augmentation.matrices(draws), (60, 60))
    assert not torch.equal(moved, masks)
    assert agreement(augmentation(images, draws), moved) > 0.97


def test_what_comes_from_outside_is_unknown():
    shifted = torch.eye(2, 3).repeat(2, 1, 1)
    shifted[:, 0, 2] = 1.0  # half an image to the right
    masks = MASKS.warp(torch.ones(2, 8, 8, dtype=torch.uint8), shifted, (8, 8))
    assert (masks[:, :, :4] == 1).all()
    assert (masks[:, :, 4:] == IGNORE).all()
    fields = FIELDS.warp(torch.arange(8.0).expand(2, 8, 8), shifted, (8, 8))
    assert torch.equal(fields[0, 0, :4], torch.arange(4.0, 8.0))
    assert fields[:, :, 4:].isnan().all()


def test_unknown_depth_stays_unknown():
    field = torch.rand(1, 20, 30)
    field[0, 5:9] = float("nan")
    for way in WAYS:
        frame = frame_of((20, 30), prepared(way))
        moved = FIELDS.fit(field, frame)
        assert set(moved[moved.isfinite()].tolist()) <= set(field[field.isfinite()].tolist())
        assert moved.isnan().any()


def test_what_does_not_lie_in_the_image_stays():
    for layout in (LABELS, FLAGS, NUMBERS):
        target = torch.rand(3, 2)
        assert not layout.spatial
        assert layout.fit(target, frame_of((9, 9), prepared("border"))) is target
        assert layout.warp(target, torch.eye(2, 3).repeat(3, 1, 1), (9, 9)) is target


def test_few_shot_samples_go_by_the_classes_shown():
    masks = torch.zeros(3, 4, 4, dtype=torch.uint8)
    masks[1, 0, 0], masks[2, 1, 1] = 2, IGNORE
    expected = [[1, 0, 0], [1, 0, 1], [1, 0, 0]]
    assert MASKS.classes(masks, 3).tolist() == MASKS.classes(list(masks), 3).tolist() == expected
    assert NUMBERS.classes(torch.rand(3, 1), 1) is FIELDS.classes(torch.rand(3, 2, 2), 0) is None


@pytest.mark.parametrize(
    ("layout", "targets", "text"),
    [
        (LABELS, torch.tensor([0, 3]), "label 3 is not among the 3 classes"),
        (LABELS, torch.tensor([0, -1]), "label -1 is not among the 3 classes"),
        (FLAGS, torch.zeros(2, 4), r"the targets are \(2, 4\), expected \(N, 3\), one column a class"),
        (NUMBERS, torch.zeros(2), r"the targets are \(2,\), expected \(N, 3\), one column a number"),
        (NUMBERS, torch.full((2, 3), float("inf")), "a target is not a finite number"),
        (MASKS, torch.full((2, 4, 4), 7, dtype=torch.uint8), r"the value 7, which is not among the 3 classes"),
        (MASKS, torch.zeros(2, 4, 4), "masks must be uint8, got torch.float32"),
    ],
)
def test_wrong_targets(layout, targets, text):
    with pytest.raises(DataError, match=text):
        layout.check(targets, 3)
