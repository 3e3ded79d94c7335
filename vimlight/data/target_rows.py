"""Targets of the rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["Targets", "in_memory", "pick"]

Targets = Any
"""N targets in the layout of the task: a tensor, or a sequence that gives one at a time, reading it when asked."""


def pick(targets: Targets, indices: Tensor) -> Targets:
    """Returns some of the targets, in the given order; of a sequence, what its own `pick` gives if it has one."""
    if isinstance(targets, Tensor):
        return targets[indices]
    return targets.pick(indices) if hasattr(targets, "pick") else _Picked(targets, indices.tolist())


class _Picked(Sequence[Any]):
    """Some entries of a sequence, fetched when they are asked for."""

    def __init__(self, targets: Sequence[Any], indices: Sequence[int]) -> None:
        self._targets = targets
        self._indices = indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: Any) -> Any:
        return self._targets[self._indices[index]]


def in_memory(targets: Targets) -> Targets:
    """Returns arrays as tensors, whole numbers as int64 but for masks, fractions as float32; sequences as they are."""
    if not isinstance(targets, Tensor | np.ndarray):
        return targets
    tensor = torch.as_tensor(targets)
    if tensor.is_floating_point():
        return tensor.float()
    return tensor.long() if tensor.ndim <= 2 else tensor
