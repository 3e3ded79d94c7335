"""Semantic segmentation in the folders of Pascal VOC."""

from __future__ import annotations

from pathlib import Path

from vimlight.data.boxes.voc import VOC_CLASSES
from vimlight.data.listings import check_files, read_lines
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.sources.mask_folder import class_names
from vimlight.data.tables import FileTable
from vimlight.data.target_files import MaskFiles

__all__ = ["voc_segmentation"]


@SOURCES.register("voc_segmentation")
def voc_segmentation(
    root: str,
    train: str = "train",
    test: str | None = "val",
    val: str | None = None,
    masks: str = "SegmentationClass",
) -> Source:
    """Opens a folder of Pascal VOC; it publishes no labels of its own test part, so `val` serves for the test.

    The classes are VOC's own, the background first, or those that the lines of `root/classes.txt` name by number.

    Args:
        root: Folder with `JPEGImages`, the masks and `ImageSets/Segmentation`, such as `VOCdevkit/VOC2012`.
        train: Name of the list of training images.
        test: Name of the list of test images; none to set some of the training images apart.
        val: Name of the list of validation images; none to lend some of the training images.
        masks: Name of the folder of masks.

    Raises:
        DataError: If a folder, list, image or mask is missing.
    """
    folder = existing_folder(root)
    names = class_names(folder) or ("background", *VOC_CLASSES)
    lists = {split: name for split, name in (("train", train), ("val", val), ("test", test)) if name is not None}
    tables = {split: _table(folder, name, masks, len(names)) for split, name in lists.items()}
    return Source(folder.name, "segmentation", names, **tables)


def _table(folder: Path, name: str, masks: str, count: int) -> FileTable:
    listing = folder / "ImageSets" / "Segmentation" / f"{name}.txt"
    stems = [stem for line in read_lines(listing) for stem in line.split()]
    images = [folder / "JPEGImages" / f"{stem}.jpg" for stem in stems]
    partners = [folder / masks / f"{stem}.png" for stem in stems]
    check_files(listing, images)
    check_files(listing, partners, "masks")
    return FileTable(images, MaskFiles(partners, count), folder / "JPEGImages")
