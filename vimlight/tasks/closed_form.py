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
    # The unit is the mean diagonal of the Gram matrix; features that are all alike leave nothing to learn, yet a matrix
    # that can be inverted.
    unit = (x.detach().square().sum() / len(x)).clamp_min(_SMALLEST)
    grid = strengths if strengths is not None else [10 ** (k / 2) for k in range(-8, 7)]
    strength = _best_strength(x.detach(), y - centre, [value * unit for value in grid])
    # The chosen fit is computed anew without eigenvectors, whose gradients are unstable.
    weight, errors, slack = _fit(x, y - centre, strength)
    residuals = errors / (slack - 1 / len(x)).clamp_min(_SMALLEST)[:, None]
    return Solution(weight, centre, mean, scale, float(strength / unit), y - residuals, residuals.square().mean())


def _fit(x: Tensor, y: Tensor, strength: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weights `(C, D)`, errors `(N, C)` and, for each image, 1 less its weight in its own prediction `(N,)`."""
    count, width = x.shape
    # Of examples and features, the smaller number decides on the cost.
    if count <= width:
        inverse = torch.linalg.inv(x @ x.T + strength * torch.eye(count, dtype=x.dtype, device=x.device))
        dual = inverse @ y
        return dual.T @ x, strength * dual, strength * inverse.diagonal()
    inverse = torch.linalg.inv(x.T @ x + strength * torch.eye(width, dtype=x.dtype, device=x.device))
    weight = inverse @ (x.T @ y)
    return weight.T, y - x @ weight, 1 - ((x @ inverse) * x).sum(dim=1)


def _best_strength(x: Tensor, y: Tensor, strengths: Sequence[Tensor]) -> Tensor:
    """Returns the strength with the smallest leave-one-out squared error; one eigendecomposition serves all."""
    few = len(x) <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if few else x.T @ x)
    values = values.clamp_min(0)
    if not few:
        # From directions of features to those of examples; directions without any spread count for nothing.
        vectors = (x @ vectors) / values.sqrt().clamp_min(_SMALLEST)
    rotated, squared = vectors.T @ y, vectors.square()
    losses = []
    for strength in strengths:
        fitted = values / (values + strength)
        residuals = y - vectors @ (fitted[:, None] * rotated)
        slack = 1 - squared @ fitted - 1 / len(y)
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
