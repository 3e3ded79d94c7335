"""Image files in one folder per class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from vimlight.data.classes import Classes, choose, natural_order, vocabulary
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import FileTable
from vimlight.errors import DataError, nearest, unknown_name

__all__ = ["existing_folder", "image_files", "image_folder"]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
VALIDATION_NAMES = ("val", "valid", "validation")


@SOURCES.register("image_folder")
def image_folder(root: str, classes: Classes | None = None) -> Source:
    """Opens `root/class/*.png`, or `root/train/class/*.png` with `root/test` and `root/val` beside it where present.

    A folder `train` that holds images instead of folders is a class of that name, as vehicles have one.

    Args:
        root: The folder. Class names are those of the folders: by value where all of them are numbers, else in
            alphabetical order.
        classes: Names of some of the folders, in the order that the classes are to have.

    Raises:
        DataError: If a folder is missing or empty.
        UnknownNameError: If another part has a class that the training part lacks, or there is no such class.
    """
    folder = existing_folder(root)
    base = folder / "train" if _is_part(folder / "train") else folder
    found = _class_folders(base)
    known = vocabulary(found, None, f"folder {base}") if classes is None else natural_order(found)
    if not known:
        raise DataError(f"no class folder in {base}; expected {base}/CLASS/*.png")
    names = choose(known, classes, f"folder {base}")
    train = _table(base, names, known, folder, empty_classes=False)
    if base == folder:
        return Source(folder.name, "classification", names, train)
    val = next((folder / name for name in VALIDATION_NAMES if (folder / name).is_dir()), None)
    test = folder / "test"
    return Source(
        folder.name,
        "classification",
        names,
        train,
        test=_table(test, names, known, folder) if test.is_dir() else None,
        val=_table(val, names, known, folder) if val else None,
    )


def existing_folder(path: str) -> Path:
    """Returns `path` as a folder that exists.

    Raises:
        DataError: If it does not; the text gives the nearest name beside it.
    """
    folder = Path(path).expanduser()
    if folder.is_dir():
        return folder
    siblings = [entry.name for entry in folder.parent.iterdir() if entry.is_dir()] if folder.parent.is_dir() else []
    close = nearest(folder.name, siblings, 1)
    hint = f"; did you mean {folder.parent / close[0]}?" if close else ""
    raise DataError(f"folder {folder} does not exist{hint}")


def image_files(folder: Path) -> list[Path]:
    """Returns the image files in a folder and below, in alphabetical order, hidden ones left out.

    Raises:
        DataError: If there is none.
    """
    files = _images(folder.rglob("*"))
    if not files:
        raise DataError(f"folder {folder} holds no image ({', '.join(SUFFIXES)})")
    return files


def _images(paths: Iterable[Path]) -> list[Path]:
    return [path for path in sorted(paths) if path.suffix.lower() in SUFFIXES and path.name[0] != "."]


def _is_part(folder: Path) -> bool:
    return folder.is_dir() and (bool(_class_folders(folder)) or not _images(folder.iterdir()))


def _class_folders(base: Path) -> list[str]:
    return [entry.name for entry in base.iterdir() if entry.is_dir() and not entry.name.startswith(".")]


def _table(
    base: Path, classes: Sequence[str], known: Sequence[str], root: Path, empty_classes: bool = True
) -> FileTable:
    for name in sorted(_class_folders(base)):
        if name not in known:
            raise unknown_name(f"class folder in {base}", name, known)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        if empty_classes and not (base / name).is_dir():
            continue
        files = image_files(base / name)
        paths += files
        labels += [label] * len(files)
    return FileTable(paths, torch.tensor(labels), root)
