"""Classification: exactly one class for an image."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix, MulticlassF1Score

from vimlight.tasks.base import TASKS, Task

__all__ = ["Classification"]


@TASKS.register("classification")
class Classification(Task):
    """One class for an image; targets are class numbers `(N,)`, int64."""

    kind = "classification"
    monitor = "accuracy"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy."""
        return F.cross_entropy(logits, targets)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Returns the softmax over the classes."""
        return logits.float().softmax(dim=-1)

    def columns(self, targets: Tensor) -> Tensor:
        """Returns one-hot rows `(N, C)`."""
        return F.one_hot(targets, self.num_outputs).float()

    def metrics(self) -> MetricCollection:
        """Returns accuracy over images, accuracy averaged over classes, and F1 averaged over classes."""
        count = self.num_outputs
        return MetricCollection({
            "accuracy": MulticlassAccuracy(count, average="micro"),
            "accuracy_per_class": MulticlassAccuracy(count, average="macro"),
            "f1": MulticlassF1Score(count, average="macro"),
        })  # fmt: skip

    def confusion(self) -> Metric:
        """Returns the confusion matrix `(C, C)`, rows the true classes."""
        return MulticlassConfusionMatrix(self.num_outputs)

    def labels(self, probabilities: Tensor) -> list[str]:
        """Names the most probable class of each image."""
        return [self.class_names[index] for index in probabilities.argmax(dim=-1).tolist()]
