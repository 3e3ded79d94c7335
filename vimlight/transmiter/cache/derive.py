"""New caches from old ones without touching an image: another text head, other classes, several caches as one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.transmiter.cache.assembly import check_entries, new_cache, refuse_existing
from vimlight.transmiter.cache.checks import check_head
from vimlight.transmiter.cache.files import CacheFiles
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import LABELS, FileEntry
from vimlight.transmiter.cache.names import STARTS, TEXT
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["relabel", "with_head"]


def with_head(
    cache: LogitCache,
    path: str | os.PathLike[str],
    head: TextHead,
    *,
    class_names: Sequence[str] | None = None,
    aux_names: Sequence[str] | None = None,
    by_position: bool = False,
    overwrite: bool = False,
    **entries: Any,
) -> LogitCache:
    """Writes a cache of the same images with another text head; the features are shared on the disk, not copied.

    Labels and partitions follow their class names into the new list.

    Args:
        cache: A cache of features.
        path: The new cache's directory, which must not exist yet.
        head: The text head of all classes, task classes first.
        class_names: The task classes, if others.
        aux_names: The auxiliary classes, if others.
        by_position: Whether the new names are new words for the same classes in the same order.
        overwrite: Whether a cache of that name is replaced.
        **entries: Entries of the manifest that say how the head came about, such as `text` and `vocabulary`.

    Returns:
        The new cache, opened.

    Raises:
        CacheError: If the name is taken, or it cannot be written.
        DataError: If the cache holds bare logits, the head does not fit, or images belong to a class that is gone.
    """
    target = Path(path).expanduser()
    refuse_existing(target, overwrite)
    width = cache.features(slice(0, 1)).shape[1]
    names = cache.class_names if class_names is None else tuple(class_names)
    manifest = cache.manifest.replace(
        class_names=names,
        aux_names=cache.aux_names if aux_names is None else tuple(aux_names),
        scale=float(head.scale),
        bias=float(head.bias),
        **{"partitions": _moved(cache, names, by_position), "text": {}, "vocabulary": {}, **entries},
    )
    labels = relabel(cache, names, by_position=by_position)
    check_entries(manifest, cache.ids, labels)
    check_head(head, width, manifest.num_logits)
    with new_cache(target, overwrite) as files:
        for name in (manifest.array, TEXT, STARTS):
            _share(files, cache, name)
        files.array("head.npy", head.weights.numpy(force=True))
        if labels is not None:
            files.array(LABELS, labels.numpy().astype(np.int64))
        files.manifest(manifest)
    return LogitCache.open(target)


def relabel(cache: LogitCache, class_names: Sequence[str], *, by_position: bool = False) -> Tensor | None:
    """Returns the labels of a cache as indices into another list of classes.

    Args:
        cache: The cache.
        class_names: The other list.
        by_position: Whether it has new words for the same classes in the same order.

    Raises:
        DataError: If images belong to a class that the list lacks.
    """
    if cache.labels is None:
        return None
    places = torch.tensor(_places(cache, class_names, by_position))
    labels = places[cache.labels]
    lost = sorted({cache.class_names[index] for index in cache.labels[labels < 0].tolist()})
    if lost:
        same = len(class_names) == cache.num_classes
        hint = "; if the names are new words for the same classes in order, pass --by-position" if same else ""
        raise DataError(f"images of cache {str(cache.path)!r} belong to classes that the new list lacks: {lost}{hint}")
    return labels


def _places(cache: LogitCache, class_names: Sequence[str], by_position: bool) -> list[int]:
    """Returns where each class is in the new list, or -1."""
    if by_position and len(class_names) != cache.num_classes:
        raise DataError(
            f"{len(class_names)} names cannot take the places of the {cache.num_classes} classes of {str(cache.path)!r}"
        )
    if by_position:
        return list(range(cache.num_classes))
    index = {name: place for place, name in enumerate(class_names)}
    return [index.get(name, -1) for name in cache.class_names]


def _moved(cache: LogitCache, class_names: Sequence[str], by_position: bool) -> dict[str, list[int]]:
    places = _places(cache, class_names, by_position)
    moved = {name: [places[index] for index in classes] for name, classes in cache.partitions.items()}
    return {name: [index for index in classes if index >= 0] for name, classes in moved.items()}


def _share(files: CacheFiles, cache: LogitCache, name: str) -> None:
    entry = cache.manifest.files[name]
    files.share(name, cache.path / name, FileEntry(**dataclasses.asdict(entry)), cache.block_sums().get(name))
