"""Folders of tar files as CLIP_benchmark writes them."""

from __future__ import annotations

import gzip

import pytest
from tiny_layouts import write_webdataset

from vimlight.data import load_source
from vimlight.errors import DataError, UnknownNameError

LABELS = {"train": [0, 1, 2, 0, 1, 2, 2], "test": [2, 0]}


def opened(root, **arguments):
    return load_source("webdataset", {"root": str(root), **arguments})


@pytest.fixture
def shards(tmp_path):
    return write_webdataset(tmp_path / "wds", LABELS)


@pytest.mark.parametrize("suffix", ["webp", "png", "jpg"])
def test_images_and_labels_over_shards(tmp_path, suffix):
    source = opened(write_webdataset(tmp_path / "wds", LABELS, suffix=suffix))
    assert source.class_names == ("cat, big", "", 'dog "x"')
    assert {split: table.targets.tolist() for split, table in source.tables.items()} == LABELS
    assert source.train.ids[3] == "train/1/s0000003"
    assert source.train.image(6).shape == (3, 7, 9)
    assert source.train.image(6)[0].float().mean() == pytest.approx(120, abs=2)


def test_several_labels(tmp_path):
    labels = {"train": [[1, 0, 1], [0, 0, 0]], "test": [[0, 1, 0]]}
    source = opened(write_webdataset(tmp_path / "wds", labels))
    assert source.kind == "multilabel"
    assert source.train.targets.tolist() == labels["train"]


def test_parts_are_chosen_by_folder(shards):
    (shards / "train").rename(shards / "valid")
    with pytest.raises(DataError, match=r"folder .*/train does not exist; found: test, valid; choose with train, val"):
        opened(shards)
    source = opened(shards, train="test", val="valid", test=None)
    assert (len(source.train), len(source.val), source.test) == (2, 7, None)


def damaged(file):
    file.write_bytes(file.read_bytes()[:700])


def cut_within_a_header(file):
    # Header, image and padding of the first sample, and a piece of the next header.
    file.write_bytes(file.read_bytes()[:1024] + b"s00")


def compressed(file):
    file.write_bytes(gzip.compress(file.read_bytes()))


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda root: damaged(root / "train/0.tar"), r"cannot read .*train/0.tar: unexpected end of data"),
        (lambda root: cut_within_a_header(root / "train/0.tar"), r"train/0.tar is cut off, or no whole tar file"),
        (lambda root: compressed(root / "train/0.tar"), r"cannot read .*0.tar: .*expected an uncompressed tar file"),
        (lambda root: (root / "train/1.tar").unlink(), r"cannot read .*train/1.tar: .*No such file"),
        (lambda root: (root / "train/nshards.txt").write_text("many"), r"nshards.txt: expected the number of shards"),
        (lambda root: (root / "train/nshards.txt").unlink(), r"nshards.txt does not exist"),
        (lambda root: (root / "train/nshards.txt").write_text("0"), r"the shards in .*train hold no sample"),
        (
            lambda root: (root / "classnames.txt").unlink(),
            r"classnames.txt does not exist; expected the name of a class",
        ),
        (
            lambda root: (root / "classnames.txt").write_text("a\nb"),
            r"train/0.tar: label of 's0000002': expected a number from 0 to 1, got '2'",
        ),
        (
            lambda root: (root / "dataset_type.txt").write_text("retrieval"),
            r"dataset_type.txt says 'retrieval'; expected",
        ),
        (
            lambda root: (root / "dataset_type.txt").write_text("multilabel"),
            r"'s0000000' has no file npy, only webp, cls",
        ),
    ],
)
def test_mistakes(shards, spoil, text):
    spoil(shards)
    with pytest.raises(DataError, match=text) as error:
        opened(shards)
    assert "\n" not in str(error.value)


def test_images_that_are_missing_or_none(tmp_path, monkeypatch):
    monkeypatch.setattr("tiny_layouts._picture", lambda number, suffix: b"")
    source = opened(write_webdataset(tmp_path / "empty", LABELS))
    with pytest.raises(DataError, match=r"cannot read image train/0/s0000000: it is empty, or no image"):
        source.train.image(0)
    with pytest.raises(DataError, match=r"0.tar: sample 's0000000' has no file webp, png, jpg, jpeg, only jxl, cls"):
        opened(write_webdataset(tmp_path / "other", LABELS, suffix="jxl"))


def test_flags_that_are_none(tmp_path):
    root = write_webdataset(tmp_path / "wds", {"train": [[1, 0]], "test": [[0, 2, 1]]})
    with pytest.raises(DataError, match=r"label of 's0000000': expected 3 zeros and ones, got \(2,\)"):
        opened(root)
    with pytest.raises(DataError, match=r"expected 3 zeros and ones, got \(3,\)"):
        opened(root, train="test")


def test_an_argument_that_is_none(shards):
    with pytest.raises(
        UnknownNameError, match="unknown argument of data set 'webdataset': 'tran'; did you mean 'train'"
    ):
        opened(shards, tran="x")
