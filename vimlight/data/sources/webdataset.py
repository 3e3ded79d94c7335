"""Folders of WebDataset tar files as CLIP_benchmark writes them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vimlight.data.listings import label_of, read_lines
from vimlight.data.pictures import open_picture
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import ItemTable
from vimlight.data.tar_samples import Sample, read_samples
from vimlight.errors import DataError, shown
from vimlight.files.arrays import ARRAY_FAULTS, load_array
from vimlight.files.text import read_text

__all__ = ["webdataset"]

IMAGES = ("webp", "png", "jpg", "jpeg")
_KINDS = {"classification": "cls", "multilabel": "npy"}


@SOURCES.register("webdataset")
def webdataset(root: str, train: str = "train", val: str | None = None, test: str | None = "test") -> Source:
    """Opens a folder of tar files, with names of classes in `classnames.txt`.

    Images are read where they are in the tar files, nothing is unpacked.

    Args:
        root: The folder: `root/SPLIT/nshards.txt` with the number of shards, `root/SPLIT/0.tar` and so on with an
            image (`webp`, `png` or `jpg`) and a label (`cls`, or `npy` of zeros and ones) for each key,
            `root/classnames.txt` with a name a line, and `root/dataset_type.txt` where labels are several an image.
        train: Folder of the images to learn from.
        val: Folder of images for validation; without one, some of the others are lent.
        test: Folder of images for the test; without one, some of the others are set apart.

    Raises:
        DataError: If a file is missing or malformed, a shard is damaged, or the samples have no classes.
    """
    folder = existing_folder(root)
    kind = _kind(folder)
    # An empty line is a class without a name, so that numbers keep their meaning.
    names = tuple(_lines(folder / "classnames.txt"))
    tables = {
        split: _table(folder / part, kind, len(names))
        for split, part in (("train", train), ("val", val), ("test", test))
        if part is not None
    }
    return Source(folder.name, kind, names, **tables)


def _kind(folder: Path) -> str:
    file = folder / "dataset_type.txt"
    kind = read_lines(file)[0] if file.is_file() and read_lines(file) else "classification"
    if kind not in _KINDS:
        raise DataError(f"{file} says {shown(kind)}; expected {' or '.join(_KINDS)}, whose images have classes")
    return kind


def _lines(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(f"{file} does not exist; expected the name of a class in each line")
    return [line.strip() for line in read_text(file, DataError).removesuffix("\n").split("\n")]


def _table(folder: Path, kind: str, count: int) -> ItemTable:
    if not folder.is_dir():
        beside = sorted(path.parent.name for path in folder.parent.glob("*/nshards.txt"))
        raise DataError(
            f"folder {folder} does not exist; found: {', '.join(beside) or 'none'}; choose with train, val and test"
        )
    samples = [sample for shard in _shards(folder) for sample in read_samples(shard)]
    if not samples:
        raise DataError(f"the shards in {folder} hold no sample")
    for sample in samples:
        # That an image is missing shall show before the first epoch.
        sample.place(IMAGES)
    read = _label if kind == "classification" else _flags
    targets = torch.stack([read(sample, count) for sample in samples])
    ids = [f"{folder.name}/{sample.file.stem}/{sample.key}" for sample in samples]
    return ItemTable(samples, _picture, targets, ids)


def _shards(folder: Path) -> Iterator[Path]:
    file = folder / "nshards.txt"
    lines = read_lines(file)
    count = label_of(lines[0], sys.maxsize) if len(lines) == 1 else None
    if count is None:
        raise DataError(f"{file}: expected the number of shards, got {shown(' '.join(lines))}")
    # One after the other: a number that is wrong may be large.
    return (folder / f"{number}.tar" for number in range(count))


def _label(sample: Sample, count: int) -> Tensor:
    content = sample.read(["cls"]).getvalue()
    text = content.decode("utf-8", errors="replace").strip()
    if (label := label_of(text, count)) is None:
        raise DataError(
            f"{sample.file}: label of {shown(sample.key)}: expected a number from 0 to {count - 1}, got {shown(text)}"
        )
    return torch.tensor(label)


def _flags(sample: Sample, count: int) -> Tensor:
    try:
        flags = load_array(sample.read(["npy"]))
    except ARRAY_FAULTS as error:
        raise DataError(f"{sample.file}: label of {shown(sample.key)} is no array of numpy: {error}") from error
    if flags.shape != (count,) or not np.isin(flags, (0, 1)).all():
        raise DataError(
            f"{sample.file}: label of {shown(sample.key)}: expected {count} zeros and ones, got {flags.shape}"
        )
    return torch.from_numpy(flags.astype(np.int64))


def _picture(sample: Sample) -> Image.Image:
    return open_picture(sample.read(IMAGES))
