"""Precision over recall of each class, for looking at."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassPrecisionRecallCurve, MultilabelPrecisionRecallCurve

__all__ = ["THRESHOLDS", "MulticlassCurves", "MultilabelCurves"]

# Evenly from 0 to 1: enough for a figure, and as much memory whatever the number of images.
THRESHOLDS = 101


class MulticlassCurves(MulticlassPrecisionRecallCurve):
    """Gathers precision and recall of each class against all others, at even thresholds of its probability.

    Its value is `(C, THRESHOLDS + 1, 2)`: recall and precision, from the least threshold on. A class that no image has
    has neither (NaN), and where nothing is named at a threshold there is no precision.

    Args:
        count: Number of classes C.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, thresholds=THRESHOLDS, validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]  # one tensor, as all that is gathered
        """Returns recall and precision."""
        precision, recall, _ = super().compute()
        return _curves(precision, recall, self.confmat)


class MultilabelCurves(MultilabelPrecisionRecallCurve):
    """The same for several labels an image.

    Args:
        count: Number of classes C.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count, thresholds=THRESHOLDS, validate_args=False)

    def compute(self) -> Tensor:  # type: ignore[override]  # one tensor, as all that is gathered
        """Returns recall and precision."""
        precision, recall, _ = super().compute()
        return _curves(precision, recall, self.confmat)


def _curves(precision: Any, recall: Any, counts: Any) -> Tensor:
    shown = counts[0, :, 1].sum(dim=-1) > 0
    return torch.where(shown[:, None, None], torch.stack([recall, precision], dim=-1), torch.nan)
