"""What the scores of every kind share: means over the classes that occur, how many these are, and wide sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from vimlight.tasks.targets import Batched, TargetLayout

__all__ = ["ClassesSeen", "WideMetric", "over_classes", "wide", "widest"]


def over_classes(hits: Tensor, total: Tensor) -> Tensor:
    """Returns the mean of `hits / total` over the classes that have a total.

    A class that nothing was to be said of, and nothing was said of, is neither right nor wrong: it does not count.

    Args:
        hits: What each class did well, `(C,)`.
        total: What that is a share of, `(C,)`.

    Returns:
        A scalar, float32; NaN where no class counts.
    """
    return (hits / total).nanmean().float()


def widest(device: torch.device) -> torch.dtype:
    """Returns the most precise floating-point type of a device: double, but where there is none (MPS)."""
    return torch.float32 if device.type == "mps" else torch.float64


def wide(x: Tensor) -> Tensor:
    """Returns a tensor in the most precise type of its device."""
    return x.to(widest(x.device))


class WideMetric(Metric):
    """A metric whose states are as precise as the device that it is moved to allows; sums over many need it."""

    full_state_update = False

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Any = "") -> Any:
        single = widest(fn(torch.zeros(1, device=self.device)).device) == torch.float32

        def moved(x: Tensor) -> Tensor:
            return fn(x.float() if single and x.dtype == torch.float64 else x)

        return super()._apply(moved, exclude_state)


class ClassesSeen(Metric):
    """How many classes occur in the targets: what scores are averaged over.

    Args:
        layout: What the targets look like; one whose targets have classes.
        count: Number of classes C.
    """

    full_state_update = False
    images: Tensor

    def __init__(self, layout: TargetLayout, count: int) -> None:
        super().__init__()
        self.layout, self.count = layout, count
        self.add_state("images", torch.zeros(count, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, predictions: Batched, targets: Batched) -> None:
        """Counts the images that show each class."""
        if not len(targets):
            return
        found = self.layout.classes(targets, self.count)
        assert found is not None
        shown = torch.bincount(found, minlength=self.count) if found.dim() == 1 else found.long().sum(dim=0)
        self.images += shown.to(self.images.device)

    def compute(self) -> Tensor:
        """Returns the number of classes that some image shows."""
        return (self.images > 0).sum()
