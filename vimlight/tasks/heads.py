"""Heads: affine maps from features to logits, trained by gradient steps, in closed form, or the one from the other."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.tasks.base import Task
from vimlight.tasks.closed_form import SOLVERS, Solution

__all__ = ["AffineHead", "EnsembleHead"]


class AffineHead(nn.Module):
    """Logits from standardised features: `weight @ ((x - mean) / scale) + bias`.

    Args:
        num_features: Width of the features, D.
        num_outputs: Number of logits, C.

    Attributes:
        weight: `(C, D)`, zero at the start.
        bias: `(C,)`, zero at the start.
        mean: Mean of the features, `(D,)`.
        scale: Scale of the features, `(D,)`.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(num_outputs, num_features))
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("scale", torch.ones(num_features))

    def forward(self, features: Tensor) -> Tensor:
        """Returns logits `(N, C)` of features `(N, D)`."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Takes mean and scale from features, so that gradient steps meet well-scaled inputs.

        Args:
            features: `(N, D)`.
        """
        features = features.float()
        self.mean.copy_(features.mean(dim=0))
        scale = features.std(dim=0)
        self.scale.copy_(torch.where(scale > 1e-6 * scale.max(), scale, torch.ones_like(scale)))

    @torch.no_grad()
    def fit(self, features: Tensor, targets: Tensor, task: Task, solver: str) -> Solution:
        """Sets the head in closed form; the logits are scaled so that left-out images are well calibrated.

        Args:
            features: `(N, D)`.
            targets: As the data gives them.
            task: The task.
            solver: Name in `SOLVERS`.

        Returns:
            The solution, with its leave-one-out scores.

        Raises:
            ConfigError: If the features are of another width.
            DataError: If there are too few images or a feature is not finite.
        """
        if features.shape[1] != self.weight.shape[1]:
            raise ConfigError(f"the head takes {self.weight.shape[1]} features, got {features.shape[1]}")
        solution = SOLVERS[solver](features, task.columns(targets))
        # Scores of closed forms lie around 0 and 1, where a class is even at a half.
        factor = _calibrate(solution.left_out - 0.5, targets, task)
        self.weight.copy_(solution.weight * factor)
        self.bias.copy_((solution.bias - 0.5) * factor)
        self.mean.copy_(solution.mean)
        self.scale.copy_(solution.scale)
        return solution


class EnsembleHead(nn.Module):
    """One head a stream, their logits mixed with given shares.

    Args:
        streams: Number of streams, K.
        num_features: Width of the features of one stream, D.
        num_outputs: Number of logits, C.
    """

    def __init__(self, streams: int, num_features: int, num_outputs: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(AffineHead(num_features, num_outputs) for _ in range(streams))

    def forward(self, features: Tensor, shares: Tensor) -> Tensor:
        """Returns logits `(N, C)` of features `(N, K, D)`, mixed with shares `(K,)`."""
        logits = torch.stack([head(features[:, k]) for k, head in enumerate(self.heads)], dim=-1)
        return logits @ shares

    def standardise(self, features: Tensor) -> None:
        """Standardises each head; features `(N, K, D)`."""
        for k, head in enumerate(self._affine()):
            head.standardise(features[:, k])

    def fit(self, features: Tensor, targets: Tensor, task: Task, solver: str) -> list[Solution]:
        """Sets each head in closed form; see `AffineHead.fit`. Features are `(N, K, D)`."""
        return [head.fit(features[:, k], targets, task, solver) for k, head in enumerate(self._affine())]

    def _affine(self) -> list[AffineHead]:
        return list(self.heads)  # type: ignore[arg-type]  # all are affine heads


def _calibrate(scores: Tensor, targets: Tensor, task: Task) -> float:
    """Returns the factor, on a grid, that makes scores the best logits by the task's loss."""
    factors = [2 ** (k / 2) for k in range(-2, 17)]
    losses = torch.stack([task.loss(scores * factor, targets) for factor in factors])
    return factors[int(losses.argmin())]
