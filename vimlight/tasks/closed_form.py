"""Heads in closed form: ridge regression and discriminant analysis, their strength chosen by leaving one out.

With few labels a closed form beats a head trained by gradient steps by a wide margin, and leave-one-out errors, which
cost no second fit, choose its strength and compare whole models without touching validation data. What is left out is
an image with all its examples: positions of one image know each other's answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from vimlight.errors import DataError
from vimlight.registry import Registry

__all__ = ["SOLVERS", "Examples", "Solution", "Solver", "ridge", "standardise"]


class Examples(NamedTuple):
    """What heads in closed form and rankings of modules are fitted to.

    Attributes:
        vectors: `(M, D)`, or `(M, K, D)` of K streams.
        columns: What an affine map of them should say, `(M, C)`.
        images: The image that each is of, `(M,)` int64; an image of vectors is one example, one of maps has several.
    """

    vectors: Tensor
    columns: Tensor
    images: Tensor


@dataclasses.dataclass(frozen=True)
class Solution:
    """An affine head and how well it does on images left out.

    Attributes:
        weight: `(C, D)`, for standardised features.
        bias: `(C,)`.
        mean: Mean of the features, `(D,)`.
        scale: Scale of the features, `(D,)`; the head computes `weight @ ((x - mean) / scale) + bias`.
        strength: The chosen strength of the regularisation.
        left_out: Scores of each example from the fit without its image, `(N, C)`.
        loss: Mean squared leave-one-out error against the targets, the criterion of the choice.
    """

    weight: Tensor
    bias: Tensor
    mean: Tensor
    scale: Tensor
    strength: float
    left_out: Tensor
    loss: Tensor


Solver = Callable[..., Solution]
"""From features, targets and, as `images`, the image of each row (by default its own) to a solution."""
_SMALLEST = 1e-9
SOLVERS: Registry[Solver] = Registry("closed-form head", "vimlight.tasks", "SOLVERS")


@SOLVERS.register("ridge")
def ridge(
    features: Tensor, targets: Tensor, strengths: Sequence[float] | None = None, *, images: Tensor | None = None
) -> Solution:
    """Ridge regression of the targets on standardised features, with an intercept.

    One eigendecomposition serves all strengths. Differentiable in the features, at the chosen strength.

    Args:
        features: `(N, D)`.
        targets: `(N, C)`: one column a class, for example 1 and 0.
        strengths: Candidates, as multiples of the mean diagonal of the features' Gram matrix; half decades from 1e-4 to
            1e3 if left out.
        images: The image that each row is of, `(N,)` int64; by default each has one of its own. Rows of one image are
            left out together.

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
    blocks = _Blocks(torch.arange(len(x), device=x.device) if images is None else images.to(x.device))
    strength = _best_strength(x.detach(), y - centre, [value * unit for value in grid], blocks)
    # The chosen fit is computed anew without eigenvectors, whose gradients are unstable.
    weight, errors, slack = _fit(x, y - centre, strength, blocks)
    residuals = blocks.left_out(errors, slack)
    return Solution(weight, centre, mean, scale, float(strength / unit), y - residuals, residuals.square().mean())


class _Blocks:
    """The rows of each image side by side, padded where others have more.

    Args:
        images: The image of each row, `(N,)`.

    Raises:
        DataError: If there are fewer than two.
    """

    def __init__(self, images: Tensor) -> None:
        _, image, counts = torch.unique(images, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            raise DataError(f"a closed-form head needs at least 2 images, got {len(counts)}")
        self.real = torch.arange(int(counts.max()), device=images.device) < counts[:, None]
        self.rows = torch.zeros_like(self.real, dtype=torch.int64)
        self.rows[self.real] = image.argsort(stable=True)
        self.both = self.real[:, :, None] & self.real[:, None, :]
        self.unit = torch.eye(self.rows.shape[1], dtype=torch.float64, device=images.device)
        self.count = len(images)

    def products(self, left: Tensor, right: Tensor) -> Tensor:
        """Returns the products of the rows of each image with each other, `(G, m, m)`."""
        if len(self.unit) == 1:
            # Of many images with one row each, copies would take more memory than all else.
            return (left * right).sum(dim=1)[self.rows, None]
        return left[self.rows] @ right[self.rows].mT

    def left_out(self, errors: Tensor, slack: Tensor) -> Tensor:
        """Returns the errors `(N, C)` of each row from the fit without its image.

        Args:
            errors: Errors of the fit to all rows, `(N, C)`.
            slack: For each image, the identity less what its rows weigh in their own predictions, the intercept not
                counted, `(G, m, m)`.
        """
        slack = torch.where(self.both, slack - 1 / self.count, self.unit)
        if slack.shape[1] == 1:
            found = errors[self.rows] / slack.clamp_min(_SMALLEST)
        else:
            found = torch.linalg.solve(slack + _SMALLEST * self.unit, errors[self.rows])
        in_order: Tensor = found[self.real][self.rows[self.real].argsort()]
        return in_order


def _fit(x: Tensor, y: Tensor, strength: Tensor, blocks: _Blocks) -> tuple[Tensor, Tensor, Tensor]:
    """Returns weights `(C, D)`, errors `(N, C)` and the slack of each image; see `_Blocks.left_out`."""
    count, width = x.shape
    # Of examples and features, the smaller number decides on the cost.
    if count <= width:
        inverse = torch.linalg.inv(x @ x.T + strength * torch.eye(count, dtype=x.dtype, device=x.device))
        dual = inverse @ y
        own = inverse[blocks.rows[:, :, None], blocks.rows[:, None, :]]
        return dual.T @ x, strength * dual, strength * own
    inverse = torch.linalg.inv(x.T @ x + strength * torch.eye(width, dtype=x.dtype, device=x.device))
    weight = inverse @ (x.T @ y)
    return weight.T, y - x @ weight, blocks.unit - blocks.products(x @ inverse, x)


def _best_strength(x: Tensor, y: Tensor, strengths: Sequence[Tensor], blocks: _Blocks) -> Tensor:
    """Returns the strength with the smallest leave-one-out squared error; one eigendecomposition serves all."""
    few = len(x) <= x.shape[1]
    values, vectors = torch.linalg.eigh(x @ x.T if few else x.T @ x)
    values = values.clamp_min(0)
    if not few:
        # From directions of features to those of examples; directions without any spread count for nothing.
        vectors = (x @ vectors) / values.sqrt().clamp_min(_SMALLEST)
    rotated, losses = vectors.T @ y, []
    for strength in strengths:
        fitted = values / (values + strength)
        slack = blocks.unit - blocks.products(vectors * fitted, vectors)
        losses.append(blocks.left_out(y - vectors @ (fitted[:, None] * rotated), slack).square().mean())
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
