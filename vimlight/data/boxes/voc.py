"""Annotations in Pascal VOC's XML format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from xml.etree import ElementTree
from xml.parsers import expat

from vimlight.data.boxes.targets import BoxAnnotations, RawBox, pack_boxes
from vimlight.data.boxes.values import as_flag, as_number, image_size, stated_side
from vimlight.data.listings import check_files, read_lines
from vimlight.errors import DataError, cut, shown, unknown_name
from vimlight.files.absent import absence
from vimlight.files.text import is_file

__all__ = ["VOC_CLASSES", "object_names", "read_voc"]

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


def read_voc(
    root: Path, split: str, *, classes: Sequence[str] = VOC_CLASSES, skip_degenerate: bool = False
) -> BoxAnnotations:
    """Reads the boxes of one part of a VOC folder.

    Where `<size>` is missing or 0, as some tools write it, the image file says its size.

    Args:
        root: Folder with `Annotations`, `JPEGImages` and `ImageSets/Main`, such as `VOCdevkit/VOC2012`.
        split: Name of the list of images in `ImageSets/Main`, such as `"train"`.
        classes: Names of the classes, in order.
        skip_degenerate: Whether boxes without area are left out; see `pack_boxes`.

    Raises:
        DataError: If a list, an annotation or an image is missing or malformed, an annotation declares entities, or a
            box has no area.
        UnknownNameError: If an object is of another class.
    """
    listing, names = _listed(root, split)
    objects, stated, files = [], [], []
    for name in names:
        file = root / "Annotations" / f"{name}.xml"
        tree = _parse(file)
        stated.append([stated_side(tree.findtext(key), f"{file}: <{key}>") for key in ("size/height", "size/width")])
        objects.append([_object(file, number, found, classes) for number, found in enumerate(tree.iter("object"), 1)])
        files.append(root / "JPEGImages" / (tree.findtext("filename") or f"{name}.jpg"))
    check_files(listing, files)
    sizes = [image_size(sides, file) for sides, file in zip(stated, files, strict=True)]
    targets = pack_boxes(objects, sizes, [str(file) for file in files], skip_degenerate=skip_degenerate)
    return BoxAnnotations(tuple(files), tuple(names), targets, tuple(classes))


def object_names(root: Path, splits: Iterable[str]) -> set[str]:
    """Returns the classes that occur among the objects of some parts; see `read_voc`."""
    trees = (_parse(root / "Annotations" / f"{name}.xml") for split in splits for name in _listed(root, split)[1])
    return {_name(found) for tree in trees for found in tree.iter("object")}


def _listed(root: Path, split: str) -> tuple[Path, list[str]]:
    listing = root / "ImageSets" / "Main" / f"{split}.txt"
    names = [line.split()[0] for line in read_lines(listing) if line]
    if not names:
        raise DataError(f"list of images {listing} is empty")
    return listing, names


def _name(found: ElementTree.Element) -> str:
    return (found.findtext("name") or "").strip()


def _parse(file: Path) -> ElementTree.Element:
    if not is_file(file):
        raise DataError(f"annotation file {cut(file, 500)} {absence(file)}")
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler, parser.EntityDeclHandler = builder.data, partial(_refuse_entity, file)
    try:
        parser.Parse(file.read_bytes(), True)
    except (expat.ExpatError, OSError, ValueError, LookupError) as error:
        raise DataError(f"annotation file {file} is not XML: {error}") from error
    return builder.close()


def _refuse_entity(file: Path, name: str, *_: Any) -> NoReturn:
    # A few of them, one inside the other, are a text of any length.
    raise DataError(f"annotation file {file} declares the entity {shown(name)}, which no annotation needs; take it out")


def _object(file: Path, number: int, found: ElementTree.Element, classes: Sequence[str]) -> RawBox:
    name = _name(found)
    if not name:
        raise DataError(f"{file}: object {number} has no <name>")
    if name not in classes:
        raise unknown_name(f"class of object {number} in {file}:", name, classes)
    left, top, right, bottom = (_side(file, number, found, key) for key in ("xmin", "ymin", "xmax", "ymax"))
    difficult = as_flag(found.findtext("difficult"))
    if difficult is None:
        given = found.findtext("difficult")
        raise DataError(f"{file}: object {number} needs 0 or 1 in <difficult>, got {shown(given)}")
    # The format counts pixels from 1, and its right and bottom pixels belong to the object.
    corners = (left - 1, top - 1, right, bottom)
    return RawBox(f"object {number} ({name})", corners, list(classes).index(name), difficult)


def _side(file: Path, number: int, found: ElementTree.Element, key: str) -> float:
    text = found.findtext(f"bndbox/{key}")
    side = as_number(text)
    if side is None:
        raise DataError(f"{file}: object {number} needs a number in <bndbox/{key}>, got {shown(text)}")
    return side
