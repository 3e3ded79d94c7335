"""Several caches of one model as one: more images, or more classes for the same images."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vimlight.errors import CacheError
from vimlight.transmiter.cache.assembly import assemble, check_entries, refuse_existing
from vimlight.transmiter.cache.derive import relabel
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import Manifest
from vimlight.transmiter.cache.text_head import TextHead

__all__ = ["merge_caches"]

_BLOCK = 4096
# What must agree for the numbers of two caches to mean the same.
_SAME = (
    "model",
    "weights",
    "preprocessing",
    "model_arguments",
    "width",
    "dtype",
    "scale",
    "bias",
    "views",
    "augmentation",
)


def merge_caches(
    caches: Sequence[LogitCache], path: str | os.PathLike[str], *, split: str | None = None, overwrite: bool = False
) -> LogitCache:
    """Joins caches of one model.

    Caches of *different images* (splits, shards, classes) become one with all images, one cache after the other. Their
    class lists may differ if they hold features: the new list has the classes of the first, then what the others have
    besides, and labels follow their names; bare logits must have the same columns in the same order.
    Caches of *the same images in the same order* become one with all columns: the task classes of the first, then of
    the others, and so the auxiliary classes.

    Args:
        caches: Two or more.
        path: The new cache's directory, which must not exist yet.
        split: What the new split is called; by default the names of the old ones, joined by `+`.
        overwrite: Whether a cache of that name is replaced.

    Returns:
        The new cache, opened.

    Raises:
        CacheError: If the name is taken, or the caches are of different models, share some images, or disagree.
    """
    target = Path(path).expanduser()
    refuse_existing(target, overwrite)
    if len(caches) < 2:
        raise CacheError(f"it takes two caches or more to merge, got {len(caches)}")
    for other in caches[1:]:
        _check_same_model(caches[0], other)
    ids = list(chain.from_iterable(cache.ids for cache in caches))
    same_images = all(list(cache.ids) == list(caches[0].ids) for cache in caches)
    join = _columns if same_images else _rows
    splits = "+".join(dict.fromkeys(cache.split for cache in caches))
    same_text = all(cache.manifest.text == caches[0].manifest.text for cache in caches)
    manifest = caches[0].manifest.replace(
        split=split or splits,
        data={"merged": [cache.hash for cache in caches]},
        text=caches[0].manifest.text if same_text else {},
        vocabulary={},
        partitions={},
    )
    if not same_images:
        _check_disjoint(caches)
    return join(caches, manifest, target, list(caches[0].ids) if same_images else ids, overwrite)


def _rows(caches: Sequence[LogitCache], manifest: Manifest, path: Path, ids: list[str], overwrite: bool) -> LogitCache:
    names = _union(cache.class_names for cache in caches)
    aux = [name for name in _union(cache.aux_names for cache in caches) if name not in set(names)]
    if manifest.width is None:
        _check_same_columns(caches)
    manifest = manifest.replace(
        class_names=names, aux_names=tuple(aux), rows=len(ids), partitions=_partitions(caches, names)
    )
    labels = [relabel(cache, names) for cache in caches]
    if any(some is None for some in labels) and any(some is not None for some in labels):
        raise CacheError("some of the caches are labelled and some are not; merge those that are alike")
    joined = None if labels[0] is None else torch.cat([some for some in labels if some is not None])
    check_entries(manifest, ids, joined)
    blocks = chain.from_iterable(map(_blocks, caches))
    return assemble(path, manifest, blocks, ids, joined, _head(caches, [*names, *aux]), overwrite)


def _columns(
    caches: Sequence[LogitCache], manifest: Manifest, path: Path, ids: list[str], overwrite: bool
) -> LogitCache:
    names = tuple(chain.from_iterable(cache.class_names for cache in caches))
    aux = tuple(chain.from_iterable(cache.aux_names for cache in caches))
    manifest = manifest.replace(class_names=names, aux_names=aux)
    check_entries(manifest, ids, None)
    manifest = manifest.replace(partitions=_partitions(caches, names))
    blocks = _blocks(caches[0]) if manifest.width is not None else _side_by_side(caches)
    return assemble(path, manifest, blocks, ids, _agreed(caches, names), _head(caches, [*names, *aux]), overwrite)


def _check_same_model(first: LogitCache, other: LogitCache) -> None:
    for entry in _SAME:
        one, two = getattr(first.manifest, entry), getattr(other.manifest, entry)
        if one != two:
            raise CacheError(
                f"caches {str(first.path)!r} and {str(other.path)!r} cannot be merged: {entry} is {one!r} in the first "
                f"and {two!r} in the second"
            )


def _check_disjoint(caches: Sequence[LogitCache]) -> None:
    owner: dict[str, LogitCache] = {}
    for cache in caches:
        for name in cache.ids:
            if name in owner:
                raise CacheError(
                    f"caches {str(owner[name].path)!r} and {str(cache.path)!r} both have the image {name!r}, but not "
                    "all images in common; merge caches of different images, or of the same ones in the same order"
                )
        owner.update(dict.fromkeys(cache.ids, cache))


def _check_same_columns(caches: Sequence[LogitCache]) -> None:
    first = caches[0]
    for other in caches[1:]:
        if (other.class_names, other.aux_names) != (first.class_names, first.aux_names):
            raise CacheError(
                f"caches {str(first.path)!r} and {str(other.path)!r} hold bare logits of different classes, so their "
                "images cannot be merged; bare logits need the same columns in the same order"
            )


def _union(lists: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain.from_iterable(lists)))


def _partitions(caches: Sequence[LogitCache], names: Sequence[str]) -> dict[str, list[int]]:
    """Returns the partitions of all caches, those of one name united."""
    index = {name: place for place, name in enumerate(names)}
    merged: dict[str, dict[int, None]] = {}
    for cache in caches:
        for name, classes in cache.partitions.items():
            merged.setdefault(name, {}).update(dict.fromkeys(index[cache.class_names[place]] for place in classes))
    return {name: list(classes) for name, classes in merged.items()}


def _agreed(caches: Sequence[LogitCache], names: Sequence[str]) -> Tensor | None:
    found = [(cache, labels) for cache in caches if (labels := relabel(cache, names)) is not None]
    for cache, labels in found[1:]:
        wrong = (labels != found[0][1]).nonzero().flatten().tolist()
        if wrong:
            raise CacheError(
                f"caches {str(found[0][0].path)!r} and {str(cache.path)!r} disagree on the label of row {wrong[0]}: "
                f"{names[int(found[0][1][wrong[0]])]!r} and {names[int(labels[wrong[0]])]!r}"
            )
    return found[0][1] if found else None


def _head(caches: Sequence[LogitCache], names: Sequence[str]) -> TextHead | None:
    first = caches[0].head
    if first is None:
        return None
    vectors: dict[str, tuple[LogitCache, Tensor]] = {}
    for cache in caches:
        weights = cache.head.weights if cache.head is not None else ()
        for name, vector in zip((*cache.class_names, *cache.aux_names), weights, strict=True):
            owner, known = vectors.setdefault(name, (cache, vector))
            # The same prompt in another batch differs in its last digits.
            if not torch.allclose(known, vector, atol=1e-4):
                raise CacheError(
                    f"caches {str(owner.path)!r} and {str(cache.path)!r} have different text features of {name!r}; "
                    "rebuild one head with `vimlight cache head`"
                )
    return TextHead(torch.stack([vectors[name][1] for name in names]), first.scale, first.bias)


def _blocks(cache: LogitCache) -> Iterator[NDArray[Any]]:
    for start in range(0, len(cache), _BLOCK):
        yield cache.stored(slice(start, start + _BLOCK))


def _side_by_side(caches: Sequence[LogitCache]) -> Iterator[NDArray[Any]]:
    order = (True, False)
    for start in range(0, len(caches[0]), _BLOCK):
        stored = [(cache, cache.stored(slice(start, start + _BLOCK))) for cache in caches]
        halves = [
            block[..., : cache.num_classes] if task else block[..., cache.num_classes :]
            for task in order
            for cache, block in stored
        ]
        yield np.concatenate(halves, axis=2)
