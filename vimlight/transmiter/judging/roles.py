"""The caches and adapters of an evaluation by their roles, checked against each other, and what can be read of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vimlight.data.sampling import few_shot
from vimlight.errors import AdapterError, CacheError, DataError
from vimlight.transmiter.adapters import load_adapter
from vimlight.transmiter.adapters.transmiter import Adapter
from vimlight.transmiter.cache import LogitCache, check_paired
from vimlight.transmiter.judging.methods.base import Candidates, Images, Labelled
from vimlight.transmiter.judging.protocols import Group

__all__ = ["ADAPTER_ROLES", "CACHE_ROLES", "MODELS", "Inputs"]

MODELS = ("target", "source", "source_tuned", "target_tuned")
CACHE_ROLES = (*MODELS, *(f"{model}_{split}" for split in ("train", "val") for model in MODELS[:3]))
ADAPTER_ROLES = ("adapter", "gap_ridge", "adapter_unmoved", "adapter_no_aux", "adapter_published", "adapter_plus")


@dataclass(frozen=True)
class Inputs:
    """What one evaluation is made from.

    Attributes:
        caches: Caches by role: `"target"`, `"source"`, `"source_tuned"` and `"target_tuned"` of the images to be
            scored, and with `_train` and `_val` behind it of others.
        adapters: Adapters by role.
    """

    caches: Mapping[str, LogitCache]
    adapters: Mapping[str, Adapter] = field(default_factory=dict)

    @classmethod
    def open(cls, caches: Mapping[str, str | Path], adapters: Mapping[str, str | Path] | None = None) -> Inputs:
        """Opens caches and adapters, and checks that those of one split show the same images and classes.

        Args:
            caches: Directories by role; `"target"` is needed.
            adapters: Files by role. A file under `"adapter"` that holds a gap ridge is taken for one.

        Raises:
            CacheError: If a cache is not whole, or two of one split do not go together.
            AdapterError: If a file is no adapter of its role.
            DataError: If the images to be scored have no labels.
        """
        opened = {role: LogitCache.open(path) for role, path in caches.items()}
        _check(opened)
        loaded: dict[str, Adapter] = {}
        for role, path in (adapters or {}).items():
            adapter = load_adapter(path)
            place = "gap_ridge" if role == "adapter" and adapter.kind == "gap_ridge" else role
            if adapter.kind != ("gap_ridge" if place == "gap_ridge" else "transmiter"):
                raise AdapterError(f"{str(path)!r} holds a {adapter.kind!r} adapter, which is no --{_dashed(role)}")
            _check_moved(role, path, adapter, opened)
            loaded[place] = adapter
        return cls(opened, loaded)

    @property
    def target(self) -> LogitCache:
        """The target's cache of the images to be scored."""
        return self.caches["target"]

    @property
    def labels(self) -> Tensor:
        """Labels of the images to be scored, `(N,)` int64; methods never get them."""
        labels = self.target.labels
        assert labels is not None
        return labels

    def describe(self, paths: Mapping[str, str | Path]) -> dict[str, dict[str, str]]:
        """Returns what every role was, for reports: path, model, split and hash.

        Args:
            paths: The paths by role.
        """
        facts: dict[str, dict[str, str]] = {}
        for role, cache in self.caches.items():
            facts[role] = {"model": cache.model, "split": cache.split, "hash": cache.hash}
        for role in set(paths) & set(ADAPTER_ROLES):
            card = (self.adapters.get(role) or self.adapters["gap_ridge"]).card
            facts[role] = {"model": card.model, "hash": card.sha256}
        return {role: {"path": str(path), **facts[role]} for role, path in paths.items()}

    def roles(self, suffix: str = "") -> frozenset[str]:
        """Returns what can be read of a split.

        Args:
            suffix: Empty for the images to be scored, else `"_train"` or `"_val"`.
        """
        found = {model for model in MODELS if model + suffix in self.caches}
        target = self.caches.get("target" + suffix)
        if target is not None:
            found |= {"target_all"} | ({"target_features"} if target.width is not None else set())
        return frozenset(found)

    def read(self, role: str, rows: Tensor, suffix: str = "") -> Tensor:
        """Reads some images of a split.

        Args:
            role: What to read; see `methods.Images`.
            rows: Row numbers `(n,)`.
            suffix: As for `roles`.

        Returns:
            `(n, C)` task logits, `(n, M)` logits or `(n, E)` features, float32; the first view of each image.
        """
        if role == "target_features":
            return self.caches["target" + suffix].features(rows)
        if role == "target_all":
            return self.caches["target" + suffix].logits(rows)
        return self.caches[role + suffix].logits(rows, columns=slice(0, self.target.num_classes))

    def candidates(self, group: Group, rows: Tensor, batch_size: int, device: torch.device) -> Candidates:
        """Returns a group of the images to be scored, without its labels.

        Args:
            group: The group.
            rows: Its rows; see `rows`.
            batch_size: Images at a time.
            device: Where the batches go.
        """
        return Candidates(group.name, group.columns, partial(_batches, self.read, rows, group, batch_size, device))

    def rows(self, group: Group) -> Tensor:
        """Returns the rows of a group's images, ascending."""
        return _rows_of(self.target, group.classes)

    def labels_of(self, rows: Tensor) -> Tensor:
        """Returns the labels of some of the images to be scored.

        Args:
            rows: Their rows, ascending and each once.
        """
        return self.labels if len(rows) == len(self.labels) else self.labels[rows]

    def labelled(
        self, suffix: str, known: Sequence[int], device: torch.device, *, shots: int | None = None, seed: int = 0
    ) -> Labelled | None:
        """Returns the labelled images of a split that methods may learn or choose from.

        Args:
            suffix: `"_train"` or `"_val"`.
            known: Class indices that may have labels; images of others are left out.
            device: Where their logits go.
            shots: Images of each of these classes; none for all.
            seed: Decides which.

        Returns:
            The images, or none if there are none or their classes are not those to be scored.

        Raises:
            DataError: If a class has fewer images than that.
        """
        cache = self.caches.get("target" + suffix)
        if cache is None or cache.labels is None or cache.class_names != self.target.class_names or not known:
            return None
        rows = _rows_of(cache, known)
        if shots is not None:
            places = torch.searchsorted(torch.tensor(sorted(known)), cache.labels[rows])
            names = [cache.class_names[label] for label in sorted(known)]
            rows = rows[few_shot(places, shots, seed, len(known), class_names=names).train]
        labels = cache.labels[rows]

        def read(role: str) -> Tensor:
            return self.read(role, rows, suffix).to(device)

        return Labelled(labels.to(device), read, self.roles(suffix)) if len(rows) else None


def _rows_of(cache: LogitCache, classes: Sequence[int]) -> Tensor:
    """Returns the rows of a labelled cache whose images are of some classes, ascending."""
    assert cache.labels is not None
    wanted = torch.zeros(cache.num_classes, dtype=torch.bool)
    wanted[list(classes)] = True
    return wanted[cache.labels].nonzero().flatten()


def _batches(
    read: Callable[[str, Tensor], Tensor],
    rows: Tensor,
    group: Group,
    batch_size: int,
    device: torch.device,
    roles: Sequence[str],
    limit: int | None = None,
) -> Iterator[Images]:
    if limit is not None and limit < len(rows):
        rows = rows[torch.linspace(0, len(rows) - 1, limit).long()]
    for some in rows.split(batch_size):
        yield Images({role: read(role, some).to(device) for role in roles}, group.columns)


def _check(caches: Mapping[str, LogitCache]) -> None:
    for suffix in ("", "_train", "_val"):
        first, *others = [role for role in caches if role in {model + suffix for model in MODELS}] or [""]
        for other in others:
            check_paired(caches[first], caches[other], task_only=True)
    target = caches["target"]
    if target.labels is None:
        raise DataError(f"cache {str(target.path)!r} has no labels to score by; import or build it with labels")
    for role in ("target_train", "target_val"):
        if role in caches and _same_images(caches[role], target):
            raise CacheError(
                f"--{_dashed(role)} {str(caches[role].path)!r} shows the images that are scored; nothing may be learnt "
                "or chosen on those"
            )


def _check_moved(role: str, path: str | Path, adapter: Adapter, caches: Mapping[str, LogitCache]) -> None:
    model, source = adapter.card.model, caches.get("source")
    if role == "adapter_unmoved" or not model or source is None:
        return
    if model == source.model != caches["target"].model:
        raise AdapterError(
            f"--{_dashed(role)} {str(path)!r} refines logits of the source {model!r}, not of the target; move it with "
            "vimlight transfer, or pass it as --adapter-unmoved"
        )


def _same_images(first: LogitCache, second: LogitCache) -> bool:
    """Tells whether two caches are of one split; row numbers for ids are the same in every imported cache."""
    same_ids = len(first) == len(second) and list(first.ids) == list(second.ids)
    return first.hash == second.hash or (same_ids and first.split == second.split)


def _dashed(role: str) -> str:
    return role.replace("_", "-")
