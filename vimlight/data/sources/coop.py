"""The eleven data sets that CoOp and its followers use, in their folders and with their splits."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vimlight.data.classes import Classes, choose_classes
from vimlight.data.coop_files import DATASETS, CoopFiles, Row, read_rows, read_split
from vimlight.data.listings import check_files
from vimlight.data.members import MEMBERS, Member
from vimlight.data.sampling import few_shot
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable
from vimlight.errors import ConfigError, DataError, cut, shown, unknown_name
from vimlight.files.atomic import write_whole

__all__ = ["coop", "coop_sets"]

_PARTS = ("all", "base", "new")
_MOST_FOR_VALIDATION = 4


@SOURCES.register("coop")
def coop(
    root: str,
    dataset: str,
    classes: Classes | str = "all",
    shots: int | None = None,
    seed: int = 0,
    sample: str | None = None,
) -> Source:
    """Opens one of CoOp's eleven data sets with its published split and class names.

    Base classes are the first half, rounded up, of the labels that occur in the training part, and new ones the rest;
    in each of them labels are numbered anew. ImageNet's published split has no validation images and tests on its
    validation part; here it has none either, and images for validation are taken from the training part.

    Args:
        root: The folder of all of them: `root/oxford_pets/images`, `root/oxford_pets/split_zhou_OxfordPets.json` and so
            on.
        dataset: The folder of one, such as `"oxford_pets"`.
        classes: `base`, `new` or `all`; or some of the classes by name, in the order that they are to have.
        shots: Training images of each class, as many as there are if there are fewer, and for validation at most 4 of
            each; all of them if left out. Samples are nested and drawn before the classes are chosen. CoOp's own
            samples lie in pickles, which are never opened: ours of a seed are others.
        seed: Seed of the sample.
        sample: A JSON file that pins the sample, to share it: lists `train` and `val` as in a split file. Where it does
            not exist yet, it is written with the sample that is drawn.

    Raises:
        ConfigError: If there is a sample without shots, or shots below 1.
        DataError: If a file or an image is missing or malformed.
        UnknownNameError: If there is no such data set, part or class.
    """
    if dataset not in DATASETS:
        raise unknown_name("data set of CoOp", dataset, DATASETS)
    if isinstance(classes, str) and classes not in _PARTS:
        raise unknown_name("part of the classes", classes, _PARTS)
    if shots is None and sample is not None:
        raise ConfigError(f"sample {sample!r} pins a few-shot sample; say how many shots")
    files = CoopFiles(existing_folder(root) / dataset, DATASETS[dataset])
    rows = read_split(files)
    names = _class_names(files, rows)
    if shots is not None:
        rows |= _sampled(files, rows, names, shots, seed, sample)
    check_files(files.listing, [files.images / path for part in rows.values() for path, _, _ in part])
    labels = _labels_of(rows["train"], len(names), classes)
    tables = {split: _table(files, part, labels) for split, part in rows.items()}
    chosen = tuple(names[label] for label in labels)
    source = Source(f"coop/{dataset}", "classification", chosen, **tables)
    return source if isinstance(classes, str) else choose_classes(source, classes)


@MEMBERS.register("coop")
def coop_sets(root: str) -> list[Member]:
    """Returns the eleven data sets, and what each of them lacks in a folder.

    Raises:
        DataError: If there is no such folder.
    """
    folder = existing_folder(root)
    return [
        Member("dataset", name, missing=CoopFiles(folder / name, about).missing()) for name, about in DATASETS.items()
    ]


def _class_names(files: CoopFiles, rows: Mapping[str, Sequence[Row]]) -> list[str]:
    """Returns the names by label; all rows of a label must give it one name, and no label be left out."""
    found: dict[int, str] = {}
    for _, label, name in (row for part in rows.values() for row in part):
        if found.setdefault(label, name) != name:
            raise DataError(f"{files.listing}: label {label} is called {shown(found[label])} and {shown(name)}")
    gap = next((label for label in range(len(found)) if label not in found), None)
    if gap is not None:
        raise DataError(f"{files.listing}: labels are 0 to {max(found)}, but no image has the label {gap}")
    return [found[label] for label in range(len(found))]


def _sampled(
    files: CoopFiles,
    rows: Mapping[str, Sequence[Row]],
    names: Sequence[str],
    shots: int,
    seed: int,
    sample: str | None,
) -> dict[str, list[Row]]:
    """Returns the sample for training and validation: the one that is pinned, or one that is drawn."""
    if shots < 1:
        raise ConfigError(f"shots must be at least 1, got {shots}")
    pinned = None if sample is None else Path(sample).expanduser()
    if pinned is not None and pinned.exists():
        known = {tuple(row) for split in ("train", "val") for row in rows.get(split, ())}
        found = read_rows(pinned, ("train", "val"))
        for row in (row for part in found.values() for row in part):
            if row not in known:
                said = cut(json.dumps(row))
                raise DataError(f"{pinned}: {said} is no training or validation image of {files.listing}")
        return found
    drawn = _drawn(rows, names, shots, seed)
    if pinned is not None:
        # Of several processes that start together, each writes the same.
        write_whole(pinned, json.dumps(drawn, indent=0) + "\n", overwrite=True)
    return drawn


def _drawn(rows: Mapping[str, Sequence[Row]], names: Sequence[str], shots: int, seed: int) -> dict[str, list[Row]]:
    val_shots = min(shots, _MOST_FOR_VALIDATION)

    def draw(part: Sequence[Row], count: int, lent: int = 0) -> tuple[list[Row], list[Row]]:
        targets = _targets(part)
        # Only where validation images are lent must every class have as many as are asked for.
        drawn = few_shot(targets, count, seed, len(names), val_shots=lent, class_names=names, strict=lent > 0)
        return [part[row] for row in drawn.train.tolist()], [part[row] for row in drawn.val.tolist()]

    if "val" in rows:
        return {"train": draw(rows["train"], shots)[0], "val": draw(rows["val"], val_shots)[0]}
    train, val = draw(rows["train"], shots, val_shots)
    return {"train": train, "val": val}


def _labels_of(train: Sequence[Row], count: int, classes: Classes | str) -> list[int]:
    """Returns the labels that a part of the classes has."""
    if classes not in ("base", "new"):
        return list(range(count))
    present = sorted({label for _, label, _ in train})
    half = (len(present) + 1) // 2
    return present[:half] if classes == "base" else present[half:]


def _table(files: CoopFiles, rows: Sequence[Row], labels: Sequence[int]) -> FileTable:
    places = {label: place for place, label in enumerate(labels)}
    kept = [row for row in rows if row[1] in places]
    targets = torch.tensor([places[label] for _, label, _ in kept], dtype=torch.long)
    return FileTable([files.images / path for path, _, _ in kept], targets, files.images)


def _targets(rows: Sequence[Row]) -> Tensor:
    return torch.tensor([label for _, label, _ in rows], dtype=torch.long)
