"""Images become a model's input to the pixel as timm prepares them, for every pretrained model that it knows."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import PIL
import pytest
import timm
import timm.data
import torch
from PIL import Image

from vimlight.backbone import Preprocessing, create_backbone
from vimlight.data.loading import BatchDataset
from vimlight.data.tables import FileTable
from vimlight.data.transforms import fit
from vimlight.errors import BackboneError, UnknownNameError

# Height and width: square, wide, tall and barely no square, odd and even, smaller and larger than most inputs.
SIZES = [(64, 64), (97, 301), (301, 98), (120, 121), (427, 640), (513, 200)]
# Before Pillow 13 images higher than wide were resized in another order, which shows where overshoot is cut off.
VALUES = (0, 256) if int(PIL.__version__.split(".")[0]) >= 13 else (48, 208)
MODES = {
    "center": {"input_size": (3, 64, 64), "crop_pct": 0.875},
    "center, no square": {"input_size": (3, 48, 65), "crop_pct": 0.9},
    "center, black margin": {"input_size": (3, 61, 61), "crop_pct": 1.15},
    "squash": {"input_size": (3, 64, 64), "crop_pct": 0.95, "crop_mode": "squash"},
    "squash, no square": {"input_size": (3, 64, 48), "crop_pct": 1.0, "crop_mode": "squash"},
    "border": {"input_size": (3, 64, 64), "crop_pct": 1.0, "crop_mode": "border"},
    "border, cropped": {"input_size": (3, 48, 65), "crop_pct": 0.8, "crop_mode": "border"},
    "border, wide margin": {"input_size": (3, 64, 64), "crop_pct": 1.2, "crop_mode": "border"},
}


def distinct():
    """Whatever decides on the pixels of a pretrained model, by one of the tags that have it."""
    tags = {}
    for tag in timm.list_pretrained():
        config = timm.data.resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(tag).to_dict())
        margin = config["mean"] if config["crop_mode"] == "border" else None
        key = (*(config[name] for name in ("input_size", "interpolation", "crop_pct", "crop_mode")), margin)
        tags.setdefault(key, (tag, config))
    return dict(tags.values())


CONFIGS = distinct()
SMALL = [tag for tag, config in CONFIGS.items() if max(config["input_size"]) <= 320]


def noise(height, width):
    """The hardest case: every interpolation overshoots, and a shift by a fraction of a pixel shows."""
    return np.random.default_rng(height * 1000 + width).integers(*VALUES, (height, width, 3), dtype=np.uint8)


def preprocessing_of(config):
    return Preprocessing.of(SimpleNamespace(pretrained_cfg=config))


def by_timm(image, config):
    return timm.data.create_transform(**config, is_training=False, normalize=False)(image)


def check(config, size):
    pixels = noise(*size)
    found = fit(torch.from_numpy(pixels).permute(2, 0, 1)[None], preprocessing_of(config))[0]
    expected = by_timm(Image.fromarray(pixels), config)
    assert found.shape == expected.shape
    assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.parametrize("tag", SMALL)
def test_pixels_of_pretrained_models(tag):
    check(CONFIGS[tag], SIZES[SMALL.index(tag) % len(SIZES)])


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_pixels_of_every_pretrained_model(size):
    for config in CONFIGS.values():
        check(config, size)


def config_of(mode, interpolation="bicubic"):
    return timm.data.resolve_data_config({"mean": (0.48, 0.4, 0.1), "interpolation": interpolation, **MODES[mode]})


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_pixels_of_every_mode(mode, interpolation):
    for size in [*SIZES[:4], (1, 1), (2, 90), (61, 61), (200, 64)]:
        check(config_of(mode, interpolation), size)


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_the_nearest(mode):
    # Where a new pixel's middle is the border of two old ones, any choice is right.
    for size in [(97, 301), (113, 127)]:
        check(config_of(mode, "nearest"), size)


@pytest.mark.parametrize("mode", MODES)
def test_files_become_the_same_pixels(mode, tmp_path):
    config, sizes = config_of(mode), SIZES[1:4]
    files = [tmp_path / f"{number}.png" for number in range(len(sizes))]
    for file, size in zip(files, sizes, strict=True):
        Image.fromarray(noise(*size)).save(file)
    table = FileTable(files, torch.zeros(len(files), dtype=torch.long), tmp_path)
    batch = BatchDataset(table, preprocessing_of(config)).__getitems__(range(len(files)))
    for file, found in zip(files, batch["image"], strict=True):
        expected = by_timm(Image.open(file), config)
        assert (found.int() - expected.int()).abs().max() <= 2


@pytest.mark.cuda
@pytest.mark.parametrize("mode", MODES)
def test_pixels_on_a_gpu(mode):
    config = config_of(mode)
    for size in SIZES:
        images = torch.from_numpy(noise(*size)).permute(2, 0, 1)[None]
        found = fit(images.cuda(), preprocessing_of(config)).cpu()
        assert (found.int() - fit(images, preprocessing_of(config)).int()).abs().max() <= 1


def test_every_field_comes_from_timm():
    for config in CONFIGS.values():
        fields = preprocessing_of(config).as_dict()
        assert (3, *fields.pop("size")) == config["input_size"]
        assert fields == {name: config[name] for name in fields}


def test_what_is_not_supported_is_refused():
    overlay = {"interpolation": "lanczos"}
    with pytest.raises(BackboneError, match=r"unknown interpolation 'lanczos'; valid: .*set another one in pretrained"):
        create_backbone("test_vit", pretrained_cfg_overlay=overlay)
    with pytest.raises(BackboneError, match="unknown crop_mode 'sqash'; did you mean 'squash'"):
        create_backbone("test_vit", pretrained_cfg_overlay={"crop_mode": "sqash"})
    with pytest.raises(UnknownNameError, match="unknown crop_mode 'pad'"):
        Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3, crop_mode="pad")
    with pytest.raises(BackboneError, match="crop_pct must be above 0, got 0"):
        Preprocessing((8, 8), (0.5,) * 3, (0.5,) * 3, crop_pct=0)
