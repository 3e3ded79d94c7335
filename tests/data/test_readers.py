"""One picture is the same pixels for every reader, and over the same background."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import Input, write_turned

from vimlight.data import DownstreamDataModule, load_source
from vimlight.errors import ConfigError, DataError, UnknownNameError
from vimlight.transmiter.cache.images import read_ahead
from vimlight.transmiter.models.image_text import ImageInput

UPRIGHT = np.kron(np.array([[0, 80], [160, 240], [40, 200]], np.uint8), np.ones((8, 8), np.uint8))
SIZE = UPRIGHT.shape


@pytest.fixture
def pictures(tmp_path):
    """A folder of one class with the same picture in several formats, and one that is half transparent."""
    folder = tmp_path / "pictures" / "a"
    write_turned(folder / "0.png", UPRIGHT, 1)
    write_turned(folder / "1.png", UPRIGHT, 6)
    write_turned(folder / "2.jpg", UPRIGHT, 8, quality=100)
    write_turned(folder / "3.tif", UPRIGHT, 5)
    write_turned(folder / "4.tif", (UPRIGHT / 255).astype(np.float32), 1)
    write_turned(folder / "5.png", UPRIGHT.astype(np.uint16) * 257, 3)
    half = np.stack([UPRIGHT] * 3 + [np.full_like(UPRIGHT, 102)], axis=2)
    write_turned(folder / "6.png", half, 7)
    return folder.parent


def folder(root):
    return load_source("image_folder", {"root": str(root)})


def manifest(root):
    lines = [f"pictures/a/{path.name},a" for path in sorted((root / "a").iterdir())]
    table = root.parent / "table.csv"
    table.write_text("\n".join(["path,label", *lines]) + "\n")
    return load_source("manifest", {"path": str(table)})


def saved_hub_set(root):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a"])})
    files = sorted(map(str, (root / "a").iterdir()))
    part = datasets.Dataset.from_dict({"image": files, "label": [0] * len(files)}, features=features)
    datasets.DatasetDict({"train": part}).save_to_disk(root.parent / "saved")
    return load_source("hf", {"path": str(root.parent / "saved")})


def torchvision_folder(root):
    return load_source("torchvision", {"name": "ImageFolder", "root": str(root)})


READERS = (folder, manifest, saved_hub_set, torchvision_folder)


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_gives_the_same_pixels(reader, pictures):
    table = reader(pictures).over("black").train
    expected = torch.from_numpy(UPRIGHT).int()
    for row in range(7):
        pixels = table.image(row)
        assert pixels.shape == (3, *SIZE)
        wanted = (expected * 0.4).round() if row == 6 else expected
        assert (pixels[0] - wanted).abs().max() <= 1


def test_a_cache_sees_the_same_pixels(pictures):
    table = folder(pictures).over("black").train
    plain = ImageInput(SIZE, (0.5,) * 3, (0.5,) * 3)
    batches = read_ahead(table, plain, range(7), batch_size=3, num_workers=0, device=torch.device("cpu"))
    assert torch.equal(torch.cat([batch["image"] for batch in batches]), torch.stack(table.images(range(7))))


@pytest.mark.parametrize("reader", READERS)
def test_what_has_no_known_white_is_named_by_every_reader(reader, pictures):
    Image.fromarray(np.full((4, 4), 1000, np.int32)).save(pictures / "a" / "4.tif")
    with pytest.raises(DataError, match=r"cannot read image .*4.*int32 numbers .* save it with 8 or 16 bits a channel"):
        reader(pictures).train.image(4)


@pytest.mark.parametrize(("colour", "grey"), [(None, 153), ("white", 153), ("#000000", 0)])
def test_the_data_module_chooses_the_background(pictures, colour, grey):
    options = {} if colour is None else {"background": colour}
    data = DownstreamDataModule(
        "image_folder", {"root": str(pictures)}, predict_folder=str(pictures), preprocessing=Input(SIZE), **options
    )
    found = {
        name: image for split in data.tables for batch in data.batches(split)
        for name, image in zip(batch["id"], batch["image"], strict=True)
    }  # fmt: skip
    clear = (found["a/6.png"][0, 0, 0] * 0.2 + 0.5) * 255
    assert clear == pytest.approx(grey, abs=1)
    assert data.predict_table.image(6)[0, 0, 0] == grey


def test_colours_that_do_not_exist_are_named():
    with pytest.raises(UnknownNameError, match="unknown colour 'blak'; did you mean 'black'"):
        DownstreamDataModule("digits", background="blak")
    with pytest.raises(ConfigError, match="'#12' is no opaque colour"):
        DownstreamDataModule("digits", background="#12")


def test_images_of_a_hub_set_that_are_no_images_are_named(pictures):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({
        "image": datasets.Image(), "grid": datasets.Array2D((2, 2), "uint8"), "label": datasets.ClassLabel(names=["a"]),
    })  # fmt: skip
    rows = {"image": [None], "grid": [[[0, 1], [2, 3]]], "label": [0]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(rows, features=features)}).save_to_disk(pictures / "hub")
    for column, text in (("image", "it is missing, not an image"), ("grid", "it is a list, not an image")):
        with pytest.raises(DataError, match=text):
            load_source("hf", {"path": str(pictures / "hub"), "image_column": column}).train.image(0)
