"""Masks and maps of numbers in files: mask folders, VOC's folders, depth folders, and numbers in a manifest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import Input, png, write_image

from vimlight.data import DownstreamDataModule, FieldFiles, MaskFiles, MidstreamDataModule, load_source
from vimlight.errors import ConfigError, DataError

CLASSES = ["sky", "road", "tree"]


def write_mask(path, values, size=(20, 12), mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    for number, value in enumerate(values):
        mask[:, number * size[0] // len(values) :] = value
    image = Image.fromarray(mask)
    if mode == "P":
        image.putpalette(list(range(256)) * 3)
    image.save(path)
    return path


@pytest.fixture
def streets(tmp_path):
    """Nine images of unlike sizes with masks; the tree is in three of them."""
    root = tmp_path / "streets"
    for index in range(9):
        size = (20 + index, 14)
        write_image(root / "images" / f"{index}.jpg", size, seed=index)
        write_mask(root / "masks" / f"{index}.png", (0, 1, 2 if index < 3 else 255), size, "P" if index % 2 else "L")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def module(root, stage=MidstreamDataModule, dataset="mask_folder", **options):
    return stage(dataset, {"root": str(root)}, preprocessing=Input(), **options)


def test_a_folder_of_masks(streets):
    source = load_source("mask_folder", {"root": str(streets)})
    assert (source.kind, list(source.class_names), len(source.train)) == ("segmentation", CLASSES, 9)
    mask = source.train.targets[1]
    assert (mask.shape, mask.dtype) == ((14, 21), torch.uint8)
    assert mask.unique().tolist() == [0, 1, 2]
    assert source.train.targets[8].unique().tolist() == [0, 1, 255]


@pytest.mark.parametrize("form", ["{split}/images", "images/{split}"])
def test_folders_of_masks_with_splits(tmp_path, form):
    for split in ("train", "valid", "test"):
        for index in range(2):
            for kind, write in (("images", write_image), ("masks", lambda path: write_mask(path, (0, 1)))):
                folder = form.format(split=split).replace("images", kind)
                write(tmp_path / folder / "deep" / f"{split}{index}.png")
    source = load_source("mask_folder", {"root": str(tmp_path), "classes": CLASSES})
    assert [len(table) for table in (source.train, source.val, source.test)] == [2, 2, 2]
    assert "train0.png" in source.train.ids[0]


def test_masks_follow_their_images_from_files(streets):
    for workers in (0, 1):
        batches = list(module(streets, num_workers=workers, batch_size=4).batches("train"))
        batch = batches[0]
        assert (batch["image"].shape, batch["target"].shape) == ((4, 3, 16, 16), (4, 16, 16))
        assert batch["size"].tolist()[0][0] == 14
        assert set(batch) == {"image", "target", "id", "size"}


def test_what_lies_in_an_image_is_squashed_and_not_cropped(streets):
    squashed, cropped = (
        torch.cat([b["target"] for b in module(streets, resize=resize).batches("train")]) for resize in (None, "crop")
    )
    # The third class fills the last third of the image.
    assert (squashed[:, :, :5] == 0).all()
    assert not torch.equal(squashed, cropped)


def test_files_are_fitted_once(tmp_path):
    spec = Input((24, 24), crop_pct=0.5)
    rows = np.tile(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], (1, 48, 3))
    path = tmp_path / "a" / "0.png"
    write_image(path)
    Image.fromarray(rows).save(path)
    for index in range(1, 4):
        write_image(tmp_path / "b" / f"{index}.png", (48, 48))
    data = MidstreamDataModule("image_folder", {"root": str(tmp_path)}, preprocessing=spec)
    found = {name: image for split in ("train", "val", "test") for b in data.batches(split)
             for name, image in zip(b["id"], b["image"], strict=True)}  # fmt: skip
    height = found["a/0.png"][0].mean(dim=1) * spec.std[0] + spec.mean[0]
    # The middle half of the image, and not the middle half of that.
    torch.testing.assert_close(height[[0, -1]], torch.tensor([60.0, 175.0]) / 255, atol=0.02, rtol=0)


def test_few_shots_of_masks_show_every_class(streets):
    tables = module(streets, DownstreamDataModule, shots=2, val_shots=1).tables
    masks = [mask.flatten().long() for mask in tables["train"].targets]
    shown = torch.stack([torch.bincount(mask, minlength=256)[:3] > 0 for mask in masks])
    assert (shown.sum(dim=0) >= torch.tensor([2, 2, 1])).all()
    assert len(tables["train"]) <= 4
    assert not set(tables["train"].ids) & (set(tables["val"].ids) | set(tables["test"].ids))


def test_values_of_pixels_are_looked_up(tmp_path):
    path = write_mask(tmp_path / "0.png", (0, 128, 7))
    masks = MaskFiles([path], 2, values=[128, 0])
    assert masks[0].unique().tolist() == [0, 1, 255]
    assert (masks[0][:, 0] == 1).all()


def test_masks_of_one_bit_are_zeros_and_ones_or_what_the_values_say(tmp_path):
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "0.png")
    for values, numbers in ((None, [0, 1]), ([0, 255], [0, 1]), ([1, 0], [1, 0]), ([0, 128], [0, 255])):
        assert MaskFiles([tmp_path / "0.png"], 2, values=values)[0].tolist() == [numbers]


def test_voc_folders(tmp_path):
    for index in range(4):
        write_image(tmp_path / "JPEGImages" / f"a{index}.jpg", seed=index)
        write_mask(tmp_path / "SegmentationClass" / f"a{index}.png", (0, 15, 255), mode="P")
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a0\na1\na2\n")
    (lists / "val.txt").write_text("a3\n")
    source = load_source("voc_segmentation", {"root": str(tmp_path)})
    assert (len(source.class_names), source.class_names[0], source.class_names[15]) == (21, "background", "person")
    assert (len(source.train), len(source.test), source.val) == (3, 1, None)
    assert source.train.targets[0].unique().tolist() == [0, 15, 255]
    with pytest.raises(DataError, match=r"trainval\.txt does not exist; did you mean 'train\.txt'\?"):
        load_source("voc_segmentation", {"root": str(tmp_path), "train": "trainval"})
    (tmp_path / "SegmentationClass" / "a1.png").unlink()
    with pytest.raises(DataError, match=r"train.txt: 1 of 3 masks do not exist; the first: .*a1.png"):
        load_source("voc_segmentation", {"root": str(tmp_path)})


def test_depth_folders_of_every_format(tmp_path):
    field = np.linspace(0, 3, 12 * 20, dtype=np.float32).reshape(12, 20)
    (tmp_path / "depth").mkdir()
    for name in ("a", "b", "c"):
        write_image(tmp_path / "images" / f"{name}.png")
    np.savez(tmp_path / "depth" / "a.npz", depth=field)
    np.save(tmp_path / "depth" / "b.npy", field)
    Image.fromarray((field * 1000).round().astype(np.uint16)).save(tmp_path / "depth" / "c.png")
    source = load_source("depth_folder", {"root": str(tmp_path)})
    assert (source.kind, source.class_names) == ("depth", ())
    for found in source.train.targets:
        assert found.dtype == torch.float32
        assert found[0, 0].isnan(), "0 is unknown"
        np.testing.assert_allclose(found[1:], field[1:], atol=6e-4)
    every = load_source("depth_folder", {"root": str(tmp_path), "unknown": None}).train.targets
    assert every[0][0, 0] == 0
    batch = next(iter(module(tmp_path, dataset="depth_folder").batches("train")))
    assert batch["target"].shape[1:] == (16, 16)


def test_numbers_in_a_manifest(tmp_path):
    for index in range(5):
        write_image(tmp_path / f"{index}.png")
    table = tmp_path / "table.csv"
    table.write_text("path,age,weight\n" + "\n".join(f"{n}.png,{n + 0.5},{100 * n}" for n in range(5)) + "\n")
    arguments = {"path": str(table), "number_columns": ["age", "weight"]}
    source = load_source("manifest", arguments)
    assert (source.kind, source.class_names) == ("regression", ("age", "weight"))
    assert source.train.targets[2].tolist() == [2.5, 200]
    data = DownstreamDataModule("manifest", arguments, shots=2, val_shots=1, preprocessing=Input())
    assert {split: len(ids) for split, ids in data.split_ids().items()} == {"train": 2, "val": 1, "test": 1}
    assert data.arrays("train")[1].dtype == torch.float32
    with pytest.raises(DataError, match="there are 4 images, but 6 are needed: 5 shots for training"):
        DownstreamDataModule("manifest", arguments, shots=5, val_shots=1, preprocessing=Input()).setup("fit")
    table.write_text("path,age\n0.png,old\n")
    with pytest.raises(DataError, match="row 1: column 'age' needs a number, got 'old'"):
        load_source("manifest", {"path": str(table), "number_columns": ["age"]})


def wrong_class(root):
    write_mask(root / "masks" / "0.png", (0, 9))


def colours(root):
    write_image(root / "masks" / "0.png")


def stretched(root):
    # Two bits a pixel, the numbers 0 to 3; PIL does not write such files.
    (root / "masks" / "0.png").write_bytes(png(4, 2, 0, b"\x1b"))


def broken(root):
    path = root / "masks" / "0.png"
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (wrong_class, "0.png: a mask's pixel has the value 9, which is not among the 3 classes"),
        (colours, "0.png is RGB, expected a grey or palette image whose pixels are class numbers"),
        (stretched, "0.png has grey pixels of 2 or 4 bits, which readers stretch to 255; save it with 8 bits"),
        (broken, "cannot read mask .*0.png"),
    ],
)
def test_bad_masks_are_named(streets, damage, text):
    damage(streets)
    with pytest.raises(DataError, match=text):
        [batch for split in ("train", "val", "test") for batch in module(streets).batches(split)]
    data = module(streets, skip_corrupt=True)
    with pytest.warns(UserWarning, match="skipped 1 of 9 images"):
        assert sum(map(len, data.split_ids().values())) == 8


def test_missing_partners_are_named(streets):
    arguments = {"root": str(streets)}
    with pytest.raises(DataError, match="masc does not exist; did you mean 'masks'"):
        load_source("mask_folder", {**arguments, "masks": "masc"})
    with pytest.raises(DataError, match="has no folder 'image' of images, nor one in 'train'"):
        load_source("mask_folder", {**arguments, "images": "image"})
    with pytest.raises(ConfigError, match=r"one value from 0 to 255 a class, 3 of them; got \[0, 300\]"):
        load_source("mask_folder", {**arguments, "pixel_values": [0, 300]})
    (streets / "masks" / "4.png").unlink()
    with pytest.raises(DataError, match=r"4.jpg has no target .*4.png"):
        load_source("mask_folder", arguments)
    (streets / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"names of the classes are unknown: write them to .*classes.txt"):
        load_source("mask_folder", arguments)


def test_bad_maps_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", height=np.zeros((2, 2)))
    np.save(tmp_path / "b.npy", np.zeros((2, 2, 3)))
    (tmp_path / "c.npz").write_bytes(b"no archive")
    np.save(tmp_path / "d.npy", np.array([{"code": 1}], dtype=object))
    Image.new("P", (2, 2)).save(tmp_path / "e.png")
    fields = FieldFiles([tmp_path / name for name in ("a.npz", "b.npy", "c.npz", "d.npy", "e.png")])
    named = ("c.npz", "d.npy", "has a palette, expected a grey PNG")
    texts = ("no array 'depth', only \\['height'\\]", r"\(2, 2, 3\), expected \(H, W\)", *named)
    for index, text in enumerate(texts):
        with pytest.raises(DataError, match=text):
            fields[index]
