"""Images and masks in folders side by side: `images/NAME.jpg` with `masks/NAME.png`."""

from __future__ import annotations

from pathlib import Path

from vimlight.data.classes import Classes, choose_classes
from vimlight.data.listings import read_lines
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable
from vimlight.data.target_files import MaskFiles, paired_files
from vimlight.errors import ConfigError, DataError

__all__ = ["class_names", "mask_folder"]

NAMES = "classes.txt"


@SOURCES.register("mask_folder")
def mask_folder(
    root: str,
    classes: Classes | None = None,
    images: str = "images",
    masks: str = "masks",
    pixel_values: list[int] | None = None,
) -> Source:
    """Opens a folder for semantic segmentation.

    Masks are grey or palette PNG files whose pixels are class numbers, 255 where the class is unknown.

    Args:
        root: A folder with `images/` and `masks/`, or with these in `train/`, `val/` and `test/`, or with `train/` and
            so on in these.
        classes: Names of some of the classes of `root/classes.txt`, whose lines name them by number, in the order that
            they are to have; pixels of all others are unknown. Without that file, the names of all classes by number.
        images: Name of the folders of images.
        masks: Name of the folders of masks.
        pixel_values: The pixels' value of each class, such as `[0, 128]`, where it is not the number, in the order of
            the file if there is one; other values are unknown.

    Raises:
        ConfigError: If there are not as many values as classes.
        DataError: If a folder, a mask or the names are missing.
        UnknownNameError: If there is no such class.
    """
    folder = existing_folder(root)
    names = class_names(folder) or tuple(map(str, classes or ()))
    if not names:
        raise DataError(
            f"the names of the classes are unknown: write them to {folder / NAMES}, or give dataset_args: classes"
        )
    if pixel_values is not None and (len(pixel_values) != len(names) or not set(pixel_values) <= set(range(256))):
        raise ConfigError(
            f"pixel_values must name one value from 0 to 255 a class, {len(names)} of them; got {pixel_values}"
        )
    tables = {
        split: FileTable(files, MaskFiles(partners, len(names), pixel_values), folder)
        for split, (files, partners) in paired_files(folder, images, masks, (".png",)).items()
    }
    return choose_classes(Source(folder.name, "segmentation", names, **tables), classes)


def class_names(folder: Path) -> tuple[str, ...]:
    """Returns the names of the classes by number, which are the lines of `classes.txt`; none without that file.

    Raises:
        DataError: If it is no text, or a line between them is empty, so that the numbers are in doubt.
    """
    file = folder / NAMES
    if not file.is_file():
        return ()
    lines = read_lines(file)
    if "" in lines:
        raise DataError(f"{file}, line {lines.index('') + 1} is empty; expected the name of class {lines.index('')}")
    return tuple(lines)
