"""Heads in closed form: ridge regression and discriminant analysis, their strength chosen by leaving one out.

With few labels a closed form beats a head trained by gradient steps by a wide margin, and leave-one-out errors, which
cost no second fit, choose its strength and compare whole models without touching validation data.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.registry import Registry

__all__ = ["SOLVERS", "Solution", "Solver", "ridge", "standardise"]


@dataclasses.dataclass(frozen=True)
class Solution:
    """An affine head and how well it does on images left out.

    Attributes:
        weight: `(C, D)`, for standardised features.
        bias: `(C,)`.
        mean: Mean of the features, `(D,)`.
        scale: Scale of the features, `(D,)`; the head computes `weight @ ((x - mean) / scale) + bias`.
        strength: The chosen strength of the regularisation.
        left_out: Scores of each image from the fit without it, `(N, C)`.
        loss: Mean squared leave-one-out error against the targets, the criterion of the choice.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    strength: float
    left_out: Tensor
    loss: Tensor


Solver = Callable[[Tensor, Tensor], Solution]
_SMALLEST = 1e-9
SOLVERS: Registry[Solver] = Registry("closed-form head", "vimlight.tasks")


@SOLVERS.register("ridge")
def ridge(features: Tensor, targets: Tensor, strengths: Sequence[float] | None = None) -> Solution:
    """Ridge regression of the targets on standardised features, with an intercept.

    One eigendecomposition serves all strengths. Differentiable in the features, at the chosen strength.

    Args:
        features: `(N, D)`.
        targets: `(N, C)`: one column a class, for example 1 and 0.
        strengths: Candidates, as multiples of the mean diagonal of the features' Gram matrix; half decades from 1e-4 to
            1e3 if left out.

    Returns:
        The solution with the smallest leave-one-out squared error.

    Raises:
        DataError: If there are fewer than two images or a feature is not finite.
    """
    x, mean, scale = standardise(features)
    y = targets.to(x.dtype)
    centre = y.mean(dim=0)
    gram = x @ x.T
    # Features that are all alike leave nothing to learn, yet a matrix that can be inverted.
    unit = gram.detach().diagonal().mean().clamp_min(_SMALLEST)
    grid = strengths if strengths is not None else [10 ** (k / 2) for k in range(-8, 7)]
    strength = _best_strength(gram.detach(), y - centre, [value * unit for value in grid])
    # The chosen fit is computed anew without eigenvectors, whose gradients are unstable.
    count = len(x)
    inverse = torch.linalg.inv(gram + strength * torch.eye(count, dtype=x.dtype, device=x.device))
    dual = inverse @ (y - centre)
    residuals = strength * dual / (strength * inverse.diagonal() - 1 / count).clamp_min(_SMALLEST)[:, None]
    return Solution(dual.T @ x, centre, mean, scale, float(strength / unit), y - residuals, residuals.square().mean())


def _best_strength(gram: Tensor, y: Tensor, strengths: Sequence[Tensor]) -> Tensor:
    """Returns the strength with the smallest leave-one-out squared error; one eigendecomposition serves all."""
    values, vectors = torch.linalg.eigh(gram)
    rotated = vectors.T @ y
    losses = []
    for strength in strengths:
        kept = strength / (values.clamp_min(0) + strength)
        residuals = vectors @ (kept[:, None] * rotated)
        slack = (vectors.square() * kept).sum(dim=1) - 1 / len(y)
        losses.append((residuals / slack.clamp_min(_SMALLEST)[:, None]).square().mean())
    return strengths[int(torch.stack(losses).argmin())]


def standardise(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centres and scales features, in double precision.

    Args:
        features: `(N, D)`.

    Returns:
        The standardised features, their mean `(D,)` and their scale `(D,)`.

    Raises:
        DataError: If there are fewer than two images or a feature is not finite.
    """
    if len(features) < 2:
        raise DataError(f"a closed-form head needs at least 2 images, got {len(features)}")
    x = features.double()
    if not torch.isfinite(x).all():
        row = int((~torch.isfinite(x).all(dim=1)).nonzero()[0])
        raise DataError(f"the features of image {row} are not finite; a head cannot be fitted")
    mean, scale = x.mean(dim=0), x.std(dim=0)
    # A feature that hardly moves is noise once it is blown up to unit scale.
    scale = torch.where(scale > 1e-6 * scale.max().clamp_min(1e-12), scale, torch.ones_like(scale))
    return (x - mean) / scale, mean, scale
