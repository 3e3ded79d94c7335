"""How alike modules are: in what they do to a backbone's features on probe images, and in their weights.

What a module does is its *effect*: the features with it less those of the bare backbone, after every block and at the
end. Effects are compared by linear CKA [Kornblith et al. 2019], which asks whether the same images are moved alike,
whatever the strength and the direction; by the cosine, which asks for the direction too; and by the difference, which
asks for the strength as well. CKA is taken without its bias, by the unbiased estimate of HSIC [Song et al. 2012]: of
fewer images than channels the plain one is near 1 for anything.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import NamedTuple, cast

import torch
from torch import Tensor

from vimlight.backbone import Backbone
from vimlight.backbone.readout import tap_blocks
from vimlight.errors import DataError
from vimlight.plugins import Plugin, attach

__all__ = ["END", "Effect", "Likeness", "features_of", "likeness", "near_duplicates", "weights_alike"]

END = "end"
"""What the place is called at which the backbone gives its feature."""
# Of fewer images there is no unbiased estimate.
_FEWEST = 4
# Less than this share of an effect that differs between images is rounding.
_ROUNDING = 1e-10


class Likeness(NamedTuple):
    """How alike two effects, or two sets of weights, are.

    Attributes:
        cosine: Of the two as vectors.
        difference: Norm of the difference by the mean of the norms: 0 for equal ones, 2 where one of them is nothing.
        cka: Linear CKA without bias, 1 for equal effects and about 0 for unrelated ones; nothing of weights, and
            where neither effect differs between images.
    """

    cosine: float
    difference: float
    cka: float | None = None

    @property
    def least(self) -> float:
        """The lesser of CKA and cosine: who is alike is so by both."""
        return self.cosine if self.cka is None else min(self.cka, self.cosine)


@torch.no_grad()
def features_of(backbone: Backbone, plugin: Plugin | None, images: Iterable[Tensor]) -> dict[str, Tensor]:
    """Returns the features of images after every block, pooled over positions, and at the end.

    Args:
        backbone: The backbone.
        plugin: The module, or nothing for the bare backbone.
        images: Batches of preprocessed images, `(N, 3, H, W)` each.

    Returns:
        `(N, C)` in double precision on the CPU, by the block's name and `END`.

    Raises:
        DataError: If there are fewer than four images.
    """
    found: dict[str, list[Tensor]] = defaultdict(list)
    attached = nullcontext() if plugin is None else attach(backbone, plugin)
    with attached, tap_blocks(backbone.model, backbone.blocks, 1) as read:
        for batch in images:
            end = cast(Tensor, backbone(batch))
            for place, features in {**read, END: end}.items():
                found[place].append(features.cpu().double())
    count = sum(map(len, found[END]))
    if count < _FEWEST:
        raise DataError(f"{count} images are too few to compare modules on; at least {_FEWEST} are needed")
    return {place: torch.cat(parts) for place, parts in found.items()}


class Effect(NamedTuple):
    """What a module does to a feature.

    Attributes:
        change: By how much the feature of each image changes, `(N, C)`.
        profile: Which images change alike, `(N * N,)`: their inner products, centred so that products of two profiles
            are unbiased estimates [Szekely and Rizzo 2014]; zeros where all images change by the same.
    """

    change: Tensor
    profile: Tensor

    @classmethod
    def of(cls, features: Tensor, bare: Tensor) -> Effect:
        """Returns the effect on a feature.

        Args:
            features: `(N, C)`, of at least four images.
            bare: Those of the bare backbone.
        """
        change = features - bare
        return cls(change, _profile(change))


def likeness(one: Effect, two: Effect) -> Likeness:
    """Compares two effects on one feature of the same images."""
    varies = bool(one.profile.any() or two.profile.any())
    cka = _cosine(one.profile, two.profile) if varies else None
    return Likeness(_cosine(one.change, two.change), _difference(one.change, two.change), cka)


def weights_alike(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> tuple[Likeness | None, int]:
    """Compares weights where names, dtypes and shapes agree.

    Args:
        one: Tensors by name.
        two: The other module's.

    Returns:
        How alike they are, nothing if no tensor has a counterpart; and of how many tensors that is.
    """
    shared = [name for name in one if name in two and _form(one[name]) == _form(two[name])]
    if not shared:
        return None, 0
    flat = [torch.cat([tensors[name].flatten().double() for name in shared]) for tensors in (one, two)]
    return Likeness(_cosine(*flat), _difference(*flat)), len(shared)


def near_duplicates(alike: Mapping[tuple[str, str], float], names: Sequence[str], least: float) -> dict[str, str]:
    """Returns which modules others stand for: each is a near-duplicate of one that stays.

    Whoever has most near-duplicates stays first, so that few stay.

    Args:
        alike: How alike each pair is.
        names: The modules.
        least: From which likeness on two are near-duplicates.

    Returns:
        For each module that may go the one that stays.
    """
    near: dict[str, set[str]] = {name: set() for name in names}
    for (one, two), value in alike.items():
        if value >= least:
            near[one].add(two)
            near[two].add(one)
    stays: dict[str, str] = {}
    kept: set[str] = set()
    for name in sorted(names, key=lambda name: (-len(near[name]), name)):
        if name not in stays:
            kept.add(name)
            stays.update(dict.fromkeys(near[name] - kept - stays.keys(), name))
    return stays


def _profile(change: Tensor) -> Tensor:
    centred = change - change.mean(dim=0)
    count = len(change)
    if centred.square().sum() <= _ROUNDING * change.square().sum():
        return change.new_zeros(count**2)
    gram = (centred @ centred.T).fill_diagonal_(0)
    rows = gram.sum(dim=0) / (count - 2)
    gram = gram - rows[:, None] - rows[None] + rows.sum() / (count - 1)
    return gram.fill_diagonal_(0).flatten()


def _form(tensor: Tensor) -> tuple[torch.dtype, torch.Size]:
    return tensor.dtype, tensor.shape


def _cosine(one: Tensor, two: Tensor) -> float:
    norms = float(one.norm()), float(two.norm())
    if not all(norms):
        # Two that are nothing are the same, and nothing is like nothing else.
        return float(norms == (0, 0))
    # Scaled first, so that a thing's cosine with itself is 1 but for rounding.
    return max(-1.0, min(1.0, float((one / norms[0] * (two / norms[1])).sum())))


def _difference(one: Tensor, two: Tensor) -> float:
    mean = (float(one.norm()) + float(two.norm())) / 2
    return float((one - two).norm()) / mean if mean and math.isfinite(mean) else 0.0
