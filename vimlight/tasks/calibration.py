"""How far the confidence of predictions can be trusted: their counts, confidence and accuracy by confidence."""

from __future__ import annotations

import torch
from torch import Tensor

from vimlight.tasks.averages import WideMetric

__all__ = ["BINS", "Reliability"]

# As most works have; those of the logit caches are as many.
BINS = 15


class Reliability(WideMetric):
    """Gathers predictions by their confidence, the probability of the class that is named, in equal bins.

    Its value is `(BINS, 3)`: images, mean confidence and share of right answers of each bin; 0 for a bin without any.
    """

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(BINS, 3, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds a batch.

        Args:
            predictions: Probabilities `(N, C)`.
            targets: Class numbers `(N,)`, int64.
        """
        confidence, named = predictions.max(dim=-1)
        self.add(confidence, named == targets)

    def add(self, confidence: Tensor, right: Tensor) -> None:
        """Adds predictions.

        Args:
            confidence: How probable each is said to be, `(N,)`.
            right: Whether it is right, `(N,)`.
        """
        places = (confidence * BINS).long().clamp(0, BINS - 1)
        rows = torch.stack([torch.ones_like(confidence), confidence, right.to(confidence)], dim=1)
        self.sums.index_add_(0, places, rows.to(self.sums))

    def compute(self) -> Tensor:
        """Returns images, mean confidence and accuracy of each bin."""
        images = self.sums[:, :1]
        return torch.cat([images, self.sums[:, 1:] / images.clamp_min(1)], dim=1)
