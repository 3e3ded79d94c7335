"""Scores of predictions: accuracy, accuracy of each class, calibration error, log-loss, and their spread over seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.errors import DataError

__all__ = ["Interval", "Score", "Scorer", "confidence_interval"]

CALIBRATION_BINS = 15


@dataclass(frozen=True)
class Score:
    """How well one group of images is classified.

    Attributes:
        accuracy: Share of images whose class is found, from 0 to 1.
        per_class: The same for the images of each class, by class index.
        calibration_error: Mean distance of confidence from accuracy over 15 equal bins of confidence.
        log_loss: Mean negative log-likelihood of the true class.
        count: Number of images.
        reliability: Images, mean confidence and share of right answers of each of these bins.
    """

    accuracy: float
    per_class: dict[int, float]
    calibration_error: float
    log_loss: float
    count: int
    reliability: list[tuple[int, float, float]] = field(default_factory=list)


class Scorer:
    """Gathers the scores of a group, batch by batch.

    Args:
        columns: Class indices that predictions are chosen from, in ascending order.
        num_classes: Number of task classes C.
    """

    def __init__(self, columns: Sequence[int], num_classes: int) -> None:
        self._columns = torch.as_tensor(list(columns))
        self._places = torch.full((num_classes,), -1)
        self._places[self._columns] = torch.arange(len(self._columns))
        self._right = torch.zeros(num_classes, dtype=torch.int64)
        self._seen = torch.zeros(num_classes, dtype=torch.int64)
        # Sums for each bin: what torchmetrics (1.9) keeps grows with the images, and confidence 1 has a bin more there.
        self._bins = torch.zeros(CALIBRATION_BINS, 3, dtype=torch.float64)
        self._loss = 0.0

    def update(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Adds a batch.

        Args:
            logits: `(n, C)` logits of all task classes; those outside the group's columns do not count.
            labels: `(n,)` int64 class indices, each among the columns.

        Returns:
            The predicted class indices `(n,)`, int64, on the CPU.

        Raises:
            DataError: If a logit among the columns is not finite.
        """
        chosen = logits[:, self._columns.to(logits.device)].double().cpu()
        targets = self._places[labels.cpu()]
        if not chosen.isfinite().all():
            row = int((~chosen.isfinite()).any(dim=1).nonzero()[0])
            raise DataError(f"row {row} of a batch of {len(chosen)} images has a logit that is not finite")
        probabilities = chosen.softmax(dim=1)
        predicted = probabilities.argmax(dim=1)
        right = predicted == targets
        self._seen += torch.bincount(labels.cpu(), minlength=len(self._seen))
        self._right += torch.bincount(labels.cpu()[right], minlength=len(self._right))
        self._gather(probabilities.amax(dim=1), right)
        self._loss += float(F.cross_entropy(chosen, targets, reduction="sum"))
        return self._columns[predicted]

    def compute(self) -> Score:
        """Returns the scores of all batches.

        Raises:
            DataError: If there was no image.
        """
        count = int(self._seen.sum())
        if not count:
            raise DataError("no image to score")
        per_class = {
            int(label): int(self._right[label]) / int(self._seen[label]) for label in self._seen.nonzero().flatten()
        }
        calibration = float((self._bins[:, 1] - self._bins[:, 2]).abs().sum()) / count
        bins = [(int(n), confidence / max(n, 1), hits / max(n, 1)) for n, confidence, hits in self._bins.tolist()]
        return Score(int(self._right.sum()) / count, per_class, calibration, self._loss / count, count, bins)

    def _gather(self, confidence: Tensor, right: Tensor) -> None:
        places = (confidence * CALIBRATION_BINS).long().clamp(0, CALIBRATION_BINS - 1)
        self._bins.index_add_(0, places, torch.stack([torch.ones_like(confidence), confidence, right.double()], dim=1))


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and how sure it is.

    Attributes:
        mean: The mean.
        std: The sample standard deviation, NaN for one seed.
        half_width: Half the width of the 95 % confidence interval by Student's t, NaN for one seed.
        count: Number of seeds.
    """

    mean: float
    std: float
    half_width: float
    count: int


def confidence_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Returns the mean of some values and its confidence interval.

    Args:
        values: One value a seed.
        level: How often an interval of this kind holds the true mean, for values spread normally.

    Raises:
        DataError: If there is no value.
    """
    from scipy.stats import t

    if not values:
        raise DataError("no value to take the mean of")
    count, mean = len(values), statistics.fmean(values)
    if count == 1:
        return Interval(mean, math.nan, math.nan, 1)
    std = statistics.stdev(values)
    return Interval(mean, std, float(t.ppf((1 + level) / 2, count - 1)) * std / math.sqrt(count), count)
