"""Whether two caches show the same images to the same classes."""

from __future__ import annotations

from collections.abc import Sequence

from vimlight.errors import CacheError, shown
from vimlight.transmiter.cache.logit_cache import LogitCache
from vimlight.transmiter.cache.manifest import LABELS
from vimlight.transmiter.cache.names import TEXT

__all__ = ["check_paired", "is_one_of_views"]


def is_one_of_views(first: LogitCache, second: LogitCache) -> bool:
    """Tells whether one of two caches holds several views of each image and the other one.

    That is the image as in evaluation, which is the first of several views.

    Args:
        first: A cache.
        second: Another one.
    """
    return first.num_views != second.num_views and 1 in (first.num_views, second.num_views)


def check_paired(
    first: LogitCache, second: LogitCache, *, task_only: bool = False, one_of_views: bool = False
) -> None:
    """Checks that two caches hold the same images, views and classes in the same order.

    Args:
        first: A cache.
        second: Another one, usually of another model.
        task_only: Whether the auxiliary classes may differ, as where one cache holds a fine-tuned model's task logits.
        one_of_views: Whether one may have the image as in evaluation alone, where the other has several views.

    Raises:
        CacheError: If they differ; the text names the first difference, and for classes what is missing and extra.
    """
    pair = f"{str(first.path)!r} and {str(second.path)!r}"
    if len(first) != len(second):
        raise CacheError(f"caches {pair} hold {len(first)} and {len(second)} images; pair caches of the same split")
    _check_ids(first, second, pair)
    _check_labels(first, second, pair)
    if not (one_of_views and is_one_of_views(first, second)):
        _check_views(first, second, pair)
    _check_names("classes", first.class_names, second.class_names, pair)
    if not task_only:
        _check_names("auxiliary classes", first.aux_names, second.aux_names, pair)


def _check_ids(first: LogitCache, second: LogitCache, pair: str) -> None:
    if first.manifest.files[TEXT].sha256 == second.manifest.files[TEXT].sha256:
        return
    ids = zip(first.ids, second.ids, strict=True)
    row, (one, other) = next((row, ids) for row, ids in enumerate(ids) if ids[0] != ids[1])
    order = "the same images in another order" if set(first.ids) == set(second.ids) else "other images"
    raise CacheError(
        f"caches {pair} show {order}: row {row} is {shown(one)} in the first and {shown(other)} in the second"
    )


def _check_labels(first: LogitCache, second: LogitCache, pair: str) -> None:
    hashes = [cache.manifest.files[LABELS].sha256 for cache in (first, second) if LABELS in cache.manifest.files]
    # Of equal files neither need be read: those of a cache that nothing else reads would stay in memory.
    if len(set(hashes)) < 2 or first.class_names != second.class_names:
        return
    assert first.labels is not None
    assert second.labels is not None
    different = (first.labels != second.labels).nonzero().flatten().tolist()
    if different:
        row = different[0]
        one, other = (cache.class_names[int(labels[row])] for cache, labels in _labelled(first, second))
        raise CacheError(
            f"caches {pair} disagree on {len(different)} labels: row {row} is {shown(one)} in the first and "
            f"{shown(other)} in "
            "the second; are the images in the same order?"
        )


def _labelled(*caches: LogitCache) -> list[tuple[LogitCache, Sequence[int]]]:
    return [(cache, [] if cache.labels is None else cache.labels.tolist()) for cache in caches]


def _check_views(first: LogitCache, second: LogitCache, pair: str) -> None:
    if first.num_views != second.num_views:
        raise CacheError(f"caches {pair} have {first.num_views} and {second.num_views} views of each image")
    one, other = first.manifest.augmentation, second.manifest.augmentation
    if one and other and one != other:
        raise CacheError(f"caches {pair} have differently augmented views: {one} and {other}")


def _check_names(what: str, first: Sequence[str], second: Sequence[str], pair: str) -> None:
    if first == second:
        return
    missing, extra = _without(first, second), _without(second, first)
    if missing or extra:
        raise CacheError(
            f"caches {pair} have other {what}: missing in the second {_shown(missing)}; extra in the second "
            f"{_shown(extra)}"
        )
    column = next(column for column, (one, other) in enumerate(zip(first, second, strict=True)) if one != other)
    raise CacheError(
        f"caches {pair} have the same {what} in another order: column {column} is {shown(first[column])} in the first "
        f"and {shown(second[column])} in the second"
    )


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _shown(names: list[str], limit: int = 10) -> str:
    return f"{names[:limit]}" + (f" and {len(names) - limit} more" if len(names) > limit else "") if names else "none"
