"""Boxes from COCO and VOC files, and what is said of files that are wrong."""

from __future__ import annotations

import json
import pickle
import re

import numpy as np
import pytest
import torch
from tiny_boxes import annotation, voc_object, write_coco, write_voc
from tiny_data import write_turned

from vimlight.data.boxes import RawBox, pack_boxes, read_coco, read_voc
from vimlight.errors import DataError, UnknownNameError


def test_coco_boxes_are_fractions_and_categories_may_have_gaps(tmp_path):
    found = read_coco(write_coco(tmp_path), tmp_path / "train")
    assert found.class_names == ("cat", "dog", "tooth brush")
    assert found.targets.category_ids == (3, 7, 90)
    assert found.ids == ("10", "20", "30")
    first, second, third = (found.targets[index] for index in range(3))
    corners = first["boxes"] * torch.tensor([40, 20, 40, 20])
    assert torch.allclose(corners, torch.tensor([[4.0, 5, 14, 13], [20.5, 0, 40, 20]]))
    assert first["labels"].tolist() == [1, 2]
    assert first["crowd"].tolist() == [False, False]
    assert second["crowd"].tolist() == [True]
    assert second["size"].tolist() == [20, 41]
    assert third["boxes"].shape == (0, 4)
    assert found.targets.presence(3).tolist() == [[0, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_coco_agrees_with_pycocotools(tmp_path):
    from pycocotools.coco import COCO

    path = write_coco(tmp_path)
    known, found = COCO(str(path)), read_coco(path, tmp_path / "train")
    for index, number in enumerate(known.getImgIds()):
        target = found.targets[index]
        height, width = target["size"].tolist()
        corners = target["boxes"] * torch.tensor([width, height, width, height])
        boxes = torch.cat([corners[:, :2], corners[:, 2:] - corners[:, :2]], dim=1)
        rows = known.loadAnns(known.getAnnIds(imgIds=number))
        assert torch.allclose(boxes, torch.tensor([row["bbox"] for row in rows]).float().reshape(-1, 4))
        assert [found.targets.category_ids[label] for label in target["labels"]] == [row["category_id"] for row in rows]


def test_a_missing_size_is_read_off_the_image(tmp_path):
    path = write_coco(tmp_path, count=1, annotations=[])
    content = json.loads(path.read_text())
    del content["images"][0]["width"]
    path.write_text(json.dumps(content))
    assert read_coco(path, tmp_path / "train").targets[0]["size"].tolist() == [20, 40]


SET, NOT_SET = (1, 1.0, True, "1", " 1", "true"), (0, 0.0, False, None, "0", "0.0", "False", "")


@pytest.mark.parametrize("written", [*SET, *NOT_SET])
def test_flags_are_read_as_they_are_written(tmp_path, written):
    path = write_coco(tmp_path, annotations=[annotation(1, 10, 7, [4, 5, 10, 8], iscrowd=written)])
    assert read_coco(path, tmp_path / "train").targets[0]["crowd"].tolist() == [written in SET]


def test_numbers_written_as_text_are_the_same_numbers(tmp_path):
    plain = read_coco(write_coco(tmp_path / "plain"), tmp_path / "plain" / "train")
    path = write_coco(tmp_path / "text")

    def texts(value):
        if isinstance(value, dict):
            return {key: texts(entry) for key, entry in value.items()}
        return [texts(entry) for entry in value] if isinstance(value, list) else str(value)

    content = texts(json.loads(path.read_text()))
    content["annotations"][1]["category_id"] = 90.0
    path.write_text(json.dumps(content))
    found = read_coco(path, tmp_path / "text" / "train")
    assert (found.ids, found.class_names) == (plain.ids, plain.class_names)
    assert found.targets.category_ids == plain.targets.category_ids
    for one, other in zip(found.targets, plain.targets, strict=True):
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_ids_that_are_no_numbers_stay_text(tmp_path):
    rows = [{"id": name, "file_name": "0.png", "width": 40, "height": 20} for name in ("0012", "left")]
    path = write_coco(tmp_path, images=rows, annotations=[annotation(1, "0012", 7, [4, 5, 10, 8])])
    assert read_coco(path, tmp_path / "train").ids == ("0012", "left")


STATED = {"width": None, "height": 0, "both": "0"}


@pytest.mark.parametrize("missing", STATED)
def test_a_size_that_is_not_stated_is_the_one_of_the_file(tmp_path, missing):
    keys = ("width", "height") if missing == "both" else (missing,)
    path = write_coco(tmp_path, count=1, annotations=[])
    content = json.loads(path.read_text())
    content["images"][0].update(dict.fromkeys(keys, STATED[missing]))
    path.write_text(json.dumps(content))
    assert read_coco(path, tmp_path / "train").targets[0]["size"].tolist() == [20, 40]
    write_turned(tmp_path / "train" / "0.png", np.zeros((20, 40), np.uint8), 6)
    with pytest.raises(DataError, match=r"0.png has the orientation tag 6, and its annotations state no width and hei"):
        read_coco(path, tmp_path / "train")


@pytest.mark.parametrize("size", ["", "<size/>", "<size><width>0</width><height>0</height></size>"])
def test_voc_files_without_a_size_are_read(tmp_path, size):
    root = write_voc(tmp_path, {"train": [[voc_object("dog", (1, 1, 20, 10))]]})
    xml = root / "Annotations" / "train_0.xml"
    xml.write_text(re.sub("<size>.*</size>", size, xml.read_text()))
    target = read_voc(root, "train").targets[0]
    assert (target["size"].tolist(), target["boxes"].tolist()) == ([20, 40], [[0, 0, 0.5, 0.5]])


def test_voc_flags_and_fractions_are_read_as_they_are_written(tmp_path):
    written = {"0": False, "1": True, " 1\n": True, "True": True, "": False}
    root = write_voc(tmp_path, {"train": [[voc_object("dog", (1, 1, 20.5, 10.25), flag) for flag in written]]})
    target = read_voc(root, "train").targets[0]
    assert target["crowd"].tolist() == list(written.values())
    assert target["boxes"][0].tolist() == pytest.approx([0, 0, 20.5 / 40, 10.25 / 20])
    root = write_voc(tmp_path, {"train": [[voc_object("dog", (1, 1, 20, 10), "Unspecified")]]})
    with pytest.raises(DataError, match=r"train_0.xml: object 1 needs 0 or 1 in <difficult>, got 'Unspecified'"):
        read_voc(root, "train")
    root = write_voc(tmp_path, {"train": [[voc_object("dog", (1, "1,5", 20, 10))]]})
    with pytest.raises(DataError, match=r"train_0.xml: object 1 needs a number in <bndbox/ymin>, got '1,5'"):
        read_voc(root, "train")


def test_boxes_are_cut_off_at_the_borders():
    packed = pack_boxes([[RawBox("a", (-5, -5, 5, 30), 0)]], [(20, 10)], ["x"])
    assert packed[0]["boxes"].tolist() == [[0, 0, 0.5, 1]]


def test_packed_targets_survive_pickling_for_worker_processes(tmp_path):
    found = read_coco(write_coco(tmp_path), tmp_path / "train")
    again = pickle.loads(pickle.dumps(found.targets))
    assert all(torch.equal(again[1][key], found.targets[1][key]) for key in found.targets[1])


def test_some_of_the_images_keep_their_numbers(tmp_path):
    targets = read_coco(write_coco(tmp_path), tmp_path / "train").targets
    part = targets.pick(torch.tensor([2, 0])).pick(torch.tensor([1]))
    assert len(part) == 1
    assert part[0]["image"] == 0
    assert torch.equal(part[0]["boxes"], targets[0]["boxes"])
    assert part.presence(3).tolist() == [[0, 1, 1]]
    assert part.category_ids == (3, 7, 90)


@pytest.mark.parametrize(
    "box", [[4, 5, 0, 8], [4, 5, 3, -1], [50, 5, 4, 4], [4, 5, float("nan"), 3], [4, 5, float("inf"), 3]]
)
def test_a_box_without_area_is_named_or_left_out(tmp_path, box):
    path = write_coco(tmp_path, annotations=[annotation(17, 20, 3, box), annotation(18, 20, 3, [1, 1, 2, 2])])
    message = r"annotation 17 of .*1\.png: the box .* has no area .* 41 x 20.*skip_degenerate"
    with pytest.raises(DataError, match=message):
        read_coco(path, tmp_path / "train")
    with pytest.warns(UserWarning, match="left out 1 boxes"):
        found = read_coco(path, tmp_path / "train", skip_degenerate=True)
    assert len(found.targets[1]["boxes"]) == 1


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


BROKEN = {
    "no list": ({"images": 3}, "lacks a list of objects under 'images'"),
    "lost image": ({"annotations": [annotation(5, 99, 3, [0, 0, 1, 1])]}, "annotation 5 belongs to image 99"),
    "lost category": ({"annotations": [annotation(5, 10, 4, [0, 0, 1, 1])]}, "unknown category 4; known: {3: 'cat'"),
    "no box": ({"annotations": [annotation(5, 10, 3, [0, 0, 1])]}, r"annotation 5 needs a 'bbox' of four numbers"),
    "true box": ({"annotations": [annotation(5, 10, 3, [0, 0, 1, True])]}, r"annotation 5 needs a 'bbox' of four num"),
    "comma": ({"annotations": [annotation(5, 10, 3, [0, 0, 1, "1,5"])]}, r"annotation 5 needs a 'bbox' of four num"),
    "flag": ({"annotations": [annotation(5, 10, 3, [0, 0, 1, 1], iscrowd="no")]}, "5 needs 0 or 1 for 'iscrowd'"),
    "true image": ({"annotations": [annotation(5, True, 3, [0, 0, 1, 1])]}, "annotation 5 belongs to image True"),
    "text category": ({"categories": [{"id": "cat", "name": "cat"}]}, "category id 'cat' is no whole number"),
    "side": ({"images": [{"id": 1, "file_name": "0.png", "width": -4}], "annotations": []}, "'width' of image 1 needs"),
    "half a side": ({"images": [{"id": 1, "file_name": "0.png", "height": 2.5}], "annotations": []}, "pixels, got 2.5"),
    "twice as text": ({"images": [{"id": 1, "file_name": "0.png"}, {"id": "1"}]}, "image id 1 occurs twice"),
    "twice": ({"images": [{"id": 1, "file_name": "0.png"}] * 2}, "image id 1 occurs twice"),
    "no id": ({"images": [{"file_name": "0.png"}]}, "image has no id"),
    "one name": ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "two categories have one name"),
    "no file": ({"images": [{"id": 1, "file_name": "no.png"}], "annotations": []}, r"1 of 1 images do not.*no\.png"),
    "no file name": ({"images": [{"id": 1}], "annotations": []}, "image 1 needs a text for 'file_name', got None"),
    "list of names": (
        {"images": [{"id": 1, "file_name": ["0.png"]}], "annotations": []}, r"file_name', got \['0.png'\]"
    ),
    "long name": ({"images": [{"id": 1, "file_name": "a" * 300}], "annotations": []}, "1 of 1 images do not exist"),
    "list as id": ({"images": [{"id": [1], "file_name": "0.png"}]}, r"image has no id that is a number or a text"),
    "list as image": ({"annotations": [annotation(5, [10], 3, [0, 0, 1, 1])]}, r"5 belongs to image \[10\]"),
    "mapping as image": ({"annotations": [annotation(5, {"a": 1}, 3, [0, 0, 1, 1])]}, r"5 belongs to image \{'a': 1\}"),
    "no image": ({"annotations": [{"id": 5, "category_id": 3, "bbox": [0, 0, 1, 1]}]}, "5 belongs to image None"),
    "list as category": ({"annotations": [annotation(5, 10, [3], [0, 0, 1, 1])]}, r"5 has the unknown category \[3\]"),
    "no category": ({"annotations": [{"id": 5, "image_id": 10, "bbox": [0, 0, 1, 1]}]}, "unknown category None"),
    "list as flag": ({"annotations": [annotation(5, 10, 3, [0, 0, 1, 1], iscrowd=[1])]}, r"'iscrowd', got \[1\]"),
    "mapping as box": ({"annotations": [annotation(5, 10, 3, {"x": 1})]}, r"'bbox' of four numbers .* got \{'x': 1\}"),
    "none as box": ({"annotations": [annotation(5, 10, 3, None)]}, "'bbox' of four numbers .* got None"),
    "endless number": (
        {"annotations": [annotation(5, 10, 3, [0, 0, 10**400, 1])]}, r"box \(0, 0, inf, 1\) has no area"
    ),
    "minus infinity": (
        {"annotations": [annotation(5, 10, 3, [-(10**400), 0, 1, 1])]}, r"\(-inf, 0, -inf, 1\) has no area"
    ),
    "endless side": (
        {"images": [{"id": 1, "file_name": "0.png", "width": 10**30}], "annotations": []}, "whole number of"
    ),
    "list as name": ({"categories": [{"id": 1, "name": ["a"]}]}, r"category 1 needs a text for 'name', got \['a'\]"),
    "deep": (
        {"annotations": [annotation(nested(400), 10, 9, [])]},
        r"annotation \[\[\[\[...\]\]\]\] has the unknown category 9"
    ),
    "long": ({"annotations": [annotation(5, "x" * 9999, 3, [])]}, r"belongs to image '.{20,80}', which is not there"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_coco_file_is_named(tmp_path, case):
    changes, message = BROKEN[case]
    path = write_coco(tmp_path, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_coco(path, tmp_path / "train")
    assert str(path) in str(caught.value) or "0.png: the box" in str(caught.value)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


@pytest.mark.parametrize("shape", [None, 3, "text", [[1, 2]], {"counts": [1], "size": "large"}, [], nested(300)])
def test_shapes_of_objects_do_not_matter(tmp_path, shape):
    path = write_coco(tmp_path, annotations=[annotation(5, 10, 3, [0, 0, 4, 2], segmentation=shape, area=shape)])
    assert len(read_coco(path, tmp_path / "train").targets[0]["boxes"]) == 1


def test_files_that_are_no_json_or_missing(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_coco(tmp_path / "no.json", tmp_path)
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="is no JSON"):
        read_coco(tmp_path / "bad.json", tmp_path)


def test_another_part_has_the_categories_of_the_first(tmp_path):
    part = write_coco(tmp_path, "val", annotations=[], categories=[{"id": 7, "name": "dog"}])
    found = read_coco(part, tmp_path / "val", categories={3: "cat", 7: "dog"})
    assert found.class_names == ("cat", "dog")
    with pytest.raises(DataError, match="category 7 is 'dog', but in the file to train on 7 is 'cow'"):
        read_coco(part, tmp_path / "val", categories={7: "cow"})
    with pytest.raises(DataError, match="there is no 7"):
        read_coco(part, tmp_path / "val", categories={3: "cat"})


def test_voc_counts_pixels_from_one_and_difficult_objects_are_ignored(tmp_path):
    objects = [voc_object("dog", (1, 1, 40, 20)), voc_object("cat", (11, 6, 20, 10), difficult=1)]
    root = write_voc(tmp_path, {"train": [objects, []]})
    found = read_voc(root, "train")
    assert found.class_names[11] == "dog"
    assert torch.allclose(found.targets[0]["boxes"], torch.tensor([[0, 0, 1, 1], [0.25, 0.25, 0.5, 0.5]]))
    assert found.targets[0]["crowd"].tolist() == [False, True]
    assert found.ids == ("train_0", "train_1")
    assert len(found.targets[1]["labels"]) == 0
    assert found.targets.category_ids is None


def test_broken_voc_folders_are_named(tmp_path):
    root = write_voc(tmp_path, {"train": [[voc_object("dgo", (1, 1, 9, 9))]], "empty": []})
    with pytest.raises(UnknownNameError, match=r"class of object 1 in .*train_0\.xml: 'dgo'; did you mean 'dog'"):
        read_voc(root, "train")
    with pytest.raises(DataError, match=r"val\.txt does not exist"):
        read_voc(root, "val")
    with pytest.raises(DataError, match="is empty"):
        read_voc(root, "empty")
    xml = root / "Annotations" / "train_0.xml"
    xml.write_text("<annotation><size><width>x</width></size></annotation>")
    with pytest.raises(DataError, match=r"<size/width> needs a whole number of pixels, got 'x'"):
        read_voc(root, "train")
    xml.write_text("<annotation>")
    with pytest.raises(DataError, match="is not XML"):
        read_voc(root, "train")
    xml.unlink()
    with pytest.raises(DataError, match=r"annotation file .*train_0\.xml does not exist"):
        read_voc(root, "train")


OBJECT = voc_object("dog", (1, 1, 9, 9))
BROKEN_XML = {
    "bomb": (
        '<!DOCTYPE a [<!ENTITY b "ha"><!ENTITY c "&b;&b;">]><annotation>&c;</annotation>', "declares the entity 'b'"
    ),
    "file": (
        '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hosts">]><annotation>&b;</annotation>', "declares the entity 'b'"
    ),
    "other entity": ("<annotation>&b;</annotation>", "is not XML: undefined entity"),
    "no encoding": ('<?xml version="1.0" encoding="none"?><annotation/>', "is not XML: unknown encoding"),
    "empty": ("", "is not XML: no element found"),
    "two": ("<annotation/><annotation/>", "is not XML: junk after document element"),
    "no name": (f"<annotation>{OBJECT.replace('<name>dog</name>', '')}</annotation>", "object 1 has no <name>"),
    "no box": (
        "<annotation><object><name>dog</name></object></annotation>", "needs a number in <bndbox/xmin>, got None"
    ),
    "no side": (
        f"<annotation>{OBJECT.replace('xmax', 'max')}</annotation>", "needs a number in <bndbox/xmax>, got None"
    ),
    "endless": (f"<annotation>{voc_object('dog', (1, 1, '9' * 400, 9))}</annotation>", "has no area"),
    "endless side": (
        "<annotation><size><height>1e30</height></size></annotation>", "<size/height> needs a whole number"
    ),
    "long name": (f"<annotation><filename>{'a' * 300}</filename></annotation>", "1 of 1 images do not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN_XML)
def test_a_broken_voc_file_is_named(tmp_path, case):
    content, message = BROKEN_XML[case]
    root = write_voc(tmp_path, {"train": [[]]})
    (root / "Annotations" / "train_0.xml").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        read_voc(root, "train")
    assert "train" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_annotation_of_many_levels_is_read(tmp_path):
    root = write_voc(tmp_path, {"train": [[]]})
    deep = f"<annotation>{'<a>' * 5000}{OBJECT}{'</a>' * 5000}</annotation>"
    (root / "Annotations" / "train_0.xml").write_text(deep)
    assert len(read_voc(root, "train").targets[0]["boxes"]) == 1


def test_a_missing_voc_image_and_a_flat_box_are_named(tmp_path):
    root = write_voc(tmp_path, {"train": [[voc_object("dog", (9, 9, 8, 12))]]})
    with pytest.raises(DataError, match=r"object 1 \(dog\) of .*has no area"):
        read_voc(root, "train")
    (root / "JPEGImages" / "train_0.jpg").unlink()
    with pytest.raises(DataError, match="1 of 1 images do not exist"):
        read_voc(root, "train")
