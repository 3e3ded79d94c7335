"""Precision over recall of each class, for looking at."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.classification import MultilabelPrecisionRecallCurve

__all__ = ["THRESHOLDS", "MulticlassCurves", "MultilabelCurves"]

# Evenly from 0 to 1: enough for a figure, and as much memory whatever the number of images.
THRESHOLDS = 101


class MultilabelCurves(MultilabelPrecisionRecallCurve):
    """Gathers precision and recall of each class, at even thresholds of its probability.

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
        shown = self.confmat[0, :, 1].sum(dim=-1) > 0
        points = torch.stack([cast(Tensor, recall), cast(Tensor, precision)], dim=-1)
        return torch.where(shown[:, None, None], points, torch.nan)


class MulticlassCurves(MultilabelCurves):
    """The same of one class an image: each class against all others.

    Args:
        count: Number of classes C.
    """

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds images.

        Args:
            predictions: Probabilities `(N, C)`.
            targets: Class numbers `(N,)`, int64.
        """
        super().update(predictions, F.one_hot(targets, self.num_labels))
