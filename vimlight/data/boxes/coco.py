"""Annotations in COCO's JSON format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from vimlight.data.boxes.targets import BoxAnnotations, RawBox, pack_boxes
from vimlight.data.boxes.values import as_flag, as_id, as_number, image_size, stated_side
from vimlight.data.listings import check_files, read_json
from vimlight.errors import DataError, shown

__all__ = ["read_coco"]

_SIDES = ("height", "width")


def read_coco(
    annotations: Path,
    images: Path,
    *,
    categories: Mapping[int, str] | None = None,
    skip_degenerate: bool = False,
) -> BoxAnnotations:
    """Reads the boxes of a COCO file; no image is opened unless the file lacks its size.

    Classes are in the order of the category ids, which may have gaps. Images without annotations are kept. Numbers may
    be written as text; an id that is the text of a number is that number.

    Args:
        annotations: The JSON file, with `images`, `annotations` and `categories`.
        images: Folder of the images.
        categories: Names by id of the file that is trained on, where this is another part of the same data set.
        skip_degenerate: Whether boxes without area are left out; see `pack_boxes`.

    Raises:
        DataError: If the file is missing or malformed, an image is missing, an annotation belongs to no image or no
            category, the categories differ from those given, a number or flag is none, or a box has no area.
    """
    content = _load(annotations)
    names = _categories(annotations, content["categories"], categories)
    label_of = {number: label for label, number in enumerate(names)}
    entries = _by_id(annotations, "image", content["images"])
    found: dict[Any, list[RawBox]] = {number: [] for number in entries}
    for annotation in content["annotations"]:
        what = f"annotation {shown(annotation.get('id', '?'))}"
        image = as_id(annotation.get("image_id"))
        if image not in found:
            given = shown(annotation.get("image_id"))
            raise DataError(f"{annotations}: {what} belongs to image {given}, which is not there")
        found[image].append(_box(annotations, what, annotation, label_of, names))
    files = [images / _file_name(annotations, entry) for entry in entries.values()]
    check_files(annotations, files)
    sizes = [_size(annotations, entry, file) for entry, file in zip(entries.values(), files, strict=True)]
    targets = pack_boxes(
        list(found.values()), sizes, list(map(str, files)), category_ids=tuple(names), skip_degenerate=skip_degenerate
    )
    return BoxAnnotations(tuple(files), tuple(map(str, entries)), targets, tuple(names.values()))


def _load(file: Path) -> dict[str, Any]:
    content = read_json(file)
    for key in ("images", "annotations", "categories"):
        rows = content.get(key) if isinstance(content, dict) else None
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise DataError(f"{file} is no COCO annotation file: it lacks a list of objects under {key!r}")
    return dict(content)


def _by_id(file: Path, what: str, rows: Sequence[Mapping[str, Any]]) -> dict[Any, Mapping[str, Any]]:
    entries: dict[Any, Mapping[str, Any]] = {}
    for row in rows:
        number = as_id(row.get("id"))
        if number is None:
            raise DataError(f"{file}: an {what} has no id that is a number or a text: {shown(row)}")
        if number in entries:
            raise DataError(f"{file}: {what} id {shown(number)} occurs twice")
        entries[number] = row
    return entries


def _categories(
    file: Path, rows: Sequence[Mapping[str, Any]], expected: Mapping[int, str] | None
) -> dict[int, str]:
    entries = _by_id(file, "entry of the categories", rows)
    texts = [number for number in entries if isinstance(number, str)]
    if texts:
        raise DataError(f"{file}: category id {shown(texts[0])} is no whole number")
    names = {number: _name(file, entries[number], number) for number in sorted(entries)}
    if len(set(names.values())) < len(names):
        raise DataError(f"{file}: two categories have one name: {shown(names)}")
    if expected is None:
        return names
    for number, name in names.items():
        if expected.get(number) != name:
            known = f"{number} is {shown(expected[number])}" if number in expected else f"there is no {number}"
            raise DataError(f"{file}: category {number} is {shown(name)}, but in the file to train on {known}")
    return dict(expected)


def _name(file: Path, category: Mapping[str, Any], number: int) -> str:
    name = category.get("name")
    if not isinstance(name, str | int | float | None):
        raise DataError(f"{file}: category {number} needs a text for 'name', got {shown(name)}")
    return str(number if name is None else name)


def _file_name(file: Path, image: Mapping[str, Any]) -> str:
    name = image.get("file_name")
    if not isinstance(name, str) or not name:
        raise DataError(f"{file}: image {shown(image['id'])} needs a text for 'file_name', got {shown(name)}")
    return name


def _box(
    file: Path, what: str, annotation: Mapping[str, Any], label_of: Mapping[int, int], names: Mapping[int, str]
) -> RawBox:
    category, crowd = as_id(annotation.get("category_id")), as_flag(annotation.get("iscrowd"))
    if category not in label_of:
        given = shown(annotation.get("category_id"))
        raise DataError(f"{file}: {what} has the unknown category {given}; known: {shown(names)}")
    if crowd is None:
        raise DataError(f"{file}: {what} needs 0 or 1 for 'iscrowd', got {shown(annotation['iscrowd'])}")
    return RawBox(what, _corners(file, what, annotation), label_of[cast(int, category)], crowd)


def _corners(file: Path, what: str, annotation: Mapping[str, Any]) -> tuple[float, float, float, float]:
    box = annotation.get("bbox")
    numbers = [as_number(value) for value in box] if isinstance(box, list) else []
    if len(numbers) != 4 or None in numbers:
        raise DataError(f"{file}: {what} needs a 'bbox' of four numbers [left, top, width, height], got {shown(box)}")
    left, top, width, height = cast(list[float], numbers)
    return left, top, left + width, top + height


def _size(annotations: Path, entry: Mapping[str, Any], file: Path) -> tuple[int, int]:
    """Returns height and width in pixels."""
    sides = [stated_side(entry.get(key), f"{annotations}: {key!r} of image {entry['id']}") for key in _SIDES]
    return image_size(sides, file)
