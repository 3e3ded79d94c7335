"""LogME: how likely targets are under linear models of features, without a head that is fitted.

See You et al. 2021, "LogME: Practical assessment of pre-trained models for transfer learning". Beside leave-one-out
errors it is a second opinion on features: it integrates over all heads in place of testing one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vimlight.tasks.closed_form import Examples, standardise

__all__ = ["evidence_of"]

_ROUNDS, _SETTLED, _LEAST = 50, 1e-5, 1e-12


def evidence_of(examples: Examples) -> float:
    """Returns the log evidence of the targets for each example, the mean over columns; more is better.

    Features are standardised and targets centred, as for ridge regression: an intercept is free, and takes one example
    with it. For each column the precisions of weights and noise are those of the greatest evidence.

    Args:
        examples: Vectors `(M, D)` and columns `(M, C)`.

    Raises:
        DataError: If there are fewer than two or a feature is not finite.
    """
    x, _, _ = standardise(examples.vectors)
    y = examples.columns.to(x.dtype)
    left, singular, _ = torch.linalg.svd(x, full_matrices=False)
    centred = y - y.mean(dim=0)
    rotated = left.T @ centred
    beyond = centred.square().sum(dim=0) - rotated.square().sum(dim=0)
    spread, size = singular.square(), (len(x) - 1, x.shape[1])
    found = [_greatest(spread, *column, *size) for column in zip(rotated.T, beyond, strict=True)]
    return sum(found) / len(found)


def _greatest(spread: Tensor, along: Tensor, beyond: Tensor, count: int, width: int) -> float:
    """Returns the greatest evidence for one column by MacKay's fixed point.

    Args:
        spread: Squared singular values of the features.
        along: The targets along the left singular vectors.
        beyond: Squared length of what no linear model reaches.
        count: Number of examples less the one that the intercept takes.
        width: Number of features.
    """
    weights = noise = 1.0
    for _ in range(_ROUNDS):
        ratio = weights / noise
        used = float((spread / (spread + ratio)).sum())
        length = max(float((spread * along.square() / (spread + ratio).square()).sum()), _LEAST)
        error = max(float((along * ratio / (spread + ratio)).square().sum() + beyond.clamp_min(0)), _LEAST)
        weights, noise = max(used, _LEAST) / length, max(count - used, _LEAST) / error
        if abs(weights / noise - ratio) <= _SETTLED * ratio:
            break
    bits = torch.log(weights + noise * spread).sum() + (width - len(spread)) * math.log(weights)
    whole = count * math.log(noise / (2 * math.pi)) + width * math.log(weights) - noise * error - weights * length
    return float(whole - bits) / (2 * count)
