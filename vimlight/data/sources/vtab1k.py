"""VTAB-1k in the folders that projects of parameter-efficient tuning share."""

from __future__ import annotations

from pathlib import Path

import torch

from vimlight.data.listings import check_files, label_of, read_lines
from vimlight.data.members import MEMBERS, Member
from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.sources.image_folder import existing_folder
from vimlight.data.tables import FileTable
from vimlight.errors import DataError, shown, unknown_name

__all__ = ["GROUPS", "vtab1k", "vtab_tasks"]

GROUPS = {
    "natural": {
        "cifar": 100,
        "caltech101": 102,
        "dtd": 47,
        "oxford_flowers102": 102,
        "oxford_iiit_pet": 37,
        "svhn": 10,
        "sun397": 397,
    },
    "specialized": {"patch_camelyon": 2, "eurosat": 10, "resisc45": 45, "diabetic_retinopathy": 5},
    "structured": {
        "clevr_count": 8,
        "clevr_dist": 6,
        "dmlab": 6,
        "kitti": 4,
        "dsprites_loc": 16,
        "dsprites_ori": 16,
        "smallnorb_azi": 18,
        "smallnorb_ele": 9,
    },
}
"""The 19 tasks with their numbers of classes, in the three groups that published means are taken over."""

_TASKS = {name: count for group in GROUPS.values() for name, count in group.items()}
_LISTS = {"train": "train800", "val": "val200", "test": "test", "final": "train800val200"}


@SOURCES.register("vtab1k")
def vtab1k(root: str, task: str) -> Source:
    """Opens a task of VTAB-1k: 800 images to learn from, 200 to choose by, all 1,000 for the last fit, and the test.

    The layout holds JPEG files of default quality, of the drawn and tiny data sets too: scores are not those on the
    original images. The samples are not stratified; a class may occur in some of the lists only, and labels keep their
    meaning all the same. The layout has no names of classes: they are called by number.

    Those projects squash images to 224 x 224 pixels and normalise them by ImageNet's mean and deviation even where a
    backbone was trained otherwise; here both are the backbone's own unless its config and `resize: squash` say so.
    Several of them report the best test score of all epochs, which is not comparable with a test taken once.

    Args:
        root: Folder of the tasks: `root/TASK/train800.txt`, `val200.txt`, `train800val200.txt` and `test.txt`, each
            line the path of an image from `root/TASK` and its label.
        task: One of the 19, such as `"cifar"` or `"clevr_count"`.

    Raises:
        DataError: If the task, a list or an image is missing, or a line is malformed.
        UnknownNameError: If VTAB-1k has no such task.
    """
    if task not in _TASKS:
        raise unknown_name("task of VTAB-1k", task, _TASKS)
    collection = existing_folder(root)
    folder = collection / task
    if not folder.is_dir():
        found = [member.name for member in vtab_tasks(root) if not member.missing]
        raise DataError(f"task {task!r} of VTAB-1k is not in {collection}; found: {', '.join(found) or 'none'}")
    tables = {split: _table(folder, f"{name}.txt", _TASKS[task]) for split, name in _LISTS.items()}
    return Source(f"vtab1k/{task}", "classification", tuple(map(str, range(_TASKS[task]))), **tables)


@MEMBERS.register("vtab1k")
def vtab_tasks(root: str) -> list[Member]:
    """Returns the 19 tasks with their groups, and what each of them lacks in a folder.

    Raises:
        DataError: If there is no such folder.
    """
    folder = existing_folder(root)
    return [Member("task", task, group, _missing(folder / task)) for group, tasks in GROUPS.items() for task in tasks]


def _missing(folder: Path) -> str:
    wanted = [folder, *(folder / f"{name}.txt" for name in _LISTS.values())]
    return next((str(path) for path in wanted if not path.exists()), "")


def _table(folder: Path, name: str, count: int) -> FileTable:
    listing = folder / name
    paths, labels = [], []
    for number, line in enumerate(read_lines(listing), start=1):
        # A path may have spaces in it, a label has none.
        path, _, label = line.rpartition(" ")
        if not path or (known := label_of(label, count)) is None:
            raise DataError(
                f"{listing}, line {number}: expected the path of an image, a space and a label from 0 to {count - 1}; "
                f"got {shown(line)}"
            )
        paths.append(folder / path)
        labels.append(known)
    check_files(listing, paths)
    return FileTable(paths, torch.tensor(labels, dtype=torch.long), folder)
