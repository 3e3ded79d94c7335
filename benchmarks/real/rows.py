"""Rows of the suite's tables: which image, its label, its part, what it shows; and how they are dealt out."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks.real.catalogue import Picture
from benchmarks.real.concepts import share
from vimlight.errors import DataError
from vimlight.files.atomic import write_whole

__all__ = ["Row", "dealt", "limited", "read_rows", "write_rows"]

_COLUMNS = ("path", "label", "split", "concept")
# What 20 shots and one image to validate need, and what a class must at least be tested on.
_TRAIN, _TEST = 21, 10


@dataclasses.dataclass(frozen=True)
class Row:
    """One image of a task.

    Attributes:
        path: The file, from the folder of the table.
        label: Its label.
        split: `train` or `test`.
        concept: What it shows; several things with `|` between them.
    """

    path: str
    label: str
    split: str
    concept: str


def write_rows(file: Path, rows: Iterable[Row]) -> None:
    """Writes a table that the data source `manifest` reads.

    Args:
        file: The table; one that is there is replaced.
        rows: Its rows.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    writer.writerows(dataclasses.astuple(row) for row in rows)
    write_whole(file, text.getvalue(), overwrite=True)


def read_rows(file: Path) -> list[Row]:
    """Reads such a table.

    Args:
        file: The table.

    Raises:
        DataError: If it lacks a column.
    """
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        lacking = [name for name in _COLUMNS if name not in (reader.fieldnames or ())]
        if lacking:
            raise DataError(f"{file} has no column {lacking[0]!r}; make it anew with benchmarks.real.prepare")
        return [Row(*(row[name] for name in _COLUMNS)) for row in reader]


def dealt(
    pictures: Sequence[Picture], kind: Callable[[Picture], str | None], train: int, test: int
) -> list[tuple[Picture, str, str]]:
    """Deals pictures to training and test so that nothing that is tested is shown in training.

    Args:
        pictures: The pictures.
        kind: From a picture to its class, or nothing.
        train: Most training pictures of a class.
        test: Most test pictures of a class.

    Returns:
        Pictures with their class and split; classes of too few pictures are left out.
    """
    groups: dict[str, dict[str, list[Picture]]] = defaultdict(lambda: defaultdict(list))
    for picture in pictures:
        label = kind(picture)
        if label is not None:
            groups[label][picture.concept].append(picture)
    found = []
    for label, concepts in sorted(groups.items()):
        parts = _halves(concepts)
        if len(parts["train"]) >= _TRAIN and len(parts["test"]) >= _TEST:
            for split, most in (("train", train), ("test", test)):
                found += [(picture, label, split) for picture in limited(parts[split], most)]
    return found


def _halves(concepts: dict[str, list[Picture]]) -> dict[str, list[Picture]]:
    """Fills the training part with whole concepts up to three fifths, and the test part with the others."""
    total = sum(map(len, concepts.values()))
    parts: dict[str, list[Picture]] = {"train": [], "test": []}
    for name in sorted(concepts, key=lambda name: share(name, "split")):
        room = len(parts["train"]) + len(concepts[name]) <= max(_TRAIN, round(0.6 * total))
        parts["train" if room else "test"] += concepts[name]
    return parts


def limited(pictures: Iterable[Picture], most: int) -> list[Picture]:
    """Returns at most so many pictures, of all concepts alike.

    Args:
        pictures: The pictures.
        most: The number.
    """
    queues: dict[str, list[Picture]] = defaultdict(list)
    for picture in sorted(pictures, key=lambda picture: share(picture.name, "order")):
        queues[picture.concept].append(picture)
    rounds = itertools.zip_longest(*queues.values())
    return [picture for picture in itertools.chain.from_iterable(rounds) if picture is not None][:most]
