"""Multi-label classification: any number of classes for an image."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MultilabelAccuracy,
    MultilabelAveragePrecision,
    MultilabelConfusionMatrix,
    MultilabelF1Score,
)

from vimlight.tasks.base import TASKS, Task
from vimlight.tasks.classification import probability_table
from vimlight.tasks.heads import best_factor
from vimlight.tasks.targets import FLAGS

__all__ = ["Multilabel"]


@TASKS.register("multilabel")
class Multilabel(Task):
    """Any number of classes for an image; targets are 0 or 1 for each, `(N, C)`."""

    kind = "multilabel"
    monitor = "average_precision"
    layout = FLAGS

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy of logits `(N, C)`."""
        return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the sigmoid of each logit, `(N, C)`."""
        return outputs.float().sigmoid()

    def columns(self, targets: Tensor) -> Tensor:
        """Returns the targets as floats."""
        return targets.float()

    def metrics(self) -> MetricCollection:
        """Returns mean average precision, accuracy and F1, each averaged over classes."""
        count = self.num_outputs
        return MetricCollection({
            "average_precision": _IntegerTargets(MultilabelAveragePrecision(count)),
            "accuracy": _IntegerTargets(MultilabelAccuracy(count)),
            "f1": _IntegerTargets(MultilabelF1Score(count)),
        })  # fmt: skip

    def confusion(self) -> Metric:
        """Returns one 2x2 matrix a class, `(C, 2, 2)`."""
        return _IntegerTargets(MultilabelConfusionMatrix(self.num_outputs))

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float, float]:
        """Returns the factor with the least loss; scores of closed forms are even at a half."""
        return best_factor(left_out - 0.5, columns, self.loss), 0.5

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns the labels and the probability of each class."""
        return probability_table(self.labels(predictions), self.class_names, predictions)

    def labels(self, predictions: Tensor) -> list[str]:
        """Names the classes that are more probable than not, joined by `|`."""
        return [
            "|".join(n for n, p in zip(self.class_names, row, strict=True) if p > 0.5) for row in predictions.tolist()
        ]

    def truth(self, targets: Tensor) -> list[str]:
        """Names the classes of each image, joined by `|`."""
        return self.labels(targets)

    def sureness(self, predictions: Tensor) -> list[float]:
        """Returns the probability of the most probable class."""
        return [float(value) for value in predictions.amax(dim=-1)]


class _IntegerTargets(Metric):
    """Passes targets on as integers, which torchmetrics insists on."""

    full_state_update = False

    def __init__(self, metric: Metric) -> None:
        super().__init__()
        self.metric = metric

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Updates the wrapped metric."""
        self.metric.update(predictions, targets.long())

    def compute(self) -> Tensor:
        """Computes the wrapped metric."""
        value: Tensor = self.metric.compute()
        return value

    def reset(self) -> None:
        """Resets the wrapped metric."""
        super().reset()
        self.metric.reset()
