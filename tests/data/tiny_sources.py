"""Arguments with which every data source opens a tiny data set in its real format; a new source adds a line."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from PIL import Image
from tiny_boxes import voc_object, write_coco, write_voc
from tiny_data import write_idx, write_image
from tiny_layouts import write_coop, write_vtab, write_webdataset

RNG = np.random.default_rng(0)


def files(root):
    return sorted(path for path in root.rglob("*") if path.is_file())


def write_csv(path, header, rows):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])
    return {"path": str(path)}



def folder(flowers, **_):
    return {"root": str(flowers)}


def manifest(flowers, **_):
    table = flowers.parent / "table.csv"
    write_csv(table, ["path", "label"], [(f"flowers/{p.parent.name}/{p.name}", p.parent.name) for p in files(flowers)])
    return {"path": str(table)}


def idx_folder(flowers):
    root = flowers.parent / "fashion"
    for prefix, count in (("train", 40), ("t10k", 20)):
        write_idx(root / f"{prefix}-images-idx3-ubyte.gz", RNG.integers(0, 255, (count, 28, 28)))
        write_idx(root / f"{prefix}-labels-idx1-ubyte.gz", np.arange(count) % 10)
    return {"root": str(root)}


def fake_torchvision(_):
    return {"name": "FakeData", "arguments": {"size": 12, "image_size": [3, 8, 9], "num_classes": 3}}


def saved_hub_set(flowers):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    rows = {"picture": [str(path) for path in files(flowers)[:6]], "kind": [0, 1] * 3}
    part = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"train": part, "validation": part}).save_to_disk(flowers.parent / "saved")
    return {"path": str(flowers.parent / "saved")}


def pairs(flowers, partners, suffix, write):
    """Writes three images, each with its partner in a folder beside them."""
    root = flowers.parent / partners
    for index in range(3):
        (root / partners).mkdir(parents=True, exist_ok=True)
        write_image(root / "images" / f"{index}.jpg")
        write(root / partners / f"{index}{suffix}", np.eye(12, 20))
    return root


def write_mask(path, values):
    Image.fromarray(values.astype(np.uint8)).save(path)


def mask_folder(flowers):
    root = pairs(flowers, "masks", ".png", write_mask)
    (root / "classes.txt").write_text("ground\nline\n")
    return {"root": str(root)}


def depth_folder(flowers):
    return {"root": str(pairs(flowers, "depth", ".npy", np.save))}


def voc_segmentation(flowers):
    root = pairs(flowers, "SegmentationClass", ".png", write_mask)
    (root / "images").rename(root / "JPEGImages")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, lines in (("train", "0\n1\n"), ("val", "2\n")):
        (root / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(lines)
    return {"root": str(root)}


def coco_detection(flowers):
    write_coco(flowers.parent / "coco")
    return {
        "root": str(flowers.parent / "coco"), "train": "annotations/train.json", "train_images": "train", "test": None,
    }  # fmt: skip


def voc_detection(flowers):
    dog = [voc_object("dog", (2, 3, 30, 12))]
    return {"root": str(write_voc(flowers.parent / "VOC", {"train": [dog, []], "val": [dog]}))}


def coop(flowers):
    write_coop(flowers.parent / "coop", "dtd", classes=3, train=2, val=1, test=1)
    return {"root": str(flowers.parent / "coop"), "dataset": "dtd"}


def vtab1k(flowers):
    write_vtab(flowers.parent / "vtab", "eurosat", val=(1, 0), test=(1, 0, 1))
    return {"root": str(flowers.parent / "vtab"), "task": "eurosat"}


def webdataset(flowers):
    return {"root": str(write_webdataset(flowers.parent / "wds", {"train": [0, 1, 0], "test": [1]}, ["a", "b"]))}


ARGUMENTS = {
    "coop": coop,
    "vtab1k": vtab1k,
    "webdataset": webdataset,
    "coco_detection": coco_detection,
    "voc_detection": voc_detection,
    "depth_folder": depth_folder,
    "mask_folder": mask_folder,
    "voc_segmentation": voc_segmentation,
    "compositions": lambda flowers: {"train": 1, "val": 1, "test": 1, "size": 32},
    "fashion_mnist": idx_folder,
    "hf": saved_hub_set,
    "image_folder": folder,
    "manifest": manifest,
    "torchvision": fake_torchvision,
    "scenes": lambda flowers: {"task": "letters", "train": 30, "test": 30, "size": 32},
}

# Those whose images are files with targets that lie in them.
WITH_TARGETS_IN_IMAGES = ("coco_detection", "depth_folder", "mask_folder", "voc_detection", "voc_segmentation")


def arguments_of(name, flowers):
    """Returns the arguments of a source, having written its data; one that needs none needs no entry either."""
    return ARGUMENTS[name](flowers) if name in ARGUMENTS else {}
