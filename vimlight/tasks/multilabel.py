"""Multi-label classification: any number of classes for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import MultilabelConfusionMatrix, MultilabelStatScores
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from vimlight.errors import ConfigError, unknown_name
from vimlight.tasks.averages import over_classes, wide
from vimlight.tasks.base import Task
from vimlight.tasks.calibration import Reliability
from vimlight.tasks.classification import probability_table
from vimlight.tasks.heads import best_factor
from vimlight.tasks.precision_recall import MultilabelCurves
from vimlight.tasks.registry import TASKS
from vimlight.tasks.targets import FLAGS

__all__ = ["Multilabel"]


@TASKS.register("multilabel")
class Multilabel(Task):
    """Any number of classes for an image; targets are 0 or 1 for each, `(N, C)`.

    Args:
        class_names: Names of the classes.
        loss: `"bce"` for binary cross-entropy, `"asymmetric"` for a loss in which the many classes that are absent
            count less the surer they are left out [Ridnik et al. 2021].
        gamma_present: How much less sure finds count, with the asymmetric loss.
        gamma_absent: How much less sure absences count, with the asymmetric loss.
        margin: Probability up to which an absence does not count at all, with the asymmetric loss.

    Raises:
        UnknownNameError: If there is no such loss.
        ConfigError: If a number is out of range.
    """

    kind = "multilabel"
    monitor = "average_precision"
    layout = FLAGS

    def __init__(
        self,
        class_names: Sequence[str] = (),
        *,
        loss: str = "bce",
        gamma_present: float = 0.0,
        gamma_absent: float = 4.0,
        margin: float = 0.05,
    ) -> None:
        super().__init__(class_names)
        if loss not in ("bce", "asymmetric"):
            raise unknown_name("loss of a multilabel task", loss, ("bce", "asymmetric"))
        if min(gamma_present, gamma_absent) < 0 or not 0 <= margin < 1:
            raise ConfigError(
                "the asymmetric loss needs gammas of at least 0 and a margin from 0 up to but not including 1, got "
                f"{gamma_present}, {gamma_absent} and {margin}"
            )
        self.asymmetric = loss == "asymmetric"
        self.gammas, self.margin = (gamma_present, gamma_absent), margin

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss of logits `(N, C)`: `-(1 - p)^a log p` of a class that is present.

        Of one that is absent it is `-q^b log(1 - q)` with `q = max(p - margin, 0)`; all three numbers are 0 for binary
        cross-entropy.
        """
        if not self.asymmetric:
            return cross_entropy(outputs, targets)
        logits = outputs.float()
        found, left = logits.sigmoid(), (logits.sigmoid() - self.margin).clamp_min(0)
        present = (1 - found) ** self.gammas[0] * F.logsigmoid(logits)
        absent = left ** self.gammas[1] * torch.log1p(-left.clamp(max=1 - 1e-6))
        return -torch.where(targets > 0, present, absent).mean()

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the sigmoid of each logit, `(N, C)`."""
        return outputs.float().sigmoid()

    def columns(self, targets: Tensor) -> Tensor:
        """Returns the targets as floats."""
        return targets.float()

    def metrics(self) -> MetricCollection:
        """Returns average precision and F1, averaged over classes, and accuracy over all decisions.

        A class that no image has has no average precision. It has an F1, of 0, where some image is given it, as in
        scikit-learn with `zero_division=numpy.nan`; without that, such classes count as 0 there.
        """
        return MetricCollection({"average_precision": _Precision(), "decisions": _Decisions(self.num_outputs)})

    def confusion(self) -> Metric:
        """Returns one 2x2 matrix a class, `(C, 2, 2)`."""
        return _Confusion(self.num_outputs)

    def reliability(self) -> Metric:
        """Returns how often a label is there, by its probability, over all decisions.

        So torchmetrics' `BinaryCalibrationError` counts; an answer that is sure of an absence has a confidence of 0.
        """
        return _Reliability()

    def precision_recall(self) -> Metric:
        """Returns each class by its probability."""
        return MultilabelCurves(self.num_outputs)

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float, float]:
        """Returns the factor with the least cross-entropy; scores of closed forms are even at a half."""
        return best_factor(left_out - 0.5, columns, cross_entropy), 0.5

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


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean binary cross-entropy of logits, with targets of any type."""
    return F.binary_cross_entropy_with_logits(outputs, targets.to(outputs.dtype))


class _Reliability(Reliability):
    """Decisions on labels."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds probabilities and labels, both `(N, C)`."""
        self.add(predictions.flatten(), targets.flatten() > 0)


class _Precision(Metric):
    """Average precision, averaged over the classes that some image has."""

    full_state_update = False
    predictions: list[Tensor]
    targets: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("predictions", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Keeps probabilities and targets, `(N, C)` each."""
        self.predictions.append(predictions)
        self.targets.append(targets.long())

    def compute(self) -> Tensor:
        """Returns the mean; NaN where no image has any class."""
        predictions, targets = dim_zero_cat(self.predictions), dim_zero_cat(self.targets)
        shown = targets.sum(dim=0) > 0
        pairs = zip(predictions.T[shown], targets.T[shown], strict=True)
        found = [binary_average_precision(*pair, validate_args=False) for pair in pairs]
        return torch.stack(found).mean() if found else torch.full((), torch.nan, device=self.device)


class _Decisions(MultilabelStatScores):
    """Scores that follow from right and wrong decisions for each class, by name."""

    def __init__(self, count: int) -> None:
        super().__init__(count, average="none")

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Counts decisions by probabilities and targets, `(N, C)` each; torchmetrics insists on integers."""
        super().update(predictions, targets.long())

    def compute(self) -> dict[str, Tensor]:  # type: ignore[override]  # named scores instead of the counts
        """Returns `accuracy` and `f1`; NaN without images."""
        hits, extra, right, missed, _ = wide(super().compute()).unbind(dim=-1)
        all_right, wrong = (hits + right).sum(), (extra + missed).sum()
        return {
            "accuracy": (all_right / (all_right + wrong)).float(),
            "f1": over_classes(2 * hits, 2 * hits + extra + missed),
        }


class _Confusion(MultilabelConfusionMatrix):
    """The confusion of each class; torchmetrics insists on integers."""

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Counts decisions by probabilities and targets, `(N, C)` each."""
        super().update(predictions, targets.long())
