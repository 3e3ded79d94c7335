"""Targets that were drawn on an image of another size or orientation are refused where they meet it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import TURNS, Input, write_turned
from tiny_sources import ARGUMENTS, WITH_TARGETS_IN_IMAGES

from vimlight.data import MidstreamDataModule, TensorTable, load_source
from vimlight.data.extents import check_extent
from vimlight.data.loading import BatchDataset
from vimlight.errors import DataError
from vimlight.tasks import TASKS
from vimlight.tasks.targets import TargetLayout

SPATIAL = [kind for kind in TASKS if TASKS[kind].layout.spatial]


def target_of(layout, size):
    """Returns a target that was drawn on an image of some size."""
    about = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0).long(), "crowd": torch.zeros(0).bool()}
    drawn = {
        "boxes": {**about, "size": torch.tensor(size), "image": torch.tensor(0)},
        "masks of classes": torch.zeros(size, dtype=torch.uint8),
        "maps of real numbers": torch.zeros(size),
    }
    return drawn[layout.name]


@pytest.fixture(params=WITH_TARGETS_IN_IMAGES)
def opened(request, flowers):
    """A source's name and arguments, and the file of its first image."""
    arguments = ARGUMENTS[request.param](flowers)
    return request.param, arguments, Path(load_source(request.param, arguments).train.place(0))


def size_in_batch(name, arguments, file, **options):
    """Reads the whole data set, and returns the size that the image has in its batch."""
    data = MidstreamDataModule(name, arguments, preprocessing=Input(), val_fraction=0.4, **options)
    sizes = {
        batch["id"][row]: tuple(batch["size"][row].tolist())
        for split in data.tables for batch in data.batches(split) for row in range(len(batch["id"]))
    }  # fmt: skip
    return sizes.get(load_source(name, arguments).train.ids[0])


def pixels_of(file):
    with Image.open(file) as image:
        return np.array(image)


def test_an_image_of_another_size_is_refused_and_may_be_left_out(opened):
    file = opened[2]
    height, width = pixels_of(file).shape[:2]
    Image.new("RGB", (width + 3, height)).save(file)
    said = rf"image {file} has {width + 3} x {height} pixels, but its .* {width} x {height}; make both one size"
    with pytest.raises(DataError, match=said):
        size_in_batch(*opened)
    with pytest.warns(UserWarning, match=f"skipped 1 of .*; the first: image {file} has"):
        assert size_in_batch(*opened, skip_corrupt=True) is None


def test_targets_drawn_on_the_upright_image_are_right(opened):
    pixels = pixels_of(opened[2])
    write_turned(opened[2], pixels, 6)
    assert size_in_batch(*opened) == pixels.shape[:2]


@pytest.mark.parametrize("tag", sorted(set(TURNS) - {1}))
def test_targets_drawn_on_the_stored_pixels_are_refused(opened, tag):
    pixels, exif = pixels_of(opened[2]), Image.Exif()
    exif[0x0112] = tag
    Image.fromarray(pixels).save(opened[2], exif=exif)
    height, width = pixels.shape[:2]
    stored, turned = f"{width} x {height}", f"{height} x {width}"
    upright, told = (turned, "it fits the stored pixels") if tag > 4 else (stored, "nothing tells")
    said = rf"tag {tag}: {upright} pixels upright, {stored} as stored; its .* {stored}: {told}.* without the tag"
    with pytest.raises(DataError, match=said):
        size_in_batch(*opened)


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize("tag", sorted(set(TURNS) - {1}))
def test_a_square_image_does_not_tell_what_was_turned(kind, tag):
    layout = TASKS[kind].layout
    image, target = torch.zeros(3, 8, 8), target_of(layout, (8, 8))
    check_extent("x", image, 1, target, layout)
    with pytest.raises(DataError, match=f"image x has the orientation tag {tag}: .* nothing tells on which it was"):
        check_extent("x", image, tag, target, layout)


@pytest.mark.parametrize("kind", SPATIAL)
@pytest.mark.parametrize("size", [(16, 16), (4, 4), (8, 6), (6, 8)])
def test_images_in_memory_are_compared_too(kind, size):
    layout = TASKS[kind].layout
    table = TensorTable(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), [target_of(layout, size)] * 2, "grey")
    with pytest.raises(DataError, match=rf"image grey/0 has 8 x 8 pixels, but its .* {size[1]} x {size[0]}"):
        BatchDataset(table, Input(), layout)[0]


class Points(TargetLayout):
    """Points in the image, which do not say how large it is."""

    name, spatial = "point", True


def test_a_target_that_says_no_size_is_taken_unless_its_image_was_turned():
    point, image = torch.tensor([0.5, 0.25]), torch.zeros(3, 8, 6)
    check_extent("a.jpg", image, 1, point, Points())
    with pytest.raises(DataError, match=r"6 x 8 pixels upright, 8 x 6 as stored; its target says no size: nothing"):
        check_extent("a.jpg", image, 6, point, Points())
