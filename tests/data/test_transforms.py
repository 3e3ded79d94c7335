from __future__ import annotations

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from tiny_data import Input

from vimlight.backbone import Preprocessing
from vimlight.data.transforms import AUGMENTATIONS, Augmentation, augmentation, fit, normalise
from vimlight.errors import UnknownNameError


def smooth_image(height, width):
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("crop_pct", [1.0, 0.875])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shape", [(90, 120), (70, 50), (30, 40)])
def test_fit_agrees_with_timm(shape, interpolation, crop_pct):
    pixels = smooth_image(*shape)
    spec = Input((48, 48), interpolation=interpolation, crop_pct=crop_pct)
    reference = timm.data.create_transform(
        (3, 48, 48), interpolation=interpolation, crop_pct=crop_pct, mean=spec.mean, std=spec.std
    )(Image.fromarray(pixels))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    ours = normalise(fit(image.float() / 255, spec), spec)[0]
    assert (ours - reference).abs().mean() < 0.02
    assert fit(image, spec).dtype == torch.uint8


@pytest.mark.parametrize("shape", [(8, 8), (33, 20), (16, 24), (7, 100)])
def test_fit_covers_rectangular_inputs(shape):
    images = torch.full((2, 3, *shape), 9, dtype=torch.uint8)
    fitted = fit(images, Input((16, 24), crop_pct=0.9))
    assert fitted.shape == (2, 3, 16, 24)
    assert (fitted == 9).all()


def test_the_backbone_s_own_preprocessing_fits():
    spec = Preprocessing((8, 12), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    images = normalise(fit(torch.ones(1, 3, 5, 5), spec), spec)
    assert images.shape == (1, 3, 8, 12)
    assert torch.allclose(images, torch.ones_like(images), atol=1e-5)


def test_normalise_follows_the_formula():
    spec = Input()
    images = torch.rand(2, 3, 4, 4)
    assert torch.allclose(normalise(images, spec)[:, 2], (images[:, 2] - 0.3) / 0.3)


def test_an_augmentation_without_ranges_changes_nothing():
    images = torch.rand(3, 3, 16, 16)
    assert torch.allclose(Augmentation()(images, torch.rand(3, Augmentation.DRAWS)), images, atol=1e-5)


def test_a_flip_mirrors_left_to_right():
    images = torch.rand(2, 3, 8, 8)
    draws = torch.full((2, Augmentation.DRAWS), 0.5)
    draws[0, 5] = 0.1
    flipped = Augmentation(flip=True)(images, draws)
    assert torch.allclose(flipped[0], images[0].flip(-1), atol=1e-5)
    assert torch.allclose(flipped[1], images[1], atol=1e-5)


def test_a_shift_moves_by_its_share_of_the_side():
    image = torch.zeros(1, 3, 16, 16)
    image[:, :, 8, 8] = 1
    draws = torch.full((1, Augmentation.DRAWS), 0.5)
    draws[0, 1] = 1.0
    moved = Augmentation(shift=0.25)(image, draws)
    assert (moved[0, 0] > 0.9).nonzero().tolist() == [[8, 4]]


def test_light_follows_its_definition():
    images = 0.3 + 0.4 * torch.rand(2, 3, 8, 8)
    draws = torch.full((2, Augmentation.DRAWS), 0.5)
    draws[0, 6:9] = torch.tensor([0.75, 0.25, 0.9])
    changed = Augmentation(light=0.2)(images, draws)
    bright = images[0] * 1.1
    contrasted = bright.mean() + 0.9 * (bright - bright.mean())
    grey = contrasted.mean(dim=0)
    assert torch.allclose(changed[0], grey + 1.16 * (contrasted - grey), atol=1e-5)
    assert torch.allclose(changed[1], images[1], atol=1e-5)


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "none"])
def test_each_image_is_changed_in_its_own_way(name, untouched_rng):
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(1, 3, 16, 16, generator=generator).expand(4, -1, -1, -1)
    draws = torch.rand(4, Augmentation.DRAWS, generator=generator)
    changed = augmentation(name)(images, draws)
    assert 0 <= changed.min() <= changed.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 4
    alone = augmentation(name)(images[2:3], draws[2:3])
    assert torch.allclose(alone[0], changed[2], atol=1e-6)


def test_an_unknown_augmentation_is_named():
    with pytest.raises(UnknownNameError, match=r"unknown augmentation 'lihgt'; did you mean 'light'"):
        augmentation("lihgt")
