"""Labelled images and classes of one seed, drawn from pools of cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from vimlight.data import few_shot
from vimlight.errors import DataError
from vimlight.transmiter import LogitCache, write_cache

__all__ = ["draw_caches", "halves"]


def halves(num_classes: int, seed: int) -> dict[str, list[int]]:
    """Returns base and novel classes: a random half each, base the larger one.

    Args:
        num_classes: Number of classes.
        seed: Decides which.

    Raises:
        DataError: If a half has a class alone, which there is nothing to tell from.
    """
    if num_classes < 4:
        raise DataError(
            f"{num_classes} classes make no two halves of at least 2 classes each; take a data set of 4 or more"
        )
    order = torch.randperm(num_classes, generator=torch.Generator().manual_seed(seed)).tolist()
    middle = (num_classes + 1) // 2
    return {"base": sorted(order[:middle]), "novel": sorted(order[middle:])}


def draw_caches(
    pool: Path, parts: Mapping[str, Sequence[int]], seed: int, shots: int, val_shots: int, folder: Path
) -> dict[str, LogitCache]:
    """Writes caches of labelled images of the base classes and of all test images.

    The same seed draws the same images, of whatever model the features are.

    Args:
        pool: Folder of the caches `train` and `test`.
        parts: Class indices of `"base"` and `"novel"`.
        seed: The seed.
        shots: Training images of each base class.
        val_shots: Validation images of each base class, or what its smallest class has left.
        folder: Where they go.

    Returns:
        The caches by split.

    Raises:
        DataError: If a class has no image for validation.
    """
    whole, test = LogitCache.open(pool / "train"), LogitCache.open(pool / "test")
    if whole.labels is None:
        raise DataError(f"cache {str(whole.path)!r} has no labels to draw by")
    base = torch.tensor(sorted(parts["base"]))
    known = torch.isin(whole.labels, base).nonzero().flatten()
    places = torch.searchsorted(base, whole.labels[known])
    left = int(places.bincount(minlength=len(base)).min()) - shots
    names = [whole.class_names[index] for index in base.tolist()]
    drawn = few_shot(places, shots, seed, len(base), val_shots=max(1, min(val_shots, left)), class_names=names)
    return {
        "train": _write(folder / "train", whole, known[drawn.train], parts),
        "val": _write(folder / "val", whole, known[drawn.val], parts),
        "test": _write(folder / "test", test, torch.arange(len(test)), parts),
    }


def _write(path: Path, cache: LogitCache, rows: Tensor, parts: Mapping[str, Sequence[int]]) -> LogitCache:
    if cache.labels is None:
        raise DataError(f"cache {str(cache.path)!r} has no labels to draw by")
    kept = cache.features if cache.head is not None else cache.logits
    values = torch.stack([kept(rows, view=view) for view in range(cache.num_views)], dim=1)
    return write_cache(
        path,
        features=values if cache.head is not None else None,
        logits=None if cache.head is not None else values,
        head=cache.head,
        class_names=cache.class_names,
        aux_names=cache.aux_names,
        labels=cache.labels[rows],
        ids=_ids(cache, rows.tolist()),
        split=path.name,
        model=cache.model,
        partitions=parts,
        weights=cache.manifest.weights,
    )


def _ids(cache: LogitCache, rows: Sequence[int]) -> list[str]:
    return [cache.ids[row] for row in rows]
