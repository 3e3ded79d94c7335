"""Pools: weights against direct searches, and what they promise."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from vimlight.transmiter.judging.pooling import (
    agreement_weights,
    fit_weights,
    left_out_loss,
    log_loss,
    match_entropy,
    mean_entropy,
    pool,
)


def experts(strengths, count=300, classes=4, seed=0):
    """Log-probabilities of experts that see the truth through noise of their own."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (count,), generator=generator)
    truth = F.one_hot(labels, classes).float()
    logits = [strength * truth + torch.randn(count, classes, generator=generator) for strength in strengths]
    return torch.stack(logits).log_softmax(dim=2), labels


def loss_of(logs, labels, weights):
    return F.cross_entropy(pool(logs.double(), torch.tensor(weights).double()), labels).item()


def test_weights_are_the_best_of_a_fine_grid():
    logs, labels = experts([2.0, 0.7])
    found = fit_weights(logs, labels)
    best = loss_of(logs, labels, found.tolist())
    grid = [step / 40 for step in range(81)]
    assert best <= min(loss_of(logs, labels, pair) for pair in itertools.product(grid, grid)) + 1e-9
    assert found[0] > found[1] > 0


def test_a_harmful_expert_gets_nothing():
    logs, labels = experts([1.5, 1.5, -1.5])
    found = fit_weights(logs, labels)
    assert found[2] == 0
    torch.testing.assert_close(found[:2], fit_weights(logs[:2], labels), atol=1e-4, rtol=1e-4)


def test_one_expert_gets_its_best_temperature():
    logs, labels = experts([2.0])
    sharp = (4 * logs).log_softmax(dim=2)
    temperature = fit_weights(sharp, labels)
    slope = torch.autograd.functional.jacobian(lambda w: F.cross_entropy(w * sharp[0].double(), labels), temperature[0])
    assert abs(slope) < 1e-5
    assert log_loss(sharp[0], labels) == pytest.approx(log_loss(logs[0], labels), rel=1e-5)


def test_a_prior_holds_with_few_images_and_gives_way_with_many():
    few, many = experts([3.0, 0.0], count=6), experts([3.0, 0.0], count=3000)
    equal = torch.full((2,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(fit_weights(*few, prior=1e6), equal, atol=1e-3, rtol=0)
    torch.testing.assert_close(fit_weights(*many, prior=1.0), fit_weights(*many), atol=0.02, rtol=0.03)


def test_the_loss_on_images_left_out_by_hand():
    logs, labels = experts([1.0, 0.5], count=12)
    order = sorted(range(12), key=lambda row: (int(labels[row]), row))
    total = 0.0
    for part in range(3):
        out = order[part::3]
        kept = [row for row in range(12) if row not in out]
        weights = fit_weights(logs[:, kept], labels[kept], prior=1.0)
        total += sum(loss_of(logs[:, row : row + 1], labels[row : row + 1], weights.tolist()) for row in out)
    assert left_out_loss(logs, labels, prior=1.0, folds=3) == pytest.approx(total / 12, rel=1e-4)


def test_many_weights_on_few_images_look_better_than_they_are():
    logs, labels = experts([0.0] * 8, count=30)
    inside = loss_of(logs, labels, fit_weights(logs, labels).tolist())
    assert inside < torch.tensor(4.0).log() < left_out_loss(logs, labels)


@pytest.mark.parametrize("seed", range(5))
def test_no_pool_with_shares_loses_more_than_its_experts_do_on_average(seed):
    logs, labels = experts([1.0, 0.3, 2.0], seed=seed)
    shares = torch.rand(3, generator=torch.Generator().manual_seed(seed))
    shares = shares / shares.sum()
    alone = torch.stack([F.nll_loss(expert, labels) for expert in logs])
    assert loss_of(logs, labels, shares.tolist()) <= (shares * alone).sum() + 1e-6


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_entropy_is_matched(share):
    logs, _ = experts([2.0])
    wanted = share * torch.tensor(4.0).log().item()
    factor = match_entropy(logs[0], wanted)
    assert mean_entropy(factor * logs[0]) == pytest.approx(wanted, rel=1e-4)


def test_mean_entropy_by_hand():
    assert mean_entropy(torch.zeros(3, 4)) == pytest.approx(torch.tensor(4.0).log().item())
    assert mean_entropy(torch.tensor([[0.0, 1000.0]])) == pytest.approx(0.0)


def votes(accuracies, count=4000, classes=5, seed=0):
    """Votes of independent experts that are right as often as said."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(classes, (count,), generator=generator)
    off = 1 + torch.randint(classes - 1, (len(accuracies), count), generator=generator)
    right = torch.rand(len(accuracies), count, generator=generator) < torch.tensor(accuracies)[:, None]
    return torch.where(right, truth, (truth + off) % classes)


def test_agreement_finds_the_log_odds_without_a_label():
    accuracies = torch.tensor([0.9, 0.7, 0.6, 0.8], dtype=torch.float64)
    expected = (accuracies * 4 / (1 - accuracies)).log()
    found = agreement_weights(votes(accuracies.tolist()), 5)
    torch.testing.assert_close(found, expected / expected.sum(), atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", ["random", "constant"])
def test_an_expert_that_agrees_with_nobody_loses_its_say(kind):
    found = votes([0.8, 0.8, 0.8, 0.8])
    found[2] = votes([0.2])[0] if kind == "random" else 3
    weights = agreement_weights(found, 5)
    assert weights[2] < 0.05
    assert weights.sum() == pytest.approx(1.0)


def test_agreement_weights_match_expectation_maximisation_written_out():
    found, trust = votes([0.8, 0.6, 0.5], count=200), torch.full((3,), 0.7, dtype=torch.float64)
    for _ in range(300):
        likelihood = torch.ones(200, 5, dtype=torch.float64)
        for expert in range(3):
            chosen = F.one_hot(found[expert], 5).double()
            likelihood *= chosen * trust[expert] + (1 - chosen) * (1 - trust[expert]) / 4
        truth = likelihood / likelihood.sum(dim=1, keepdim=True)
        trust = torch.stack([truth.gather(1, found[e][:, None]).mean() for e in range(3)]).clamp(1e-3, 1 - 1e-3)
    odds = (trust * 4 / (1 - trust)).log().clamp_min(0)
    torch.testing.assert_close(agreement_weights(found, 5, rounds=300), odds / odds.sum(), atol=1e-5, rtol=1e-4)


def test_experts_that_all_say_the_same_share_equally():
    same = votes([0.7]).expand(3, -1)
    torch.testing.assert_close(agreement_weights(same, 5), torch.full((3,), 1 / 3, dtype=torch.float64))
