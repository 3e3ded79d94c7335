"""Data sets of boxes as sources and in the data modules."""

from __future__ import annotations

import pytest
import torch
from tiny_boxes import annotation, voc_object, write_coco, write_voc
from tiny_data import Input

from vimlight.data import DownstreamDataModule, MidstreamDataModule, load_source
from vimlight.errors import DataError, UnknownNameError

COCO = {f"{part}{key}": f"{place}{part}{end}" for part in ("train", "test") for key, place, end in (
    ("", "annotations/", ".json"), ("_images", "", ""),
)}  # fmt: skip


@pytest.fixture
def coco(tmp_path):
    rows = [annotation(n, 10 * (1 + n % 9), (3, 7, 90)[n % 3], [1 + n % 3, 2, 10 + n % 5, 8]) for n in range(1, 25)]
    write_coco(tmp_path, "train", 9, rows)
    write_coco(tmp_path, "test", 3, [annotation(1, 20, 7, [3, 4, 10, 10])])
    return {"root": str(tmp_path), **COCO}


def test_coco_parts_share_their_categories_and_keep_their_ids(coco):
    source = load_source("coco_detection", coco)
    assert source.kind == "detection"
    assert source.class_names == ("cat", "dog", "tooth brush")
    assert source.train.ids == [str(10 * n) for n in range(1, 10)]
    assert source.test.targets.category_ids == (3, 7, 90)
    assert source.test.image(1).shape == (3, 20, 41)
    assert source.test.targets[1]["labels"].tolist() == [1]


def test_voc_parts(tmp_path):
    root = write_voc(tmp_path / "VOC", {"train": [[voc_object("dog", (1, 1, 9, 9))], []], "val": [[]]})
    source = load_source("voc_detection", {"root": str(root)})
    assert source.class_names[11] == "dog"
    assert (len(source.train), len(source.test)) == (2, 1)
    named = load_source("voc_detection", {"root": str(root), "classes": ["cat", "dog"], "test": None})
    assert named.class_names == ("cat", "dog")
    with pytest.raises(UnknownNameError, match="unknown class of data set 'VOC' 'dgo'; did you mean 'dog'"):
        load_source("voc_detection", {"root": str(root), "classes": ["dgo"]})
    write_voc(tmp_path / "VOC", {"train": [[voc_object("dgo", (1, 1, 9, 9))]]})
    with pytest.raises(UnknownNameError, match=r"class of object 1 in .*train_0.xml: 'dgo'; did you mean 'dog'"):
        load_source("voc_detection", {"root": str(root)})


def test_a_missing_part_is_named(coco, tmp_path):
    with pytest.raises(DataError, match=r"vall\.json does not exist"):
        load_source("coco_detection", {**coco, "val": "annotations/vall.json"})
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        load_source("coco_detection", {**coco, "root": str(tmp_path / "no")})


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_hold_images_of_one_size_and_their_boxes(coco, workers):
    data = MidstreamDataModule(
        "coco_detection", coco, batch_size=4, num_workers=workers, preprocessing=Input(size=(32, 48)), val_fraction=0.2
    )
    batches = list(data.batches("train"))
    assert sum(len(batch["id"]) for batch in batches) == 6
    source = data.source
    for batch in batches:
        assert batch["image"].shape[1:] == (3, 32, 48)
        for name, target, size in zip(batch["id"], batch["target"], batch["size"], strict=True):
            known = source.train.targets[source.train.ids.index(name)]
            assert torch.equal(target["boxes"], known["boxes"])
            assert torch.equal(target["labels"], known["labels"])
            assert torch.equal(target["size"], size)
            assert source.train.ids[target["image"]] == name


def test_shots_are_counted_by_the_classes_that_images_show(coco):
    data = DownstreamDataModule("coco_detection", coco, shots=1, preprocessing=Input())
    train, val = data.tables["train"].targets, data.tables["val"].targets
    assert train.presence(3).sum(dim=0).min() >= 1
    assert not {int(train[n]["image"]) for n in range(len(train))} & {int(val[n]["image"]) for n in range(len(val))}


def test_without_a_test_part_images_of_every_class_are_set_apart(coco):
    data = MidstreamDataModule("coco_detection", {**coco, "test": None}, preprocessing=Input())
    assert {split: len(table) for split, table in data.tables.items()} == {"train": 3, "val": 3, "test": 3}
    assert all((table.targets.presence(3).sum(dim=0) > 0).all() for table in data.tables.values())
