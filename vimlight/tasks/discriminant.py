"""Linear discriminant analysis in closed form, with exact leave-one-out scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vimlight.errors import ConfigError
from vimlight.tasks.closed_form import SOLVERS, Solution, standardise

__all__ = ["lda"]


@SOLVERS.register("lda")
def lda(features: Tensor, targets: Tensor, strengths: Sequence[float] | None = None) -> Solution:
    """Linear discriminant analysis with a shared covariance that is shrunk towards a multiple of the identity.

    The scores are logarithms of class probabilities up to a constant, `mu_c' P x - mu_c' P mu_c / 2` with
    `P = (S + strength * unit * I)^-1`; they are scaled and shifted to lie around 0 and 1, as those of the other solvers.
    Leaving an image out changes its class's mean and the scatter by one rank each, so no second fit is needed.

    Args:
        features: `(N, D)`.
        targets: One-hot rows `(N, C)` with at least two images a class.
        strengths: Candidates, as multiples of the mean eigenvalue of the scatter; half decades from 1e-3 to 1e3 if left out.

    Returns:
        The solution with the smallest leave-one-out error of its (softmax) probabilities.

    Raises:
        ConfigError: If an image has several labels or a class fewer than two images.
    """
    x, mean, scale = standardise(features)
    y = targets.to(x.dtype)
    counts = y.sum(dim=0)
    if not torch.equal(y.sum(dim=1), torch.ones_like(y[:, 0])):
        raise ConfigError("head 'lda' needs exactly one label an image; use 'ridge'")
    if counts.min() < 2:
        raise ConfigError(
            f"head 'lda' needs at least 2 images a class; class {int(counts.argmin())} has {int(counts.min())}"
        )
    # The images span at most N dimensions, and shrinking towards the identity does not see a rotation.
    basis = torch.linalg.qr(x.T, mode="reduced").Q
    z = x @ basis
    means = (y.T @ z) / counts[:, None]
    within = z - y @ means
    values, vectors = torch.linalg.eigh(within.T @ within / len(z))
    values = values.clamp_min(0)
    grid = strengths if strengths is not None else [10 ** (k / 2) for k in range(-6, 7)]
    fits = [
        _leave_one_out(z @ vectors, y, means @ vectors, values, strength * values.mean() + 1e-9) for strength in grid
    ]
    losses = torch.stack([(scores.softmax(dim=1) - y).square().mean() for scores in fits])
    best = int(losses.argmin())
    inverse = 1 / (values + grid[best] * values.mean() + 1e-9)
    weight = (means @ vectors * inverse) @ (basis @ vectors).T
    bias = -0.5 * ((means @ vectors).square() * inverse).sum(dim=1)
    return Solution(weight, bias + 0.5, mean, scale, float(grid[best]), fits[best] + 0.5, losses[best])


def _leave_one_out(z: Tensor, y: Tensor, means: Tensor, values: Tensor, strength: Tensor) -> Tensor:
    """Returns the scores `(N, C)` of each image from the fit without it, in the eigenbasis of the scatter."""
    count = len(z)
    inverse = 1 / (values + strength)
    size = (y @ y.sum(dim=0))[:, None]
    offset = z - y @ means
    # Without image i its class mean moves by -offset / (n - 1), and the scatter loses n / (n - 1) offset offset'.
    shrink = size / (size - 1) / count
    leverage = (offset.square() * inverse).sum(dim=1, keepdim=True)
    gain = shrink / (1 - shrink * leverage).clamp_min(1e-9)

    def form(first: Tensor, second: Tensor) -> Tensor:
        """The bilinear form of the updated inverse, row by row: `(N, C, R) x (N, 1, R) -> (N, C)`."""
        plain = (first * inverse * second).sum(dim=-1)
        along = (first * inverse * offset[:, None]).sum(dim=-1)
        across = (second * inverse * offset[:, None]).sum(dim=-1)
        return plain + gain * along * across

    moved = means[None] - y[:, :, None] * (offset / (size - 1))[:, None]
    return form(moved, z[:, None]) - 0.5 * form(moved, moved)
