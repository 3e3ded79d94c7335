"""Features of models that nothing on a task changes: computed once for all methods, shots and seeds of a process."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from vimlight.backbone import Prefix
from vimlight.comparison.data import ComparisonData
from vimlight.prefix_cache import FrozenPart

__all__ = ["FeatureMemory", "Rows"]

Rows = Iterator[tuple[list[int], Tensor]]
Frozen = tuple[Hashable, FrozenPart]
_CHUNK = 256
_LIMIT = 2**30  # bytes
_THINGS = 256
T = TypeVar("T")


class FeatureMemory:
    """Remembers features, up to a gigabyte of those that were asked for last.

    Images go through a model in chunks that depend on nothing but the images, so that features are the same to the bit,
    whatever was computed before.

    Args:
        mixed: Whether models run in bfloat16 where that is safe.
    """

    def __init__(self, mixed: bool) -> None:
        self.mixed = mixed
        self._kept: OrderedDict[Hashable, list[Tensor]] = OrderedDict()
        self._begun: OrderedDict[Hashable, list[Prefix]] = OrderedDict()
        self._made: OrderedDict[Hashable, Any] = OrderedDict()

    def rows(
        self, key: Hashable, compute: Callable[[], Callable[[Any], Tensor]], data: ComparisonData, split: str,
        device: torch.device, frozen: Callable[[], Frozen | None] = lambda: None,
    ) -> Rows:  # fmt: skip
        """Yields rows of a split with their features, in the order of the images' ids.

        Args:
            key: What else the features depend on: model, modules, how images are read.
            compute: Makes what computes features `(N, D)` of images `(N, 3, H, W)`; called if something is missing.
            data: The images.
            split: Name of the split.
            device: Where images are prepared and features are left.
            frozen: Makes a key of the images and what the model begins with, if that is to be remembered for others:
                the model gets a `Prefix` in place of the images then. It is called if something is missing.

        Yields:
            Numbers of rows, and their features.
        """
        together = data.together(split)
        parts = self._parts(key, compute, data, together, device, frozen)
        if together == split:
            yield from parts
            return
        ids, wanted = data.tables[together].ids, {name: row for row, name in enumerate(data.tables[split].ids)}
        for rows, features in parts:
            found = [(wanted[ids[row]], place) for place, row in enumerate(rows) if ids[row] in wanted]
            if found:
                yield [row for row, _ in found], features[[place for _, place in found]]

    def _parts(
        self, key: Hashable, compute: Callable[[], Callable[[Any], Tensor]], data: ComparisonData, split: str,
        device: torch.device, frozen: Callable[[], Frozen | None],
    ) -> Rows:  # fmt: skip
        ids = data.tables[split].ids
        order = sorted(range(len(ids)), key=ids.__getitem__)
        chunks = [order[start : start + _CHUNK] for start in range(0, len(order), _CHUNK)]
        images = hashlib.sha256("\0".join(ids[row] for row in order).encode()).digest()
        where = (key, images)
        if where in self._kept:
            self._kept.move_to_end(where)
            yield from zip(chunks, (part.to(device) for part in self._kept[where]), strict=True)
            return
        model, size = compute(), 0
        kept: list[Tensor] = []
        for rows, inputs in self._inputs(images, data, split, chunks, device, frozen()):
            with torch.no_grad(), self._precision(device):
                features = model(inputs).float()
            yield rows, features
            size += _bytes(features)
            # What is too much to keep is let go at once.
            kept = [*kept, features.cpu()] if size <= _LIMIT else []
        if kept:
            self._keep(where, kept)

    def _inputs(
        self, images: bytes, data: ComparisonData, split: str, chunks: Sequence[list[int]], device: torch.device,
        frozen: Frozen | None,
    ) -> Iterator[tuple[list[int], Any]]:  # fmt: skip
        """Yields rows with their images, or with what a frozen part made of them."""
        if frozen is None:
            yield from data.read(split, chunks, device=device)
            return
        key, part = frozen
        where = (key, images, part.depth, part.readout)
        if where in self._begun:
            self._begun.move_to_end(where)
            yield from zip(chunks, (_moved(prefix, device) for prefix in self._begun[where]), strict=True)
            return
        kept: list[Prefix] = []
        for rows, shown in data.read(split, chunks, device=device):
            with self._precision(device):
                prefix = part.backbone.prefix(shown, part.depth, part.readout)
            yield rows, prefix
            kept.append(_moved(prefix, torch.device("cpu")))
        self._begun[where] = kept
        while sum(_size(prefix) for prefixes in self._begun.values() for prefix in prefixes) > _LIMIT:
            self._begun.popitem(last=False)

    def _precision(self, device: torch.device) -> AbstractContextManager[Any]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self.mixed)

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """Returns what was made of features before, or makes it.

        Args:
            key: All that it depends on.
            make: Makes it.
        """
        if key not in self._made:
            self._made[key] = make()
            if len(self._made) > _THINGS:
                self._made.popitem(last=False)
        self._made.move_to_end(key)
        return cast(T, self._made[key])

    def _keep(self, where: Hashable, kept: list[Tensor]) -> None:
        self._kept[where] = kept
        while sum(_bytes(part) for parts in self._kept.values() for part in parts) > _LIMIT:
            self._kept.popitem(last=False)


def _bytes(features: Tensor) -> int:
    return features.numel() * features.element_size()


def _moved(prefix: Prefix, device: torch.device) -> Prefix:
    read = {name: tensor.to(device) for name, tensor in prefix.read.items()}
    return dataclasses.replace(prefix, tokens=prefix.tokens.to(device), read=read)


def _size(prefix: Prefix) -> int:
    return sum(map(_bytes, [prefix.tokens, *prefix.read.values()]))
