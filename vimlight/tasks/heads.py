"""Heads: affine maps from features to outputs, trained by gradient steps, in closed form, or the one from the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.tasks.closed_form import SOLVERS, Examples, Solution

__all__ = ["AffineHead", "EnsembleHead", "Posed", "ScaledOutputs", "best_factor", "start_of"]


class Posed(Protocol):
    """What a head in closed form asks of a task; see `Task`."""

    def examples(self, features: Any, targets: Any, images: int) -> Examples:
        """Returns what heads in closed form are fitted to."""

    def calibrate(self, left_out: Tensor, columns: Tensor) -> tuple[float | Tensor, float | Tensor]:
        """Returns factor and middle that turn scores into outputs."""


class AffineHead(nn.Module):
    """Outputs from standardised features: `weight @ ((x - mean) / scale) + bias`.

    Args:
        num_features: Width of the features, D.
        num_outputs: Number of outputs, C.

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
        """Returns outputs `(..., C)` of features `(..., D)`."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)

    def start(self, features: Tensor, targets: Any) -> None:
        """Takes mean and scale from the features of some training images, `(N, D)`."""
        self.standardise(features)

    @torch.no_grad()
    def standardise(self, features: Tensor) -> None:
        """Takes mean and scale from features, so that gradient steps meet well-scaled inputs.

        Args:
            features: `(N, D)`.
        """
        mean, scale = start_of(features.float())
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def fit(self, features: Tensor, targets: Any, task: Posed, solver: str) -> Solution:
        """Sets the head in closed form for features and targets; see `solve`."""
        return self.solve(task.examples(features, targets, len(targets)), task, solver)

    @torch.no_grad()
    def solve(self, examples: Examples, task: Posed, solver: str, factor: float = 1.0) -> Solution:
        """Sets the head in closed form; the outputs are calibrated on images left out.

        Args:
            examples: What it is fitted to.
            task: The task.
            solver: Name in `SOLVERS`.
            factor: How many times as strong the regularisation is as leaving one out would have it.

        Returns:
            The solution, with its leave-one-out scores.

        Raises:
            ConfigError: If the vectors are of another width.
            DataError: If there are too few examples or a feature is not finite.
        """
        width = examples.vectors.shape[1]
        if width != self.weight.shape[1]:
            raise ConfigError(f"the head takes {self.weight.shape[1]} features, got {width}")
        fit = partial(SOLVERS[solver], examples.vectors, examples.columns, images=examples.images)
        solution = fit()
        if factor != 1.0:
            solution = fit([solution.strength * factor])
        scale, middle = task.calibrate(solution.left_out, examples.columns)
        self.weight.copy_(solution.weight * torch.as_tensor(scale, device=self.weight.device).reshape(-1, 1))
        self.bias.copy_((solution.bias - middle) * scale)
        self.mean.copy_(solution.mean)
        self.scale.copy_(solution.scale)
        return solution


class ScaledOutputs(nn.Module):
    """A head whose outputs start around the middle of the targets and are as spread as they are.

    Args:
        body: The head.
        num_outputs: Number of its outputs, C.
        values: From a batch of targets to what the outputs should be, `(M, C)`.
    """

    middle: Tensor
    spread: Tensor

    def __init__(self, body: nn.Module, num_outputs: int, values: Callable[[Any], Tensor]) -> None:
        super().__init__()
        self.body = body
        self.values = values
        self.register_buffer("middle", torch.zeros(num_outputs))
        self.register_buffer("spread", torch.ones(num_outputs))

    def forward(self, features: Any) -> Tensor:
        """Returns outputs `(N, C)`, or `(N, C, H, W)` of maps."""
        outputs: Tensor = self.body(features)
        shape = (-1, *[1] * (outputs.dim() - 2))
        return self.middle.view(shape) + self.spread.view(shape) * outputs

    @torch.no_grad()
    def start(self, features: Any, targets: Any) -> None:
        """Starts the head, and takes middle and spread from targets of some training images."""
        start: Any = getattr(self.body, "start", None)
        if start is not None:
            start(features, targets)
        values = self.values(targets)
        if len(values) > 1:
            middle, spread = start_of(values.float())
            self.middle.copy_(middle)
            self.spread.copy_(spread)

    @torch.no_grad()
    def solve(self, examples: Examples, task: Posed, solver: str, factor: float = 1.0) -> Solution:
        """Sets the head in closed form, which knows middle and spread itself; see `AffineHead.solve`."""
        self.middle.zero_()
        self.spread.fill_(1)
        solution: Solution = self.body.solve(examples, task, solver, factor)  # type: ignore[operator]  # can be solved
        return solution


class EnsembleHead(nn.Module):
    """One head a stream, their outputs mixed with given shares.

    Args:
        heads: K heads whose outputs are tensors.
    """

    def __init__(self, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, features: Any, shares: Tensor) -> Tensor:
        """Returns outputs of features `(N, K, D)`, or maps `(N, K, C, H, W)`, mixed with shares `(K,)`.

        Raises:
            ConfigError: If the outputs are no tensors.
        """
        outputs = [head(stream) for head, stream in zip(self.heads, self.streams(features), strict=True)]
        if not isinstance(outputs[0], Tensor):
            raise ConfigError("logit_ensemble mixes outputs that are tensors, which this task's are not; use k_streams")
        return torch.stack(outputs, dim=-1) @ shares

    def streams(self, features: Any) -> list[Any]:
        """Returns the features of each stream apart."""
        if isinstance(features, Tensor):
            return list(features.unbind(dim=1))
        return [list(levels) for levels in zip(*(level.unbind(dim=1) for level in features), strict=True)]

    def start(self, features: Any, targets: Any) -> None:
        """Starts each head; see `Task.create_head`."""
        for head, stream in zip(self.heads, self.streams(features), strict=True):
            start: Any = getattr(head, "start", None)
            if start is not None:
                start(stream, targets)

    def solve(self, examples: Examples, task: Posed, solver: str, factor: float = 1.0) -> list[Solution]:
        """Sets each head in closed form; see `AffineHead.solve`. Vectors are `(M, K, D)`."""
        return [
            head.solve(examples._replace(vectors=stream), task, solver, factor)  # type: ignore[operator]  # can be solved
            for head, stream in zip(self.heads, examples.vectors.unbind(1), strict=True)
        ]


def start_of(x: Tensor) -> tuple[Tensor, Tensor]:
    """Returns means and scales of the columns of `(M, C)`; a column that hardly moves has the scale 1."""
    scale = x.std(dim=0)
    moving = scale > 1e-6 * scale.max().clamp_min(1e-12)
    return x.mean(dim=0), torch.where(moving, scale, torch.ones_like(scale))


def best_factor(scores: Tensor, columns: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> float:
    """Returns the factor, on a grid, that makes scores the best outputs by a loss.

    Args:
        scores: `(M, C)`.
        columns: What they should be, `(M, C)`.
        loss: From outputs and columns to a scalar.
    """
    factors = [2 ** (k / 2) for k in range(-2, 17)]
    losses = torch.stack([loss(scores * factor, columns) for factor in factors])
    return factors[int(losses.argmin())]
