"""Images and masks in folders side by side: `images/NAME.jpg` with `masks/NAME.png`."""

from __future__ import annotations

from pathlib import Path

from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable, Source
from vimlight.data.target_files import MaskFiles, paired_files
from vimlight.errors import ConfigError, DataError

__all__ = ["mask_folder"]


@SOURCES.register("mask_folder")
def mask_folder(
    root: str,
    classes: list[str] | None = None,
    images: str = "images",
    masks: str = "masks",
    pixel_values: list[int] | None = None,
) -> Source:
    """Opens a folder for semantic segmentation.

    Masks are grey or palette PNG files whose pixels are class numbers, 255 where the class is unknown.

    Args:
        root: A folder with `images/` and `masks/`, or with these in `train/`, `val/` and `test/`, or with `train/` and
            so on in these.
        classes: Names of the classes by number; by default the lines of `root/classes.txt`.
        images: Name of the folders of images.
        masks: Name of the folders of masks.
        pixel_values: The pixels' value of each class, such as `[0, 128]`, where it is not the number; other values are
            unknown.

    Raises:
        ConfigError: If there are not as many values as classes.
        DataError: If a folder, a mask or the names are missing.
    """
    folder = existing_folder(root)
    names = tuple(classes or _names(folder / "classes.txt"))
    if pixel_values is not None and (len(pixel_values) != len(names) or not set(pixel_values) <= set(range(256))):
        raise ConfigError(
            f"pixel_values must name one value from 0 to 255 a class, {len(names)} of them; got {pixel_values}"
        )
    tables = {
        split: FileTable(files, MaskFiles(partners, len(names), pixel_values), folder)
        for split, (files, partners) in paired_files(folder, images, masks, (".png",)).items()
    }
    return Source(folder.name, "segmentation", names, **tables)


def _names(file: Path) -> list[str]:
    if not file.is_file():
        raise DataError(f"the names of the classes are unknown: write them to {file}, or give dataset_args: classes")
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
