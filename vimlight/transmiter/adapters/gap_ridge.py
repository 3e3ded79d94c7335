"""Gap ridge: what fine-tuning changed in one model's task logits, regressed on another model's logits or features.

No training and no labels: normal equations over the same unlabelled images, one pass, and a second one in which exact
leave-one-image-out errors choose the strength of the regularisation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vimlight.errors import ConfigError, DataError, unknown_name
from vimlight.transmiter.adapters.transmiter import ADAPTERS, Adapter
from vimlight.transmiter.cache import LogitCache, check_paired
from vimlight.transmiter.cache.rows import LogitRows, checked_z_score, z_score

__all__ = ["READS", "STRENGTHS", "GapRidge", "NormalEquations", "fit_gap_ridge"]

Pairs = Iterable[tuple[Tensor, Tensor]]

READS = ("logits", "features")
STRENGTHS = tuple(10 ** (k / 2) for k in range(-8, 9))
_SMALLEST = 1e-12


@ADAPTERS.register("gap_ridge")
class GapRidge(Adapter):
    """Adds to the task logits what a linear map makes of the z-scored logits, or of the image features.

    Args:
        num_logits: Number of columns M.
        num_classes: Number of task classes C, the first columns.
        reads: `"logits"` or `"features"`.
        width: Width of the features, if it reads features.

    Attributes:
        weight: `(C, M)` or `(C, width)`, zero at the start.
        bias: `(C,)`, zero at the start.

    Raises:
        UnknownNameError: If it shall read something else.
        ConfigError: If it reads features of no width.
    """

    kind = "gap_ridge"
    weight: Tensor
    bias: Tensor

    def __init__(self, num_logits: int, num_classes: int, reads: str = "logits", width: int | None = None) -> None:
        super().__init__(num_logits, num_classes, reads=reads, width=width)
        if reads not in READS:
            raise unknown_name("input of a gap ridge", reads, READS)
        if reads == "features" and not width:
            raise ConfigError("a gap ridge that reads features needs their width")
        self.reads = reads
        inputs = width if reads == "features" and width else num_logits
        self.register_buffer("weight", torch.zeros(num_classes, inputs))
        self.register_buffer("bias", torch.zeros(num_classes))

    def forward(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Returns logits with refined task columns, `(N, M)`.

        Args:
            logits: `(N, M)`.
            features: `(N, E)`, L2-normalised, if it reads features.

        Raises:
            ConfigError: If there are other than M columns, or features are missing.
        """
        return torch.cat([self.task_logits(logits, features), logits[:, self.num_classes :]], dim=1)

    def task_logits(self, logits: Tensor, features: Tensor | None = None) -> Tensor:
        """Returns refined task logits `(N, C)`; see `forward`."""
        self.check_width(logits)
        logits = logits.to(self.weight.dtype)
        scores, _ = z_score(logits)
        if self.reads == "features":
            if features is None:
                raise ConfigError("this gap ridge reads features; call it with logits and features")
            scores = features.to(self.weight.dtype)
        return logits[:, : self.num_classes] + F.linear(scores, self.weight, self.bias)


def fit_gap_ridge(
    source: LogitCache,
    tuned: LogitCache,
    target: LogitCache,
    *,
    reads: str = "logits",
    strengths: Sequence[float] = STRENGTHS,
    batch_size: int = 4096,
) -> GapRidge:
    """Fits a gap ridge for a target model from a source model before and after its fine-tuning.

    Args:
        source: The source's zero-shot logits.
        tuned: The fine-tuned source's logits on the same images; task columns are enough.
        target: The target's zero-shot logits on the same images.
        reads: `"logits"` or `"features"`: what of the target the gap is regressed on.
        strengths: Candidates for the regularisation, as multiples of the mean diagonal of the normal equations.
        batch_size: Rows that are read at a time.

    Returns:
        The adapter for the target, with the chosen strength and its leave-one-image-out error in its history.

    Raises:
        CacheError: If the caches show other images or classes.
        DataError: If there are fewer than two images, a row is not finite or constant, or there are no features.
        UnknownNameError: If it shall read something else.
    """
    check_paired(source, target, one_of_views=True)
    check_paired(source, tuned, task_only=True, one_of_views=True)
    if len(target) < 2:
        raise DataError(f"a regression needs at least 2 images, got {len(target)}")
    width = target.width if reads == "features" else None
    if reads == "features" and width is None:
        raise DataError(f"cache {str(target.path)!r} holds bare logits, no features to read; use reads='logits'")
    adapter = GapRidge(target.num_logits, target.num_classes, reads, width)
    data = _Images(source, tuned, target, reads, batch_size)
    normal = NormalEquations.of(data)
    errors = normal.left_out_errors(data, strengths)
    best = int(errors.argmin())
    weight, bias = normal.solution(strengths[best])
    adapter.weight.copy_(weight)
    adapter.bias.copy_(bias)
    facts = {
        "rows": normal.count,
        "reads": reads,
        "strength": strengths[best],
        "explained_left_out": float(1 - errors[best] / normal.variance),
        "caches": {
            role: {"model": cache.model, "hash": cache.hash}
            for role, cache in (("source", source), ("source_tuned", tuned), ("target", target))
        },
    }
    return adapter.describe(
        class_names=target.class_names,
        aux_names=target.aux_names,
        model=target.model,
        history=adapter.card.after("gap_ridge", **facts),
    ).eval()


@dataclasses.dataclass(frozen=True)
class _Images:
    """What the regression sees: inputs `(n, V, P)` and gaps `(n, V, C)` of n images, in float64."""

    source: LogitCache
    tuned: LogitCache
    target: LogitCache
    reads: str
    batch_size: int

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        num_views = min(cache.num_views for cache in (self.source, self.tuned, self.target))
        size = max(1, self.batch_size // num_views)
        for start in range(0, len(self.source), size):
            rows = slice(start, start + size)
            views = [self._view(rows, start, view) for view in range(num_views)]
            inputs, gaps = zip(*views, strict=True)
            yield torch.stack(inputs, dim=1).double(), torch.stack(gaps, dim=1).double()

    def _view(self, rows: slice, start: int, view: int) -> tuple[Tensor, Tensor]:
        count = self.source.num_classes
        before = self.source.logits(rows, view=view)
        gap = self.tuned.logits(rows, view=view, columns=slice(0, count)) - before[:, :count]
        # Only differences between classes tell them apart.
        gap = gap - gap.mean(dim=1, keepdim=True)
        if self.reads == "features":
            return self.target.features(rows, view=view), gap
        after = self.target.logits(rows, view=view)
        views, name = self.target.num_views, LogitRows(self.target, "target").name
        return checked_z_score(after, lambda row: name((start + row) * views + view)), gap


@dataclasses.dataclass
class NormalEquations:
    """A ridge regression from a stream: moments of inputs x and gaps y, and eigenvectors of the inputs' scatter.

    Attributes:
        count: Number of rows.
        mean_x: `(P,)`.
        mean_y: `(C,)`.
        values: Eigenvalues of the scatter, `(P,)`.
        vectors: Its eigenvectors, `(P, P)`.
        cross: Centred `x.T @ y` in their basis, `(P, C)`.
        variance: Mean square of the centred gaps.
    """

    count: int
    mean_x: Tensor
    mean_y: Tensor
    values: Tensor
    vectors: Tensor
    cross: Tensor
    variance: float

    @classmethod
    def of(cls, data: Pairs) -> NormalEquations:
        """Sums the moments in one pass over inputs `(n, V, P)` and gaps `(n, V, C)`, float64."""
        count = 0
        sums: list[Any] = [0.0] * 5
        middle: tuple[Tensor, Tensor] | None = None
        for inputs, gaps in data:
            x, y = inputs.flatten(0, 1), gaps.flatten(0, 1)
            # Sums of squares of what is far from zero would lose the spread around the mean.
            middle = middle or (x.mean(0), y.mean(0))
            x, y = x - middle[0], y - middle[1]
            count += len(x)
            parts = (x.sum(0), y.sum(0), x.T @ x, x.T @ y, y.square().sum())
            sums = [total + part for total, part in zip(sums, parts, strict=True)]
        mean_x, mean_y = sums[0] / count, sums[1] / count
        scatter = sums[2] - count * torch.outer(mean_x, mean_x)
        cross = sums[3] - count * torch.outer(mean_x, mean_y)
        values, vectors = torch.linalg.eigh(scatter)
        variance = float(sums[4] / count / len(mean_y) - mean_y.square().mean())
        assert middle is not None
        means = middle[0] + mean_x, middle[1] + mean_y
        return cls(count, *means, values.clamp_min(0), vectors, vectors.T @ cross, max(variance, _SMALLEST))

    def _shrunk(self, strength: float) -> Tensor:
        """Returns the inverse of the regularised eigenvalues."""
        return 1 / (self.values + strength * self.values.mean().clamp_min(_SMALLEST))

    def solution(self, strength: float) -> tuple[Tensor, Tensor]:
        """Returns weight `(C, P)` and bias `(C,)`."""
        weight = (self.vectors @ (self._shrunk(strength)[:, None] * self.cross)).T
        return weight, self.mean_y - weight @ self.mean_x

    def left_out_errors(self, data: Pairs, strengths: Sequence[float]) -> Tensor:
        """Returns the mean squared error at images that all their views are left out of the fit for, by strength.

        With H the part of the hat matrix that belongs to an image, leaving it out makes of its residuals e those of
        `(I - H)^-1 e`: exactly, without another fit.
        """
        errors = torch.zeros(len(strengths), dtype=torch.float64)
        for inputs, gaps in data:
            rotated, centred = (inputs - self.mean_x) @ self.vectors, gaps - self.mean_y
            for place, strength in enumerate(strengths):
                scaled = rotated * self._shrunk(strength)
                hat = scaled @ rotated.mT + 1 / self.count
                residuals = centred - scaled @ self.cross
                unit = torch.eye(hat.shape[-1], dtype=torch.float64)
                errors[place] += torch.linalg.solve(unit - hat, residuals).square().sum()
        return errors / (self.count * len(self.mean_y))
