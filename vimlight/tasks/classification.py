"""Classification: exactly one class for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassStatScores

from vimlight.tasks.averages import over_classes, wide
from vimlight.tasks.base import Task
from vimlight.tasks.calibration import Reliability
from vimlight.tasks.heads import best_factor
from vimlight.tasks.precision_recall import MulticlassCurves
from vimlight.tasks.registry import TASKS

__all__ = ["Classification"]


@TASKS.register("classification")
class Classification(Task):
    """One class for an image; targets are class numbers `(N,)`, int64."""

    kind = "classification"
    monitor = "accuracy"

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean cross-entropy of logits `(N, C)`."""
        return F.cross_entropy(outputs, targets)

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the softmax over the classes, `(N, C)`."""
        return outputs.float().softmax(dim=-1)

    def columns(self, targets: Tensor) -> Tensor:
        """Returns one-hot rows `(N, C)`."""
        return F.one_hot(targets, self.num_outputs).float()

    def metrics(self) -> MetricCollection:
        """Returns accuracy over images, accuracy averaged over classes, and F1 averaged over classes.

        As in scikit-learn, the former mean is over the classes that images have (`balanced_accuracy_score`), the latter
        also over those that images are wrongly given (`f1_score`), whose F1 is 0.
        """
        return MetricCollection({"scores": _Scores(self.num_outputs)})

    def confusion(self) -> Metric:
        """Returns the confusion matrix `(C, C)`, rows the true classes."""
        return MulticlassConfusionMatrix(self.num_outputs)

    def reliability(self) -> Metric:
        """Returns how often the most probable class is right, by its probability."""
        return Reliability()

    def precision_recall(self) -> Metric:
        """Returns each class against all others, by its probability."""
        return MulticlassCurves(self.num_outputs)

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float, float]:
        """Returns the factor with the least cross-entropy; scores of closed forms are even at a half."""
        return best_factor(left_out - 0.5, columns, F.cross_entropy), 0.5

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns the label and the probability of each class."""
        return probability_table(self.labels(predictions), self.class_names, predictions)

    def labels(self, predictions: Tensor) -> list[str]:
        """Names the most probable class of each image."""
        return self.truth(predictions.argmax(dim=-1))

    def truth(self, targets: Tensor) -> list[str]:
        """Names the class of each image."""
        return [self.class_names[index] for index in targets.tolist()]

    def sureness(self, predictions: Tensor) -> list[float]:
        """Returns the probability of the most probable class."""
        return [float(value) for value in predictions.amax(dim=-1)]


class _Scores(MulticlassStatScores):
    """Scores that follow from right and wrong answers of each class, by name."""

    def __init__(self, count: int) -> None:
        super().__init__(count, average="none")

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # named scores instead of the counts
        """Returns `accuracy`, `accuracy_per_class` and `f1`; NaN without images."""
        hits, extra, _, missed, true = wide(super().compute()).unbind(dim=-1)
        return {
            "accuracy": (hits.sum() / true.sum()).float(),
            "accuracy_per_class": over_classes(hits, true),
            "f1": over_classes(2 * hits, 2 * hits + extra + missed),
        }


def probability_table(labels: list[str], class_names: Sequence[str], probabilities: Tensor) -> dict[str, list[Any]]:
    """Returns the columns `label` and `p_CLASS` for each class.

    Args:
        labels: What is predicted, in words.
        class_names: Names of the C classes.
        probabilities: `(N, C)`.
    """
    by_class = zip(class_names, probabilities.T.tolist(), strict=True)
    return {"label": labels, **{f"p_{name}": values for name, values in by_class}}
