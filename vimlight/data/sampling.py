"""Seeded choices of images: few shots per class, and shares set apart.

Every choice depends on its arguments alone: the global random state is neither read nor moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vimlight.errors import DataError, shown

__all__ = ["FewShot", "few_images", "few_shot", "random_subset", "set_apart", "shuffled"]


class FewShot(NamedTuple):
    """Row numbers of two disjoint samples, int64, ascending."""

    train: Tensor
    val: Tensor


def few_shot(
    targets: Tensor,
    shots: int,
    seed: int,
    num_classes: int,
    *,
    val_shots: int = 0,
    class_names: Sequence[str] | None = None,
    strict: bool = True,
    part: str = "train",
) -> FewShot:
    """Draws the same number of images of every class.

    With one seed the training sample of 5 shots is part of that of 20 shots, and the validation sample does not depend
    on `shots`. With several labels per image, classes are served from the rarest on and each gets *at least* its
    shots, since an image drawn for one class counts for its other labels too; such samples need not be nested.

    Args:
        targets: `(N,)` class indices, or `(N, C)` zeros and ones.
        shots: Images of each class for training.
        seed: Seed of the draw.
        num_classes: Number of classes C; classes without any image are found by it.
        val_shots: Images of each class for validation, disjoint from those for training.
        class_names: C names for the error message.
        strict: Whether a class of too few images is an error. If not, which is for several labels per image alone, the
            training sample gets what there is of it, and that for validation what is left.
        part: Part of a data set that the images are of, `"train"` or `"val"`, for the error message.

    Raises:
        DataError: If `shots` is below one, or a class has fewer images than are asked for; the text names the class.
    """
    if shots < 1 or val_shots < 0:
        raise DataError(f"shots must be at least 1 and val_shots at least 0, got {shots} and {val_shots}")
    names = class_names or [str(label) for label in range(num_classes)]
    pools = [_shuffled_class(targets, label, seed) for label in range(num_classes)]
    if strict:
        _check_pools([len(pool) for pool in pools], shots, val_shots, names, part)
    if targets.ndim == 2:
        return _few_shot_multilabel(targets, pools, shots, val_shots, names if strict else None)
    train = [pool[:shots] for pool in pools]
    # Taken from the far end, so that the validation sample stays as it is when the shots change.
    val = [pool[len(pool) - val_shots :] for pool in pools]
    return FewShot(torch.cat(train).sort().values, torch.cat(val).sort().values)


def few_images(size: int, shots: int, seed: int, *, val_shots: int = 0, part: str = "train") -> FewShot:
    """Draws images where there are no classes to balance them by.

    As with `few_shot`, larger samples hold smaller ones, and the validation sample does not depend on `shots`.

    Args:
        size: Number of images to draw from.
        shots: Images for training, in all.
        seed: Seed of the draw.
        val_shots: Images for validation, in all, disjoint from those for training.
        part: Part of a data set that the images are of, `"train"` or `"val"`, for the error message.

    Raises:
        DataError: If there are fewer images than are asked for.
    """
    if size < shots + val_shots:
        raise DataError(f"there are {_lack(size, shots, val_shots, part)}")
    order = shuffled(size, seed)
    return FewShot(order[:shots].sort().values, order[size - val_shots :].sort().values)


def set_apart(targets: Tensor, fraction: float, seed: int) -> FewShot:
    """Splits rows in two: of every class about `fraction` goes to the second part, at random.

    A class of two or more images is in both parts, if there are several labels per image as far as those of other
    classes let it: classes are served from the rarest on, by images that show what is still lacking. The second part is
    never empty where there are two images.

    Args:
        targets: `(N,)` class indices, or `(N, C)` zeros and ones.
        fraction: Share of the second part, between 0 and 1.
        seed: Seed of the split.
    """
    if targets.ndim == 2:
        apart = _apart_multilabel(targets > 0, fraction, seed)
    else:
        apart = torch.zeros(len(targets), dtype=torch.bool)
        for label in targets.unique().tolist():
            pool = _shuffled_class(targets, label, seed)
            apart[pool[: _cut(len(pool), fraction)]] = True
    if not apart.any():
        apart[shuffled(len(targets), seed)[: _cut(len(targets), fraction)]] = True
    return FewShot((~apart).nonzero().flatten(), apart.nonzero().flatten())


def random_subset(size: int, limit: int | None, seed: int) -> Tensor:
    """Draws `limit` of `size` rows, ascending; all of them if `limit` is none or larger."""
    if limit is None or limit >= size:
        return torch.arange(size)
    return shuffled(size, seed)[:limit].sort().values


def shuffled(size: int, seed: int) -> Tensor:
    """Returns the rows 0 to `size` - 1 in random order."""
    return torch.randperm(size, generator=_generator(seed, 0))


def _generator(seed: int, stream: int) -> torch.Generator:
    # An odd multiplier of golden-ratio bits keeps the streams of neighbouring seeds apart.
    return torch.Generator().manual_seed((seed * 0x9E3779B97F4A7C15 + stream) % 2**63)


def _shuffled_class(targets: Tensor, label: int, seed: int) -> Tensor:
    member = targets[:, label] > 0 if targets.ndim == 2 else targets == label
    rows = member.nonzero().flatten()
    return rows[torch.randperm(len(rows), generator=_generator(seed, label + 1))]


def _cut(size: int, fraction: float) -> int:
    return min(max(round(size * fraction), 1), size - 1)


def _apart_multilabel(flags: Tensor, fraction: float, seed: int) -> Tensor:
    """Returns which rows `(N,)` of flags `(N, C)` are set apart."""
    # Images without any label are a class of their own.
    flags = torch.cat([flags, ~flags.any(dim=1, keepdim=True)], dim=1)
    sizes, shown = flags.sum(dim=0), torch.zeros(flags.shape[1], dtype=torch.long)
    free, apart = torch.ones(len(flags), dtype=torch.bool), torch.zeros(len(flags), dtype=torch.bool)
    for label in sizes.argsort(stable=True).tolist():
        pool = _shuffled_class(flags, label, seed)
        candidates = pool[free[pool]]
        wanted = max(_cut(len(pool), fraction) - int(shown[label]), 0)
        # Images that show classes which lack there are welcome, the last ones of a class are not.
        worth = ((shown == 0) & (sizes > 1)).long() - (sizes - shown == 1).long()
        best = (flags[candidates].long() @ worth).argsort(descending=True, stable=True)
        chosen = candidates[best][:wanted]
        apart[chosen], free[candidates] = True, False
        shown += flags[chosen].sum(dim=0)
    return apart


def _check_pools(sizes: list[int], shots: int, val_shots: int, names: Sequence[str], part: str) -> None:
    short = [label for label, size in enumerate(sizes) if size < shots + val_shots]
    if not short:
        return
    first = min(short, key=lambda label: sizes[label])
    more = f" ({len(short) - 1} more such)" if len(short) > 1 else ""
    raise DataError(f"class {shown(names[first])} has {_lack(sizes[first], shots, val_shots, part, more)}")


def _lack(size: int, shots: int, val_shots: int, part: str, more: str = "") -> str:
    """Says how many images there are, how many are needed for what, and which setting helps."""
    if part == "val":
        cure = f"set val_shots to at most {size}" if size else "add some, or leave that part out to lend some for it"
        return f"{size} images for validation, but {shots} are needed{more}; {cure} (left out, it is as many as shots)"
    if not val_shots:
        return f"{size} images, but {shots} are needed{more}; lower shots"
    return (
        f"{size} images, but {shots + val_shots} are needed{more}: {shots} shots for training + {val_shots} for "
        "validation; lower shots or val_shots"
    )


def _few_shot_multilabel(
    targets: Tensor, pools: list[Tensor], shots: int, val_shots: int, names: Sequence[str] | None
) -> FewShot:
    free = torch.ones(len(targets), dtype=torch.bool)
    train = _serve(targets, pools, shots, free, names)
    val = _serve(targets, pools, val_shots, free, names)
    return FewShot(train, val)


def _serve(targets: Tensor, pools: list[Tensor], shots: int, free: Tensor, names: Sequence[str] | None) -> Tensor:
    """Takes free rows until every class has its shots, and marks them as taken; without names, as far as they go."""
    taken = torch.zeros_like(free)
    for label in sorted(range(len(pools)), key=lambda label: len(pools[label])):
        missing = shots - int((targets[taken, label] > 0).sum())
        candidates = pools[label][free[pools[label]]]
        if len(candidates) < missing and names is not None:
            raise DataError(f"class {shown(names[label])} runs out of images that no other split has; lower the shots")
        chosen = candidates[: max(missing, 0)]
        taken[chosen] = True
        free[chosen] = False
    return taken.nonzero().flatten()
