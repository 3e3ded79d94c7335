"""Distillation in closed form: ridge regressions on the target's z-scored logits, without labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.transmiter.adapters.gap_ridge import STRENGTHS, GapRidge, NormalEquations, fit_gap_ridge
from vimlight.transmiter.adapters.transmiter import Adapter
from vimlight.transmiter.cache import LogitCache, check_paired
from vimlight.transmiter.cache.rows import z_score
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method, Unsuitable
from vimlight.transmiter.judging.methods.base import OPTIONS
from vimlight.transmiter.judging.methods.columns import Columns

__all__ = ["GapRidgeMethod", "GapRidgeOnFeatures", "GapRidgePlus", "RidgeMethod"]

_TRAIN = ("target_train", "source_train", "source_tuned_train")


@METHODS.register("gap_ridge")
class GapRidgeMethod(Method):
    """The source's change, regressed on the target: an adapter of that kind if one is given, else fitted here.

    Args:
        reads: What the change is regressed on, `"logits"` or `"features"`, where it is fitted here.
        strength: Regularisation as a multiple of the mean diagonal; by exact leave-one-out errors if left out.

    Raises:
        ConfigError: If the strength is not above 0.
    """

    title = "gap ridge"
    place = 30

    def __init__(self, reads: str = "logits", strength: float | None = None) -> None:
        self._input = reads
        self._strengths = _candidates("gap_ridge", strength)
        self.reads = ("target_all", "target_features") if reads == "features" else ("target_all",)
        self._chosen: dict[str, Any] = {}

    def fit(self, data: Fit) -> None:
        """Takes the given adapter, or fits one on the training caches."""
        adapter = data.adapters.get("gap_ridge")
        if adapter is None:
            tuned, target = _caches(data)
            source = data.caches["source_train"]
            adapter = fit_gap_ridge(source, tuned, target, reads=self._input, strengths=self._strengths)
        steps = [step for step in adapter.card.history if step["step"] == "gap_ridge"]
        self._chosen = {key: step[key] for step in steps[-1:] for key in ("strength", "rows") if key in step}
        self._take(adapter, data)

    def _take(self, adapter: Adapter, data: Fit) -> None:
        assert isinstance(adapter, GapRidge)
        self.reads = ("target_all", "target_features") if adapter.reads == "features" else ("target_all",)
        if not set(self.reads) <= data.roles:
            raise Unsuitable("the adapter reads features: needs a --target cache with features")
        self._columns = Columns.of(adapter, data)
        self._adapter = adapter.to(data.device)

    @torch.no_grad()
    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        extra = [images[role] for role in self.reads[1:]]
        return self._columns.apply(self._adapter, images["target_all"], *extra)

    def choices(self) -> dict[str, Any]:
        """Returns the strength that left-out images chose."""
        return {**self._chosen, "chosen": "squared error at training images left out, without labels"}

    def num_parameters(self) -> int:
        """Returns the size of the map."""
        return self._adapter.weight.numel() + self._adapter.bias.numel()


@METHODS.register("gap_ridge_features")
class GapRidgeOnFeatures(GapRidgeMethod):
    """The same on the target's features, fitted here whatever adapter is given.

    Args:
        strength: Regularisation as a multiple of the mean diagonal; by exact leave-one-out errors if left out.

    Raises:
        ConfigError: If the strength is not above 0.
    """

    title = "gap ridge on features"

    def __init__(self, strength: float | None = None) -> None:
        super().__init__("features", strength)

    def fit(self, data: Fit) -> None:
        """Fits an adapter on the training caches."""
        if "target_features" not in data.roles:
            raise Unsuitable(f"needs {OPTIONS['target_features']}")
        super().fit(replace(data, adapters={}))


@METHODS.register("gap_ridge_plus")
class GapRidgePlus(Method):
    """What tuning taught the source and what a few labels taught the target, half of each.

    Labels speak of what the target lacks, the source of what many labels taught. Halves of both changes add up to no
    more than either: classes of which neither knew anything are moved less than by one of them alone.
    """

    title = "gap ridge+, few labels"
    place = 44
    reads = ("target_all", "target_features", "target_tuned")
    needs = _TRAIN
    made_with_labels = True

    def fit(self, data: Fit) -> None:
        """Fits the ridge on the training caches; the fine-tuned target is a cache."""
        self._ridge = GapRidgeOnFeatures()
        self._ridge.fit(data)

    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        return (self._ridge(images) + images["target_tuned"]) / 2

    def choices(self) -> dict[str, Any]:
        """Returns the strength that left-out images chose."""
        return self._ridge.choices()

    def num_parameters(self) -> int:
        """Returns the size of the map; that of the fine-tuned target is not known here."""
        return self._ridge.num_parameters()


@METHODS.register("ridge")
class RidgeMethod(Method):
    """Plain distillation: the fine-tuned source's task logits, regressed on the target's z-scored logits.

    Args:
        strength: Regularisation as a multiple of the mean diagonal; by exact leave-one-out errors if left out.

    Raises:
        ConfigError: If the strength is not above 0.
    """

    title = "ridge to tuned logits"
    place = 31
    reads = ("target_all",)
    needs = ("target_train", "source_tuned_train")

    def __init__(self, strength: float | None = None) -> None:
        self._strengths = _candidates("ridge", strength)

    def fit(self, data: Fit) -> None:
        """Solves the normal equations over the training images."""
        tuned, target = _caches(data)
        pairs = _Pairs(target, tuned)
        normal = NormalEquations.of(pairs)
        errors = normal.left_out_errors(pairs, self._strengths)
        self._strength, self._rows = self._strengths[int(errors.argmin())], normal.count
        weight, bias = normal.solution(self._strength)
        self._weight, self._bias = weight.float().to(data.device), bias.float().to(data.device)

    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        return F.linear(z_score(images["target_all"])[0], self._weight, self._bias)

    def choices(self) -> dict[str, Any]:
        """Returns the strength that left-out images chose."""
        chosen = "squared error at training images left out, without labels"
        return {"strength": self._strength, "rows": self._rows, "chosen": chosen}

    def num_parameters(self) -> int:
        """Returns the size of the map."""
        return self._weight.numel() + self._bias.numel()


class _Pairs:
    """Z-scored logits of the target and centred task logits of the tuned source, all views of a block of images."""

    def __init__(self, target: LogitCache, tuned: LogitCache) -> None:
        self._target, self._tuned = target, tuned

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        views = range(self._target.num_views)
        for start in range(0, len(self._target), 1024):
            rows = slice(start, start + 1024)
            inputs = [z_score(self._target.logits(rows, view=view))[0] for view in views]
            columns = slice(0, self._tuned.num_classes)
            outputs = [self._tuned.logits(rows, view=view, columns=columns) for view in views]
            centred = [logits - logits.mean(dim=1, keepdim=True) for logits in outputs]
            yield torch.stack(inputs, dim=1).double(), torch.stack(centred, dim=1).double()


def _candidates(method: str, strength: float | None) -> tuple[float, ...]:
    if strength is not None and strength <= 0:
        raise ConfigError(f"strength of {method!r} must be above 0, got {strength}")
    return STRENGTHS if strength is None else (strength,)


def _caches(data: Fit) -> tuple[LogitCache, LogitCache]:
    """Returns the training caches of the fine-tuned source and of the target, if they are of the classes scored."""
    missing = [role for role in _TRAIN if role not in data.caches]
    if missing:
        raise Unsuitable(f"needs {', '.join(OPTIONS[role] for role in missing)}")
    tuned, target = data.caches["source_tuned_train"], data.caches["target_train"]
    if target.class_names != data.class_names or target.class_names + target.aux_names != data.column_names:
        raise Unsuitable("the training caches have other classes than the images to be scored")
    check_paired(target, tuned, task_only=True)
    return tuned, target
