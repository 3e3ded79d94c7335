"""Ordinal classification: classes with an order, such as grades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix

from vimlight.errors import unknown_name
from vimlight.tasks.averages import wide
from vimlight.tasks.base import Shapes, Task
from vimlight.tasks.calibration import Reliability
from vimlight.tasks.classification import probability_table
from vimlight.tasks.heads import AffineHead, best_factor
from vimlight.tasks.precision_recall import MulticlassCurves
from vimlight.tasks.registry import TASKS

__all__ = ["CumulativeHead", "Ordinal"]

_LOSSES = ("binary", "cumulative")


@TASKS.register("ordinal")
class Ordinal(Task):
    """One class of an order for an image; targets are class numbers `(N,)`, predictions probabilities `(N, C)`.

    Outputs are logits of "beyond class k" for all classes but the last, `(N, C - 1)`.

    Args:
        class_names: Names of the classes, in their order.
        loss: `"binary"` for C - 1 independent decisions, each whether the class lies beyond the k-th; `"cumulative"`
            for one score and ordered thresholds under the likelihood of the class (a cumulative link model).

    Raises:
        UnknownNameError: If there is no such loss.
    """

    kind = "ordinal"
    monitor = "quadratic_kappa"

    def __init__(self, class_names: Sequence[str] = (), *, loss: str = "binary") -> None:
        super().__init__(class_names)
        if loss not in _LOSSES:
            raise unknown_name("loss of an ordinal task", loss, _LOSSES)
        self.cumulative = loss == "cumulative"

    @property
    def num_outputs(self) -> int:
        """One logit for each class but the last."""
        return len(self.class_names) - 1

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates an affine head, or one with ordered thresholds."""
        return CumulativeHead(shapes[0][0], self.num_outputs) if self.cumulative else super().create_head(shapes)

    @property
    def closed_form(self) -> bool:
        """Whether the decisions are independent."""
        return not self.cumulative

    @property
    def ranks(self) -> bool:
        """Modules are ranked by the independent decisions in any case."""
        return True

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of the decisions, or the mean negative log-likelihood of the classes."""
        if not self.cumulative:
            return F.binary_cross_entropy_with_logits(outputs, self.columns(targets).to(outputs.dtype))
        likelihood = self.predictions(outputs).gather(1, targets[:, None])
        return -likelihood.clamp_min(1e-7).log().mean()

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the probability of each class, `(N, C)`; what lies beyond a later class lies beyond earlier ones."""
        beyond = outputs.float().sigmoid().cummin(dim=1).values
        ends = beyond.new_ones(len(beyond), 1)
        return torch.cat([ends, beyond], dim=1) - torch.cat([beyond, 0 * ends], dim=1)

    def metrics(self) -> MetricCollection:
        """Returns the mean absolute difference of class numbers, quadratic kappa and accuracy, of the median class."""
        return MetricCollection({"scores": _Scores(len(self.class_names))})

    def confusion(self) -> Metric:
        """Returns the confusion matrix `(C, C)` of the median class, rows the true classes."""
        return _Medians(len(self.class_names))

    def reliability(self) -> Metric:
        """Returns how often the median class is right, by its probability."""
        return _Reliability()

    def precision_recall(self) -> Metric:
        """Returns each class against all others, by its probability."""
        return MulticlassCurves(len(self.class_names))

    def columns(self, targets: Tensor) -> Tensor:
        """Returns whether each class lies beyond the k-th, `(N, C - 1)`."""
        return (targets[:, None] > torch.arange(self.num_outputs, device=targets.device)).float()

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float, float]:
        """Returns the factor with the least cross-entropy; scores of closed forms are even at a half."""
        loss = F.binary_cross_entropy_with_logits
        return best_factor(left_out - 0.5, columns.to(left_out.dtype), loss), 0.5

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns the median class and the probability of each class."""
        return probability_table(self.labels(predictions), self.class_names, predictions)

    def labels(self, predictions: Tensor) -> list[str]:
        """Names the median class of each image."""
        return self.truth(median_class(predictions))

    def truth(self, targets: Tensor) -> list[str]:
        """Names the class of each image."""
        return [self.class_names[index] for index in targets.tolist()]

    def sureness(self, predictions: Tensor) -> list[float]:
        """Returns the probability of the median class."""
        chosen = predictions.gather(1, median_class(predictions)[:, None])
        return [float(value) for value in chosen[:, 0]]


class CumulativeHead(AffineHead):
    """One affine score of the features, less thresholds that keep their order: `(N, K)` logits.

    Args:
        num_features: Width of the features.
        thresholds: Number of thresholds, K.
    """

    def __init__(self, num_features: int, thresholds: int) -> None:
        super().__init__(num_features, 1)
        # Evenly spaced around the middle; steps are softplus of these.
        self.bias = nn.Parameter(torch.tensor([(thresholds - 1) / 2]))
        self.steps = nn.Parameter(torch.full((thresholds - 1,), 0.5413))

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits `(N, K)`, falling from one to the next."""
        thresholds = F.pad(F.softplus(self.steps).cumsum(0), (1, 0))
        return super().forward(features) - thresholds


def median_class(probabilities: Tensor) -> Tensor:
    """Returns the class that as much probability lies below as above, `(N,)`; its mean absolute error is the least."""
    return (probabilities.cumsum(dim=1)[:, :-1] < 0.5).sum(dim=1)


class _Medians(MulticlassConfusionMatrix):
    """The confusion of median classes."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Counts images by probabilities `(N, C)` and classes `(N,)`."""
        super().update(median_class(predictions), targets)


class _Reliability(Reliability):
    """Answers that are the median class."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds images by probabilities `(N, C)` and classes `(N,)`."""
        named = median_class(predictions)
        self.add(predictions.gather(1, named[:, None])[:, 0], named == targets)


class _Scores(_Medians):
    """Scores that follow from the confusion, by name."""

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # named scores instead of the matrix
        """Returns `mae`, `quadratic_kappa` and `accuracy`; kappa is NaN where all images are of one class."""
        matrix = wide(super().compute())
        place = torch.arange(len(matrix), device=matrix.device)
        distance = (place[:, None] - place).abs()
        total = matrix.sum()
        by_chance = matrix.sum(dim=1)[:, None] * matrix.sum(dim=0) / total
        found, expected = (distance**2 * matrix).sum(), (distance**2 * by_chance).sum()
        return {
            "mae": ((distance * matrix).sum() / total).float(),
            "quadratic_kappa": (1 - found / expected).float(),
            "accuracy": (matrix.trace() / total).float(),
        }
