"""What results depend on beside the plan's own words: the images and the backbones' weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from vimlight.backbone import Backbone, create_backbone
from vimlight.comparison.entries import TaskEntry
from vimlight.data.source import Source
from vimlight.data.sources import check_source, load_source
from vimlight.data.tables import Table
from vimlight.errors import DataError, FingerprintError

__all__ = ["cached_backbone", "cached_source", "data_fingerprint", "open_backbone"]


def data_fingerprint(task: TaskEntry, download: bool = True) -> str:
    """Returns what changes with the images and targets of a task, as far as that can be told cheaply.

    Data that lie somewhere, as the argument `root` or `path` says, are opened: ids, targets, and sizes and times of
    files. Data that are drawn or come with a package depend on their arguments alone, and on the version, which is a
    part of every key.

    Args:
        task: The task.
        download: Whether data that can be downloaded may be; if not, nothing is said of those that are not there yet.

    Raises:
        DataError: If the data are missing or malformed.
    """
    arguments = check_source(task.dataset, task.dataset_args)
    if not {"root", "path"} & arguments.keys():
        return "by arguments"
    try:
        given = task.dataset_args if download else _undownloaded(task.dataset_args)
        source = cached_source(task.dataset, given)
    except DataError:
        if download or not arguments.get("download"):
            raise
        return "not there yet"
    digest = hashlib.sha256(json.dumps([source.kind, source.class_names]).encode())
    for split in ("train", "val", "test", "final"):
        table: Table | None = getattr(source, split)
        if table is not None:
            digest.update(f"{split} {table.digest()}".encode())
            for stamp in _stamps(table.targets):
                digest.update(stamp)
    return digest.hexdigest()


def _undownloaded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "download"}


def _stamps(targets: Any) -> Iterator[bytes]:
    """Yields what tells targets from others: their values in memory, or size and time of their files."""
    if isinstance(targets, Tensor):
        yield targets.contiguous().numpy().tobytes()
        return
    for path in getattr(targets, "_paths", ()):
        status = path.stat()
        yield f"{path.name} {status.st_size} {status.st_mtime_ns} ".encode()


def cached_source(dataset: str, arguments: Mapping[str, Any]) -> Source:
    """Opens a data source, or returns it if this process opened it lately.

    Args:
        dataset: Name of the source.
        arguments: Its arguments.
    """
    return _source(dataset, json.dumps(dict(arguments), sort_keys=True))


@lru_cache(maxsize=2)
def _source(dataset: str, arguments: str) -> Source:
    return load_source(dataset, json.loads(arguments))


def open_backbone(arguments: Mapping[str, Any]) -> Backbone:
    """Returns a backbone, created once in each process.

    Args:
        arguments: Those of `create_backbone`.
    """
    return cached_backbone(json.dumps(dict(arguments), sort_keys=True))


@lru_cache(maxsize=1)
def cached_backbone(description: str) -> Backbone:
    """Returns a backbone, created once in each process.

    Args:
        description: The arguments of `create_backbone` as JSON.
    """
    with torch.random.fork_rng():
        # Weights that are drawn rather than loaded must be the same in every process.
        torch.manual_seed(0)
        return create_backbone(**json.loads(description))


def check_fingerprint(backbone: Backbone, fingerprint: str) -> None:
    """Checks that a worker's backbone is the one that results are filed under.

    Args:
        backbone: The worker's.
        fingerprint: What the process that handed out the job found.

    Raises:
        FingerprintError: If it is another one.
    """
    if backbone.fingerprint != fingerprint:
        raise FingerprintError(
            f"backbone {backbone.name!r} has other weights here ({backbone.fingerprint[:12]}...) than where the "
            f"comparison was started ({fingerprint[:12]}...); use the same files and versions on all machines"
        )
