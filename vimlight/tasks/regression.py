"""Regression: one or several real numbers for an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MetricCollection

from vimlight.errors import unknown_name
from vimlight.tasks.averages import WideMetric, wide
from vimlight.tasks.base import Shapes, Task
from vimlight.tasks.heads import ScaledOutputs, start_of
from vimlight.tasks.registry import TASKS
from vimlight.tasks.targets import NUMBERS

__all__ = ["Regression", "merged_moments"]

_LOSSES = {"mse": F.mse_loss, "l1": F.l1_loss, "huber": F.smooth_l1_loss}


@TASKS.register("regression")
class Regression(Task):
    """Real numbers for an image; targets are `(N, T)` float32, and so are predictions.

    In the loss every number counts in units of its spread over the training images.

    Args:
        class_names: Names of the T numbers.
        loss: `"mse"`, `"l1"` or `"huber"`.

    Raises:
        UnknownNameError: If there is no such loss.
    """

    kind = "regression"
    monitor = "r2"
    layout = NUMBERS
    fewest_classes = 1

    def __init__(self, class_names: Sequence[str] = (), *, loss: str = "mse") -> None:
        super().__init__(class_names)
        if loss not in _LOSSES:
            raise unknown_name("loss of a regression task", loss, _LOSSES)
        self._loss = _LOSSES[loss]
        self.spread = torch.ones(len(self.class_names))

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates an affine head whose outputs start at the means of the targets."""
        return ScaledOutputs(super().create_head(shapes), self.num_outputs, torch.as_tensor)

    def prepare(self, targets: Tensor) -> None:
        """Learns the spread of each number."""
        if len(targets) > 1:
            self.spread = start_of(targets.float())[1]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Returns the mean loss of numbers in units of their spread."""
        # Of large numbers, quotients would lose the digits that tell them apart.
        error = (outputs.float() - targets) / self.spread.to(outputs.device)
        return self._loss(error, torch.zeros_like(error))

    def predictions(self, outputs: Tensor, size: tuple[int, int] = (0, 0)) -> Tensor:
        """Returns the numbers."""
        return outputs.float()

    def metrics(self) -> MetricCollection:
        """Returns mean absolute and root mean square error, and R2 averaged over the numbers; of several, each too."""
        return MetricCollection({"errors": _Errors(self.class_names)})

    def columns(self, targets: Tensor) -> Tensor:
        """Returns the numbers in units of their spread, so that none outweighs the others."""
        return targets / self.spread.to(targets.device)

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[Tensor, float]:
        """Returns the spread, which turns the scores back into the numbers."""
        return self.spread.to(left_out), 0.0

    def table(self, predictions: Tensor) -> dict[str, list[Any]]:
        """Returns one column a number."""
        return dict(zip(self.class_names, predictions.T.tolist(), strict=True))

    def labels(self, predictions: Tensor) -> list[str]:
        """Says the numbers."""
        return [", ".join(f"{value:.3g}" for value in row) for row in predictions.tolist()]

    def truth(self, targets: Tensor) -> list[str]:
        """Says the numbers."""
        return self.labels(targets)


class _Errors(WideMetric):
    """Errors from sums over the images, and from moments of the targets."""

    sums: Tensor
    moments: Tensor

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__()
        self.names = tuple(names)
        self.add_state("sums", torch.zeros(2, len(names), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("moments", torch.zeros(3, len(names), dtype=torch.float64), dist_reduce_fx=merged_moments)

    def update(self, predictions: Tensor, targets: Tensor) -> None:
        """Adds images: `(N, T)` each."""
        if not len(targets):
            return
        true = wide(targets)
        error, mean = wide(predictions) - true, true.mean(dim=0)
        self.sums += torch.stack([error.abs(), error.square()]).sum(dim=1)
        moments = torch.stack([torch.full_like(mean, len(true)), mean, (true - mean).square().sum(dim=0)])
        self.moments = merged_moments(torch.stack([self.moments, moments]))

    def compute(self) -> dict[str, Tensor]:
        """Returns `mae`, `rmse` and `r2`, and of several numbers `mae_NAME` and `r2_NAME`; R2 of a constant is NaN."""
        count, mean, squares = self.moments
        absolute, square = self.sums / count
        # Rounding alone makes a constant vary by a few units in the last place.
        varies = (squares / count).sqrt() > 8 * torch.finfo(mean.dtype).eps * mean.abs()
        r2 = torch.where(varies, 1 - self.sums[1] / squares, torch.nan).float()
        found = {"mae": absolute.mean().float(), "rmse": square.mean().sqrt().float(), "r2": r2.nanmean()}
        if len(self.names) > 1:
            found |= {f"mae_{name}": value for name, value in zip(self.names, absolute.float(), strict=True)}
            found |= {f"r2_{name}": value for name, value in zip(self.names, r2, strict=True)}
        return found


def merged_moments(parts: Tensor) -> Tensor:
    """Merges the moments of parts into those of the whole [Chan et al. 1979].

    Differences of sums of squares would lose a spread that is small beside the mean.

    Args:
        parts: Count, mean, and sum of squared differences from it, of each of K parts: `(K, 3, T)`.

    Returns:
        `(3, T)`.
    """
    count, mean, squares = parts.unbind(dim=1)
    total = count.sum(dim=0)
    middle = (count * mean).sum(dim=0) / total.clamp_min(1)
    return torch.stack([total, middle, (squares + count * (mean - middle).square()).sum(dim=0)])
