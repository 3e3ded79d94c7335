"""LogME beside the same by brute force, and what it says of features."""

from __future__ import annotations

import math

import pytest
import torch

from vimlight.errors import DataError
from vimlight.tasks.closed_form import Examples, standardise
from vimlight.tasks.evidence import evidence_of


def examples(count, width, noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, width, generator=generator)
    y = x[:, :2] + noise * torch.randn(count, 2, generator=generator)
    return Examples(x, y, torch.arange(count))


def brute_force(found):
    """Returns the greatest log density of each column, a normal vector of covariance x x' / a + 1 / b, over a grid."""
    x, _, _ = standardise(found.vectors)
    # Without the direction that the intercept takes.
    basis = torch.linalg.qr(torch.cat([torch.ones(len(x), 1), torch.eye(len(x))[:, 1:]], dim=1).double())[0][:, 1:]
    x, y = basis.T @ x, basis.T @ found.columns.double()
    unit, grid = torch.eye(len(x), dtype=x.dtype), torch.logspace(-2, 4, 61).tolist()
    best = torch.full((y.shape[1],), -math.inf, dtype=x.dtype)
    for weights in grid:
        for noise in grid:
            spread = x @ x.T / weights + unit / noise
            normal = torch.distributions.MultivariateNormal(torch.zeros_like(x[:, 0]), spread)
            best = torch.maximum(best, normal.log_prob(y.T))
    return float(best.mean()) / len(x)


@pytest.mark.parametrize(("count", "width"), [(40, 6), (12, 20)])
def test_it_is_the_greatest_density_of_the_targets(count, width):
    found = examples(count, width, noise=2)
    assert evidence_of(found) == pytest.approx(brute_force(found), abs=2e-3)


def test_features_that_tell_the_targets_have_more():
    told, noisy = examples(60, 8), examples(60, 8, noise=3)
    shuffled = told._replace(vectors=told.vectors[torch.randperm(60)])
    assert evidence_of(told) > max(evidence_of(noisy), evidence_of(shuffled))


def test_features_that_are_all_alike_say_nothing_and_break_nothing():
    found = examples(20, 3)
    assert math.isfinite(evidence_of(found._replace(vectors=torch.ones(20, 3))))
    assert math.isfinite(evidence_of(found._replace(columns=torch.zeros(20, 2))))


def test_one_image_is_too_few():
    with pytest.raises(DataError, match="at least 2 images, got 1"):
        evidence_of(examples(1, 3))
