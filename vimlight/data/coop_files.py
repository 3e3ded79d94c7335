"""How CoOp's eleven data sets lie on disk: folders, split files, class names and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimlight.data.listings import read_json, read_lines
from vimlight.data.sources.image_folder import existing_folder, image_files
from vimlight.errors import DataError, shown, unknown_name

__all__ = ["DATASETS", "CoopDataset", "CoopFiles", "Row", "read_rows", "read_split"]

Row = tuple[str, int, str]
"""Path of an image from the folder of images, label, and the class's name."""

_SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class CoopDataset:
    """One of the eleven data sets.

    Attributes:
        images: Folder of its images, which the split file's paths start from.
        split: Its split file; the others have lists of their own.
        prompt: The published prompt, `{}` for the class name.
    """

    images: str
    split: str
    prompt: str = "a photo of a {}."


DATASETS = {
    "caltech-101": CoopDataset("101_ObjectCategories", "split_zhou_Caltech101.json"),
    "dtd": CoopDataset("images", "split_zhou_DescribableTextures.json", "{} texture."),
    "eurosat": CoopDataset("2750", "split_zhou_EuroSAT.json", "a centered satellite photo of {}."),
    "fgvc_aircraft": CoopDataset("images", "", "a photo of a {}, a type of aircraft."),
    "food-101": CoopDataset("images", "split_zhou_Food101.json", "a photo of {}, a type of food."),
    "imagenet": CoopDataset("images", ""),
    "oxford_flowers": CoopDataset("jpg", "split_zhou_OxfordFlowers.json", "a photo of a {}, a type of flower."),
    "oxford_pets": CoopDataset("images", "split_zhou_OxfordPets.json", "a photo of a {}, a type of pet."),
    "stanford_cars": CoopDataset("", "split_zhou_StanfordCars.json"),
    "sun397": CoopDataset("SUN397", "split_zhou_SUN397.json"),
    "ucf101": CoopDataset("UCF-101-midframes", "split_zhou_UCF101.json", "a photo of a person doing {}."),
}


@dataclass(frozen=True)
class CoopFiles:
    """The files of one data set.

    Attributes:
        folder: Its folder.
        about: What is known of it.
    """

    folder: Path
    about: CoopDataset

    @property
    def images(self) -> Path:
        """The folder that paths of images start from."""
        return self.folder / self.about.images

    @property
    def listing(self) -> Path:
        """The file that names the classes, and where there is one split file the images too."""
        own = {"fgvc_aircraft": "variants.txt", "imagenet": "classnames.txt"}
        return self.folder / (self.about.split or own[self.folder.name])

    def missing(self) -> str:
        """Returns the first file or folder that it needs and that is not there; nothing if all is."""
        return next((str(path) for path in (self.folder, self.images, self.listing) if not path.exists()), "")


def read_split(files: CoopFiles) -> dict[str, list[Row]]:
    """Reads the images of each part that a data set has.

    Raises:
        DataError: If a folder or file is missing or malformed.
    """
    existing_folder(str(files.folder))
    if files.folder.name == "fgvc_aircraft":
        return _aircraft(files)
    if files.folder.name == "imagenet":
        return _imagenet(files)
    return read_rows(files.listing, _SPLITS)


def read_rows(file: Path, splits: Sequence[str]) -> dict[str, list[Row]]:
    """Reads a split file: for each part a list of path, label and class name.

    Args:
        file: The JSON file.
        splits: The parts that it must have.

    Raises:
        DataError: If it is missing or malformed.
    """
    content = read_json(file)
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in splits):
        raise DataError(f"{file}: expected lists of images under the keys {', '.join(splits)}")
    return {
        split: [_row(file, split, number, entry) for number, entry in enumerate(content[split], 1)] for split in splits
    }


def _row(file: Path, split: str, number: int, entry: Any) -> Row:
    if isinstance(entry, list) and len(entry) == 3:
        path, label, name = entry
        if isinstance(path, str) and isinstance(name, str) and type(label) is int and label >= 0:
            return path, label, name
    where = f"{file}, entry {number} of {split}"
    raise DataError(f"{where}: expected [path, label from 0 on, class name], got {shown(entry)}")


def _aircraft(files: CoopFiles) -> dict[str, list[Row]]:
    names = read_lines(files.listing)
    labels = {name: label for label, name in enumerate(names)}
    found: dict[str, list[Row]] = {}
    for split in _SPLITS:
        file = files.folder / f"images_variant_{split}.txt"
        found[split] = []
        for number, line in enumerate(read_lines(file), start=1):
            identity, _, name = line.partition(" ")
            if name not in labels:
                raise unknown_name(f"variant in line {number} of {file}", name, labels)
            found[split].append((f"{identity}.jpg", labels[name], name))
    return found


def _imagenet(files: CoopFiles) -> dict[str, list[Row]]:
    names = {}
    for number, line in enumerate(read_lines(files.listing), start=1):
        wnid, _, name = line.partition(" ")
        if not name:
            where = f"{files.listing}, line {number}"
            raise DataError(f"{where}: expected the name of a folder and of its class: {shown(line)}")
        names[wnid] = name
    found: dict[str, list[Row]] = {}
    folders = sorted(path.name for path in existing_folder(str(files.images / "train")).iterdir() if path.is_dir())
    for split, part in (("train", "train"), ("test", "val")):
        found[split] = []
        for label, wnid in enumerate(folders):
            if wnid not in names:
                raise DataError(f"{files.listing} does not name the class of the folder {files.images / part / wnid}")
            paths = image_files(existing_folder(str(files.images / part / wnid)))
            found[split] += [(path.relative_to(files.images).as_posix(), label, names[wnid]) for path in paths]
    return found
