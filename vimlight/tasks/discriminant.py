"""Linear discriminant analysis in closed form, with exact leave-one-out scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vimlight.errors import ConfigError, DataError
from vimlight.tasks.closed_form import SOLVERS, Solution, standardise

__all__ = ["lda"]

_SMALLEST = 1e-9


@SOLVERS.register("lda")
def lda(
    features: Tensor, targets: Tensor, strengths: Sequence[float] | None = None, *, images: Tensor | None = None
) -> Solution:
    """Linear discriminant analysis with a shared covariance that is shrunk towards a multiple of the identity.

    The scores are logarithms of class probabilities up to a constant, `mu_c' P x - mu_c' P mu_c / 2` with
    `P = (S + strength * unit * I)^-1`; they are shifted to be even at a half, as those of the other solvers. Leaving an
    image out changes its class's mean and the scatter by one rank each, so no second fit is needed. Differentiable in
    the features, at the chosen strength.

    Args:
        features: `(N, D)`.
        targets: One-hot rows `(N, C)` with at least two images a class.
        strengths: Candidates, as multiples of the mean eigenvalue of the scatter; half decades from 1e-3 to 1e3 if left
            out.
        images: The image that each row is of; each needs one of its own, as by default.

    Returns:
        The solution with the smallest leave-one-out error of its (softmax) probabilities.

    Raises:
        DataError: If a class has fewer than two images or a feature is not finite.
        ConfigError: If an image has several labels or none, or several rows.
    """
    if images is not None and len(images.unique()) < len(images):
        raise ConfigError("head 'lda' needs one example an image; use 'ridge'")
    x, mean, scale = standardise(features)
    y = targets.to(x.dtype)
    _check(y)
    # The images span at most N dimensions, and shrinking towards the identity sees neither a rotation nor what lies
    # outside; so the basis needs no gradient.
    basis = torch.linalg.qr(x.detach().T, mode="reduced").Q
    z = x @ basis
    means = (y.T @ z) / y.sum(dim=0)[:, None]
    within = z - y @ means
    scatter = within.T @ within / len(z)
    unit = scatter.detach().diagonal().mean()
    grid = strengths if strengths is not None else [10 ** (k / 2) for k in range(-6, 7)]
    strength = _best_strength(scatter.detach(), z.detach(), y, grid)
    # The chosen fit is computed anew without eigenvectors, whose gradients are unstable.
    identity = torch.eye(len(scatter), dtype=z.dtype, device=z.device)
    factor = torch.linalg.cholesky(scatter + (strength * unit + _SMALLEST) * identity)
    white = torch.linalg.solve_triangular(factor, z.T, upper=False).T
    left_out = _left_out_scores(white, y)
    precise = torch.cholesky_solve(means.T, factor).T
    bias = 0.5 - 0.5 * (means * precise).sum(dim=1)
    return Solution(precise @ basis.T, bias, mean, scale, strength, left_out + 0.5, _error(left_out, y))


def _check(y: Tensor) -> None:
    if not torch.equal(y.sum(dim=1), torch.ones_like(y[:, 0])):
        raise ConfigError("head 'lda' needs exactly one label an image; use 'ridge'")
    counts = y.sum(dim=0)
    if counts.min() < 2:
        few = int(counts.argmin())
        raise DataError(
            f"head 'lda' needs at least 2 images of each class at once; of class {few} it got {int(counts[few])}"
        )


def _best_strength(scatter: Tensor, z: Tensor, y: Tensor, strengths: Sequence[float]) -> float:
    """Returns the strength with the smallest leave-one-out error; one eigendecomposition serves all."""
    values, vectors = torch.linalg.eigh(scatter)
    rotated, unit = z @ vectors, values.mean()
    errors = [
        _error(_left_out_scores(rotated / (values.clamp_min(0) + strength * unit + _SMALLEST).sqrt(), y), y)
        for strength in strengths
    ]
    return float(strengths[int(torch.stack(errors).argmin())])


def _error(scores: Tensor, y: Tensor) -> Tensor:
    return (scores.softmax(dim=1) - y).square().mean()


def _left_out_scores(z: Tensor, y: Tensor) -> Tensor:
    """Returns the scores `(N, C)` of each image from the fit without it; features `(N, R)` in which P is the identity.

    Without image i its class mean moves by `-offset / (n - 1)`, and the scatter loses `n / (n - 1) offset offset'`.
    """
    counts = y.sum(dim=0)
    means = (y.T @ z) / counts[:, None]
    offset, size = z - y @ means, (y @ counts)[:, None]
    step = y / (size - 1)
    square, along_image = offset.square().sum(dim=1, keepdim=True), (offset * z).sum(dim=1, keepdim=True)
    crossed = offset @ means.T
    along_mean = crossed - step * square
    shrink = size / (size - 1) / len(z)
    gain = shrink / (1 - shrink * square).clamp_min(_SMALLEST)
    linear = z @ means.T - step * along_image + gain * along_mean * along_image
    quadratic = means.square().sum(dim=1) - 2 * step * crossed + step.square() * square + gain * along_mean.square()
    return linear - 0.5 * quadratic
