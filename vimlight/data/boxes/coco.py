"""Annotations in COCO's JSON format."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from vimlight.data.boxes.targets import BoxAnnotations, RawBox, pack_boxes
from vimlight.errors import DataError

__all__ = ["read_coco"]


def read_coco(
    annotations: Path,
    images: Path,
    *,
    categories: Mapping[int, str] | None = None,
    skip_degenerate: bool = False,
) -> BoxAnnotations:
    """Reads the boxes of a COCO file; no image is opened unless the file lacks its size.

    Classes are in the order of the category ids, which may have gaps. Images without annotations are kept.

    Args:
        annotations: The JSON file, with `images`, `annotations` and `categories`.
        images: Folder of the images.
        categories: Names by id of the file that is trained on, where this is another part of the same data set.
        skip_degenerate: Whether boxes without area are left out; see `pack_boxes`.

    Raises:
        DataError: If the file is missing or malformed, an image is missing, an annotation belongs to no image or no
            category, the categories differ from those given, or a box has no area.
    """
    content = _load(annotations)
    names = _categories(annotations, content["categories"], categories)
    label_of = {number: label for label, number in enumerate(names)}
    entries = _by_id(annotations, "image", content["images"])
    found: dict[Any, list[RawBox]] = {number: [] for number in entries}
    for annotation in content["annotations"]:
        what = f"annotation {annotation.get('id', '?')}"
        image = annotation.get("image_id")
        if image not in found:
            raise DataError(f"{annotations}: {what} belongs to image {image!r}, which is not there")
        if annotation.get("category_id") not in label_of:
            given = f"{annotation.get('category_id')!r}; known: {_shortened(names)}"
            raise DataError(f"{annotations}: {what} has the unknown category {given}")
        crowd = bool(annotation.get("iscrowd", 0))
        box = RawBox(what, _corners(annotations, what, annotation), label_of[annotation["category_id"]], crowd)
        found[image].append(box)
    files = [images / str(entry.get("file_name")) for entry in entries.values()]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(f"{annotations}: {len(missing)} of {len(files)} images do not exist; the first: {missing[0]}")
    sizes = [_size(entry, file) for entry, file in zip(entries.values(), files, strict=True)]
    targets = pack_boxes(
        list(found.values()), sizes, list(map(str, files)), category_ids=tuple(names), skip_degenerate=skip_degenerate
    )
    return BoxAnnotations(tuple(files), tuple(map(str, entries)), targets, tuple(names.values()))


def _load(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"annotation file {file} does not exist")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"annotation file {file} is not JSON: {error}") from error
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file} is no COCO annotation file: it lacks a list of objects under {key!r}")
    return dict(content)


def _by_id(file: Path, what: str, rows: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    entries: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        number = row.get("id")
        if not isinstance(number, int | str):
            raise DataError(f"{file}: an {what} has no id: {_shortened(row)}")
        if number in entries:
            raise DataError(f"{file}: {what} id {number!r} occurs twice")
        entries[number] = row
    return entries


def _categories(
    file: Path, rows: Sequence[Mapping[str, Any]], expected: Mapping[int, str] | None
) -> dict[int, str]:
    entries = _by_id(file, "entry of the categories", rows)
    names = {number: str(entries[number].get("name", number)) for number in sorted(entries)}
    if len(set(names.values())) < len(names):
        raise DataError(f"{file}: two categories have one name: {_shortened(names)}")
    if expected is None:
        return names
    for number, name in names.items():
        if expected.get(number) != name:
            known = f"{number} is {expected[number]!r}" if number in expected else f"there is no {number}"
            raise DataError(f"{file}: category {number} is {name!r}, but in the file to train on {known}")
    return dict(expected)


def _corners(file: Path, what: str, annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    box = annotation.get("bbox")
    if not isinstance(box, list) or len(box) != 4 or not all(isinstance(value, int | float) for value in box):
        raise DataError(f"{file}: {what} needs a 'bbox' of four numbers [left, top, width, height], got {box!r}")
    left, top, width, height = (float(value) for value in box)
    return left, top, left + width, top + height


def _size(entry: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """Returns height and width in pixels."""
    height, width = entry.get("height"), entry.get("width")
    if isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0:
        return height, width
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except OSError as error:
        raise DataError(f"cannot read the size of image {file}: {error}") from error


def _shortened(value: Mapping[Any, Any]) -> str:
    text = str(dict(value))
    return text if len(text) <= 120 else f"{text[:117]}..."
