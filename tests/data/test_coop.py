"""CoOp's data sets: splits, halves of the classes, samples and class names."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_layouts import write_coop

from vimlight.data import DownstreamDataModule, load_source
from vimlight.data.coop_files import DATASETS
from vimlight.data.members import members_of
from vimlight.errors import ConfigError, DataError, UnknownNameError


def opened(root, dataset="oxford_pets", **arguments):
    return load_source("coop", {"root": str(root), "dataset": dataset, **arguments})


@pytest.fixture
def pets(tmp_path):
    return write_coop(tmp_path)


@pytest.mark.parametrize("dataset", DATASETS)
def test_every_layout_is_read(tmp_path, dataset):
    write_coop(tmp_path, dataset, classes=3)
    source = opened(tmp_path, dataset)
    assert source.class_names == tuple(f"kind_{label} of {dataset}" for label in range(3))
    assert source.test.targets.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(source.train) + len(source.val or ()) == 33
    assert (source.val is None) == (dataset == "imagenet")
    few = opened(tmp_path, dataset, shots=5)
    assert few.train.targets.bincount().tolist() == [5, 5, 5]
    assert few.val.targets.bincount().tolist() == [4, 4, 4]
    assert not set(few.train.ids) & set(few.val.ids)
    assert few.test.ids == source.test.ids
    assert few.train.image(0).shape[0] == 3


@pytest.mark.parametrize(("classes", "base"), [(5, 3), (4, 2), (1, 1)])
def test_base_is_the_first_half_rounded_up(tmp_path, classes, base):
    write_coop(tmp_path, classes=classes, train=1, val=1, test=1)
    every = opened(tmp_path).class_names
    assert opened(tmp_path, classes="base").class_names == every[:base]
    if classes > base:
        new = opened(tmp_path, classes="new")
        assert new.class_names == every[base:]
        # Labels are numbered anew.
        assert new.test.targets.tolist() == list(range(classes - base))


def test_halves_are_of_the_labels_that_occur_in_training(pets):
    listing = pets / "split_zhou_OxfordPets.json"
    rows = json.loads(listing.read_text())
    rows["train"] = [row for row in rows["train"] if row[1] not in (0, 4)]
    listing.write_text(json.dumps(rows))
    base, new = (opened(pets.parent, classes=part) for part in ("base", "new"))
    assert [name[:6] for name in base.class_names] == ["kind_1", "kind_2"]
    assert [name[:6] for name in new.class_names] == ["kind_3"]
    assert base.test.targets.tolist() == [0, 0, 1, 1]
    assert [name[:6] for name in opened(pets.parent).class_names] == [f"kind_{n}" for n in range(5)]


def test_samples_are_seeded_nested_and_the_same_for_every_part_of_the_classes(pets, untouched_rng):
    root = pets.parent
    two, one, other = opened(root, shots=2), opened(root, shots=1), opened(root, shots=2, seed=1)
    assert two.train.ids == opened(root, shots=2).train.ids != other.train.ids
    assert set(one.train.ids) < set(two.train.ids)
    assert (len(one.val), len(two.val)) == (5, 10)
    base, new = (opened(root, shots=2, classes=part).train.ids for part in ("base", "new"))
    assert base + new == two.train.ids
    # Fewer than asked for are all there are, as in the published samples.
    assert len(opened(root, shots=16).train) == 30


def test_a_sample_is_pinned_and_shared(pets, tmp_path):
    pinned = tmp_path / "samples" / "pets.json"
    drawn = opened(pets.parent, shots=1, sample=str(pinned))
    assert set(json.loads(pinned.read_text())) == {"train", "val"}
    again = opened(pets.parent, shots=1, seed=7, sample=str(pinned))
    assert again.train.ids == drawn.train.ids != opened(pets.parent, shots=1, seed=7).train.ids
    assert again.val.ids == drawn.val.ids
    assert len(opened(pets.parent, shots=1, classes="base", sample=str(pinned)).train) == 3
    pinned.write_text(pinned.read_text().replace(drawn.train.ids[0], "test_0_0.jpg"))
    with pytest.raises(DataError, match=r'pets.json: \["test_0_0.jpg", 0, .*is no training or validation image of '):
        opened(pets.parent, shots=1, sample=str(pinned))
    with pytest.raises(ConfigError, match="pins a few-shot sample; say how many shots"):
        opened(pets.parent, sample=str(pinned))


def test_the_data_module_takes_the_sample_as_it_is(pets, preprocessing):
    args = {"root": str(pets.parent), "dataset": "oxford_pets", "classes": "new", "shots": 3}
    data = DownstreamDataModule("coop", args, preprocessing=preprocessing)
    assert {split: len(table) for split, table in data.tables.items()} == {"train": 6, "val": 6, "test": 4}
    assert data.class_names == ["kind_3 of oxford_pets", "kind_4 of oxford_pets"]
    images, targets = data.arrays("val")
    assert torch.equal(targets, torch.tensor([0, 0, 0, 1, 1, 1]))
    assert images.shape == (6, 3, 16, 16)


def test_members_say_what_is_missing(tmp_path):
    (write_coop(tmp_path, "fgvc_aircraft", 1) / "variants.txt").unlink()
    write_coop(tmp_path, "stanford_cars", 1)
    found = {member.name: member.missing for member in members_of("coop", {"root": str(tmp_path)})}
    assert list(found) == list(DATASETS)
    assert [name for name, missing in found.items() if not missing] == ["stanford_cars"]
    assert found["fgvc_aircraft"].endswith("variants.txt")
    assert found["dtd"].endswith("dtd")


ROW = ["a.jpg", 0, "a"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"train": [', r"split_zhou_OxfordPets.json is no JSON: Expecting value: line 1"),
        ([], r"expected lists of images under the keys train, val, test"),
        ({"train": [ROW], "val": [ROW]}, r"expected lists of images under the keys train, val, test"),
        (
            {"train": [ROW[:2]], "val": [], "test": []},
            r"entry 1 of train: expected \[path, label from 0 on, class name",
        ),
        ({"train": [["a.jpg", "0", "a"]], "val": [], "test": []}, r"entry 1 of train: .*got \['a.jpg', '0', 'a'\]"),
        ({"train": [["a.jpg", -1, "a"]], "val": [], "test": []}, r"entry 1 of train: expected"),
        ({"train": [["a.jpg", True, "a"]], "val": [], "test": []}, r"entry 1 of train: expected"),
        ({"train": [ROW], "val": [["b.jpg", 0, "b"]], "test": []}, r"label 0 is called 'a' and 'b'"),
        ({"train": [ROW], "val": [["b.jpg", 2, "b"]], "test": []}, r"labels are 0 to 2, but no image has the label 1"),
        ({"train": [ROW], "val": [ROW], "test": [ROW]}, r"3 of 3 images do not exist; the first: .*images/a.jpg"),
    ],
)
def test_mistakes_in_split_files(tmp_path, content, text):
    (tmp_path / "oxford_pets" / "images").mkdir(parents=True)
    file = tmp_path / "oxford_pets" / "split_zhou_OxfordPets.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=text) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        (
            {"dataset": "oxford_pet"},
            UnknownNameError,
            r"unknown data set of CoOp 'oxford_pet'; did you mean 'oxford_pets'",
        ),
        ({"classes": "bse"}, UnknownNameError, r"unknown part of the classes 'bse'; did you mean 'base'"),
        ({"classes": ["kind_1"]}, UnknownNameError, r"unknown class of data set 'coop/oxford_pets' 'kind_1'"),
        ({"shots": 0}, ConfigError, r"shots must be at least 1, got 0"),
        ({"dataset": "dtd"}, DataError, r"folder .*dtd does not exist"),
    ],
)
def test_mistakes_in_arguments(pets, arguments, error, text):
    with pytest.raises(error, match=text):
        opened(pets.parent, **arguments)


def test_a_missing_split_file_names_the_nearest(pets):
    (pets / "split_zhou_OxfordPets.json").rename(pets / "split_zhou_OxfordPet.json")
    with pytest.raises(DataError, match=r"OxfordPets.json does not exist; did you mean 'split_zhou_OxfordPet.json'"):
        opened(pets.parent)


def test_lists_without_split_file(tmp_path):
    folder = write_coop(tmp_path, "fgvc_aircraft", 2)
    (folder / "images_variant_val.txt").write_text("0001 kind_7\n")
    with pytest.raises(UnknownNameError, match=r"unknown variant in line 1 of .*images_variant_val.txt 'kind_7'"):
        opened(tmp_path, "fgvc_aircraft")
    names = write_coop(tmp_path, "imagenet", 2) / "classnames.txt"
    with pytest.raises(DataError, match=r"class 'kind_0 of imagenet' has 11 images, but 12 are needed"):
        opened(tmp_path, "imagenet", shots=8)
    names.write_text("n00000000 kind_0\n")
    with pytest.raises(DataError, match=r"classnames.txt does not name the class of the folder .*n00000001"):
        opened(tmp_path, "imagenet")
    names.write_text("n00000000\n")
    with pytest.raises(DataError, match=r"classnames.txt, line 1: expected the name of a folder and of its class"):
        opened(tmp_path, "imagenet")
