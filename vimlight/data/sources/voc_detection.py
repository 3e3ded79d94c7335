"""Images with boxes in Pascal VOC's format."""

from __future__ import annotations

from vimlight.data.boxes import read_voc
from vimlight.data.boxes.voc import VOC_CLASSES, object_names
from vimlight.data.classes import Classes, choose_classes, vocabulary
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.coco_detection import table_of
from vimlight.data.sources.image_folder import existing_folder

__all__ = ["voc_detection"]


@SOURCES.register("voc_detection")
def voc_detection(
    root: str,
    train: str = "train",
    val: str | None = None,
    test: str | None = "val",
    classes: Classes | None = None,
    skip_degenerate: bool = False,
) -> Source:
    """Opens a VOC folder, such as `VOCdevkit/VOC2012`, whose validation part serves as the test.

    Difficult objects are neither learnt nor counted.

    Args:
        root: The folder, with `Annotations`, `JPEGImages` and `ImageSets/Main`.
        train: Name of the list of images to learn from, in `ImageSets/Main`.
        val: That of images for validation; without one, some of the others are lent.
        test: That of images for the test; without one, some of the others are set apart.
        classes: Names of some of the classes that the objects have, or of all, in the order that they are to have; by
            default VOC's twenty.
        skip_degenerate: Whether boxes without area are left out rather than refused.

    Raises:
        DataError: If a list, an annotation or an image is missing or malformed.
        UnknownNameError: If an object is none of VOC's, or no object is of a class that is named.
    """
    folder, lists = existing_folder(root), {"train": train, "val": val, "test": test}
    splits = {name: split for name, split in lists.items() if split is not None}
    names: tuple[str, ...] = VOC_CLASSES
    if classes is not None:
        names = vocabulary(object_names(folder, splits.values()), classes, f"data set {folder.name!r}")
    tables = {
        name: table_of(read_voc(folder, split, classes=names, skip_degenerate=skip_degenerate), folder)
        for name, split in splits.items()
    }
    return choose_classes(Source(folder.name, "detection", names, **tables), classes)
