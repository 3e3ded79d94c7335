"""Multi-label classification: any number of classes for an image."""

from __future__ import annotations

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

__all__ = ["Multilabel"]


@TASKS.register("multilabel")
class Multilabel(Task):
    """Any number of classes for an image; targets are 0 or 1 for each, `(N, C)`."""

    kind = "multilabel"
    monitor = "average_precision"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean binary cross-entropy."""
        return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Returns the sigmoid of each logit."""
        return logits.float().sigmoid()

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

    def labels(self, probabilities: Tensor) -> list[str]:
        """Names the classes that are more probable than not, joined by `|`."""
        return [
            "|".join(n for n, p in zip(self.class_names, row, strict=True) if p > 0.5) for row in probabilities.tolist()
        ]


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
