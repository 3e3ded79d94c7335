"""Images with boxes in COCO's format."""

from __future__ import annotations

from pathlib import Path

from vimlight.data.boxes import BoxAnnotations, read_coco
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable

__all__ = ["coco_detection", "table_of"]


@SOURCES.register("coco_detection")
def coco_detection(
    root: str,
    train: str = "annotations/instances_train2017.json",
    train_images: str = "train2017",
    val: str | None = None,
    val_images: str = "val2017",
    test: str | None = "annotations/instances_val2017.json",
    test_images: str = "val2017",
    skip_degenerate: bool = False,
) -> Source:
    """Opens COCO annotation files; the defaults are COCO's own, whose validation part serves as the test.

    The ids of images are those of the file. Crowds are neither learnt nor counted.

    Args:
        root: The folder that all other paths start from.
        train: Annotation file of the images to learn from.
        train_images: Folder of these images.
        val: Annotation file of images for validation; without one, some of the others are lent.
        val_images: Folder of these images.
        test: Annotation file of images for the test; without one, some of the others are set apart.
        test_images: Folder of these images.
        skip_degenerate: Whether boxes without area are left out rather than refused.

    Raises:
        DataError: If a file or an image is missing or malformed; see `vimlight.data.boxes.read_coco`.
    """
    folder = existing_folder(root)
    first = read_coco(folder / train, folder / train_images, skip_degenerate=skip_degenerate)
    known = dict(zip(first.targets.category_ids or (), first.class_names, strict=True))

    def part(annotations: str | None, images: str) -> FileTable | None:
        if annotations is None:
            return None
        found = read_coco(folder / annotations, folder / images, categories=known, skip_degenerate=skip_degenerate)
        return table_of(found, folder)

    return Source(
        folder.name,
        "detection",
        first.class_names,
        table_of(first, folder),
        test=part(test, test_images),
        val=part(val, val_images),
    )


def table_of(found: BoxAnnotations, root: Path) -> FileTable:
    """Returns the table of annotated images.

    Args:
        found: Images and their objects.
        root: Folder of the data set.
    """
    return FileTable(found.files, found.targets, root, found.ids)
