"""Pools of predictions: the logarithms of several experts' probabilities, added with weights, with and without labels.

A log-linear pool contains every expert at every temperature, and its log-loss is convex in the weights, so that the
labelled images decide. With weights that add up to one it is never above the weighted mean of the experts' losses.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["agreement_weights", "fit_weights", "left_out_loss", "log_loss", "match_entropy", "mean_entropy", "pool"]

_TOLERANCE = 1e-7


def pool(log_probabilities: Tensor, weights: Tensor) -> Tensor:
    """Returns the pool's logits.

    Args:
        log_probabilities: `(K, n, C)` of K experts.
        weights: `(K,)`.

    Returns:
        `(n, C)`, not normalised.
    """
    return torch.einsum("k,knc->nc", weights.to(log_probabilities), log_probabilities)


def fit_weights(log_probabilities: Tensor, labels: Tensor, *, prior: float = 0.0) -> Tensor:
    """Finds the weights, none below zero, with the smallest log-loss of the pool.

    They need not add up to one: their sum is the pool's temperature, turned over. With one expert, its best temperature
    is all that is found.

    Args:
        log_probabilities: `(K, n, C)` of K experts.
        labels: `(n,)` int64, column indices.
        prior: How many images' worth of belief there is in equal weights that add up to one; with many images it does
            not matter, with few it keeps the weights together.

    Returns:
        `(K,)` float64.
    """
    from scipy.optimize import minimize

    logs, count = log_probabilities.double().cpu(), len(labels)
    target = logs[:, torch.arange(count), labels.cpu()].mean(dim=1)
    equal = torch.full((len(logs),), 1 / len(logs), dtype=torch.float64)

    def objective(point: Any) -> tuple[float, Any]:
        weights = torch.from_numpy(point)
        mixed, away = pool(logs, weights), weights - equal
        loss = mixed.logsumexp(dim=1).mean() - weights @ target + prior / count * away.square().sum()
        slope = torch.einsum("nc,knc->k", mixed.softmax(dim=1), logs) / count - target + 2 * prior / count * away
        return float(loss), slope.numpy()

    bounds = [(0.0, None)] * len(logs)
    options = {"ftol": 1e-13, "gtol": 1e-8, "maxiter": 500}
    found = minimize(objective, equal.numpy(), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return torch.from_numpy(found.x)


def left_out_loss(log_probabilities: Tensor, labels: Tensor, *, prior: float = 0.0, folds: int = 10) -> float:
    """Returns the pool's log-loss on images that its weights were not fitted on, by cross-validation.

    Args:
        log_probabilities: `(K, n, C)` of K experts.
        labels: `(n,)` int64, column indices.
        prior: See `fit_weights`.
        folds: Number of parts, each with its share of every class.
    """
    logs, count = log_probabilities.double(), len(labels)
    parts = torch.empty(count, dtype=torch.long)
    parts[labels.argsort(stable=True).cpu()] = torch.arange(count) % folds
    total = 0.0
    for part in parts.unique().tolist():
        out = parts == part
        if bool(out.all()):
            return float("inf")
        weights = fit_weights(logs[:, ~out], labels[~out], prior=prior)
        total += float(torch.nn.functional.cross_entropy(pool(logs[:, out], weights), labels[out], reduction="sum"))
    return total / count


def log_loss(logits: Tensor, labels: Tensor) -> float:
    """Returns the log-loss at the temperature that suits the labels best: what is said counts, not how loud.

    Args:
        logits: `(n, C)`.
        labels: `(n,)` int64.
    """
    logs = logits.double().log_softmax(dim=1)
    heat = fit_weights(logs[None], labels).to(logs)
    return float(torch.nn.functional.cross_entropy(logs * heat, labels))


def match_entropy(logits: Tensor, entropy: float) -> float:
    """Returns the factor that gives logits a mean entropy, by bisection; experts become equally sure of themselves.

    Args:
        logits: `(n, C)`.
        entropy: The mean entropy in nats, between 0 and log C.
    """
    low, high = -12.0, 12.0
    for _ in range(50):
        middle = (low + high) / 2
        if mean_entropy(logits.double() * 2**middle) > entropy:
            low = middle
        else:
            high = middle
    return float(2 ** ((low + high) / 2))


def mean_entropy(logits: Tensor) -> float:
    """Returns the mean entropy of the predictions in nats, of logits `(n, C)`."""
    logs = logits.double().log_softmax(dim=1)
    return float(-(logs.exp() * logs).sum(dim=1).mean())


def agreement_weights(votes: Tensor, num_columns: int, rounds: int = 200) -> Tensor:
    """Weighs experts by how well they agree, without a label.

    The criterion is the likelihood of the votes under the model of Dawid and Skene (1979) in its simplest form: each
    expert is right with a probability of its own, errors fall on any other class alike, and the true classes are not
    known. It is raised by expectation maximisation; an expert's weight is the log-odds of one of its votes, and nothing
    for one that is no better than chance. Experts that agree with nobody lose their say; a majority that is wrong
    together cannot be told from one that is right.

    Args:
        votes: `(K, n)` int64: the column that each expert chooses.
        num_columns: Number of columns C, at least 2.
        rounds: Number of steps at most.

    Returns:
        `(K,)` float64, adding up to one.
    """
    trust = torch.full((len(votes),), 0.7, dtype=torch.float64)
    for _ in range(rounds):
        belief = _beliefs(votes, trust, num_columns)
        updated = belief.mean(dim=1).clamp(1e-3, 1 - 1e-3)
        if (updated - trust).abs().max() < _TOLERANCE:
            break
        trust = updated
    odds = _log_odds(trust, num_columns).clamp_min(0)
    return odds / odds.sum() if odds.sum() > 0 else torch.full_like(odds, 1 / len(odds))


def _beliefs(votes: Tensor, trust: Tensor, num_columns: int) -> Tensor:
    """Returns how probable it is that each vote is right, `(K, n)`."""
    odds = _log_odds(trust, num_columns)
    # Support of each expert's column by all experts that chose it; columns without a vote share the rest.
    same = votes[:, None] == votes[None]
    support = torch.einsum("kjn,j->kn", same.double(), odds)
    first = torch.stack([~same[place, :place].any(dim=0) for place in range(len(votes))])
    voted = first.sum(dim=0)
    peak = support.max(dim=0).values.clamp_min(0)
    total = (first * (support - peak).exp()).sum(dim=0) + (num_columns - voted) * (-peak).exp()
    return (support - peak).exp() / total


def _log_odds(trust: Tensor, num_columns: int) -> Tensor:
    return (trust * (num_columns - 1) / (1 - trust)).log()
