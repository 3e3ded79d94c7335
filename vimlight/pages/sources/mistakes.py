"""Images that a run took for another class, where the run noted them and their files are still there."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from vimlight.data.pictures import UNREADABLE, opened, rgb_tensor
from vimlight.errors import ConfigError, DataError
from vimlight.files.text import csv_rows, is_file
from vimlight.pages.sources.base import number, sound
from vimlight.pages.sources.fit import Fit

__all__ = ["Mistake", "mistakes"]

# Arguments of a source that say where its files are; of one that is a table, they lie beside it.
_PLACES = ("root", "path")
_SIDE = 112
# What takes long to decode is no example worth waiting for.
_MOST_PIXELS = 50_000_000


class Mistake(NamedTuple):
    """An image and what it was taken for.

    Attributes:
        true: Name of its class.
        predicted: Name of the class that it was taken for.
        probability: How probable that was said to be; nothing where it was not said.
        picture: The image, small, as the content of a PNG file.
    """

    true: str
    predicted: str
    probability: float | None
    picture: bytes


def mistakes(fit: Fit, split: str, most: int) -> list[Mistake]:
    """Returns images of a split that were taken for another class, the surest mistakes first.

    Args:
        fit: The run.
        split: `"val"` or `"test"`.
        most: How many.

    Raises:
        ConfigError: If the run's table of predictions is damaged.
    """
    file, folder = fit.path / f"{split}_predictions.csv", _folder(fit.config)
    if folder is None or not file.is_file():
        return []
    found: list[Mistake] = []
    for row in sorted(_wrong(file, fit.confusion[split].classes), key=lambda row: -(row[3] or 0.0)):
        if len(found) < most and (picture := _small(folder, row[0])) is not None:
            found.append(Mistake(*row[1:], picture))
    return found


def _wrong(file: Path, classes: Any) -> Iterator[tuple[str, str, str, float | None]]:
    """Yields id, classes and probability of the images that were taken for another class."""
    header, *rows = csv_rows(file, ConfigError)
    with sound(file):
        if not {"id", "true", "predicted"} <= set(header):
            return
        for row in rows:
            cells = dict(zip(header, row, strict=True))
            # What shows several classes is not taken for one.
            if cells["true"] != cells["predicted"] and {cells["true"], cells["predicted"]} <= set(classes):
                said = cells.get("probability")
                yield cells["id"], cells["true"], cells["predicted"], number(float(said)) if said else None


def _folder(config: Mapping[str, Any]) -> Path | None:
    """Returns where the images of the run's data lie, if the config says so and they are still there."""
    found: Any = config
    for key in ("data", "init_args", "dataset_args"):
        found = found.get(key) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        return None
    for key in _PLACES:
        if isinstance(place := found.get(key), str) and place:
            path = Path(place).expanduser()
            folder = path.parent if is_file(path) else path
            return folder if folder.is_dir() else None
    return None


def _small(folder: Path, name: str) -> bytes | None:
    """Returns a small copy of an image; nothing if it is gone, lies elsewhere, or cannot be read."""
    file = folder / name
    if not is_file(file) or not file.resolve().is_relative_to(folder.resolve()):
        return None
    try:
        with opened(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                return None
            small = Image.fromarray(rgb_tensor(image).permute(1, 2, 0).numpy())
    except (DataError, *UNREADABLE):
        return None
    small.thumbnail((_SIDE, _SIDE))
    content = io.BytesIO()
    small.save(content, format="PNG")
    return content.getvalue()
