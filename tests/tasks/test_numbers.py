"""Regression, ordinal and multi-label tasks and retrieval: losses and scores against their formulas."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from sklearn.metrics import cohen_kappa_score, r2_score
from torch.nn import functional as F

from vimlight.tasks import create_task
from vimlight.tasks.ordinal import CumulativeHead, median_class
from vimlight.tasks.retrieval import RetrievalScores

GRADES = ("one", "two", "three", "four")


def test_regression_scores_agree_with_their_definition():
    task = create_task("regression", ("age", "weight"))
    targets = torch.randn(40, 2) * torch.tensor([1.0, 30.0]) + 5
    predicted = targets + torch.randn(40, 2)
    scores = task.metrics()
    for part in (slice(0, 10), slice(10, 40)):
        scores.update(predicted[part], targets[part])
    found = scores.compute()
    each = r2_score(targets.numpy(), predicted.numpy(), multioutput="raw_values")
    assert float(found["r2"]) == pytest.approx(each.mean(), abs=1e-4)
    assert float(found["r2_weight"]) == pytest.approx(each[1], abs=1e-4)
    torch.testing.assert_close(found["mae"], (predicted - targets).abs().mean())
    torch.testing.assert_close(found["rmse"], (predicted - targets).square().mean().sqrt())
    scores.reset()
    scores.update(torch.ones(3, 2), torch.ones(3, 2))
    assert scores.compute()["r2"].isnan()


@pytest.mark.parametrize("loss", ["mse", "l1", "huber"])
def test_numbers_count_by_their_spread(loss):
    task = create_task({"kind": "regression", "loss": loss}, ("small", "large"))
    targets = torch.randn(200, 2) * torch.tensor([0.01, 1000.0])
    task.prepare(targets)
    off = [torch.zeros(200, 2), torch.zeros(200, 2)]
    torch.testing.assert_close(task.spread, targets.std(dim=0))
    off[0][:, 0], off[1][:, 1] = task.spread
    losses = [float(task.loss(targets + change, targets)) for change in off]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_a_regression_head_in_closed_form_predicts_the_numbers():
    task = create_task("regression", ("small", "large"))
    features = torch.randn(80, 6)
    targets = features[:, :2] * torch.tensor([0.01, 1000.0]) + torch.tensor([3.0, -7000.0])
    task.prepare(targets)
    head = task.create_head([(6,)])
    head.start(features, targets)
    torch.testing.assert_close(task.predictions(head(features)).mean(dim=0), targets.mean(dim=0))
    head.solve(task.examples(features[:60], targets[:60], 60), task, "ridge")
    with torch.no_grad():
        error = (task.predictions(head(features[60:])) - targets[60:]).abs() / task.spread
    assert error.max() < 0.05
    assert list(task.table(targets)) == ["small", "large"]


def test_ordinal_scores_agree_with_their_definition():
    task = create_task("ordinal", GRADES)
    targets, predicted = torch.randint(0, 4, (60,)), torch.randint(0, 4, (60,))
    scores = task.metrics()
    for part in (slice(0, 20), slice(20, 60)):
        scores.update(F.one_hot(predicted[part], 4).float(), targets[part])
    found = scores.compute()
    kappa = cohen_kappa_score(targets.numpy(), predicted.numpy(), weights="quadratic")
    assert float(found["quadratic_kappa"]) == pytest.approx(kappa, abs=1e-5)
    torch.testing.assert_close(found["mae"], (targets - predicted).abs().float().mean())
    torch.testing.assert_close(found["accuracy"], (targets == predicted).float().mean())


@pytest.mark.parametrize("loss", ["binary", "cumulative"])
def test_probabilities_of_an_ordinal_task(loss):
    task = create_task({"kind": "ordinal", "loss": loss}, GRADES)
    head = task.create_head([(5,)])
    with torch.no_grad():
        head.weight.normal_()
    outputs = head(torch.randn(30, 5))
    assert outputs.shape == (30, 3)
    probabilities = task.predictions(outputs)
    assert (probabilities >= 0).all()
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(30))
    targets = torch.randint(0, 4, (30,))
    task.loss(outputs, targets).backward()
    if loss == "cumulative":
        expected = -probabilities.gather(1, targets[:, None]).log().mean()
        torch.testing.assert_close(task.loss(outputs, targets), expected)
        assert (outputs.diff(dim=1) < 0).all(), "thresholds keep their order"


def test_binary_decisions_are_independent():
    task = create_task("ordinal", GRADES)
    assert task.columns(torch.tensor([0, 2, 3])).tolist() == [[0, 0, 0], [1, 1, 0], [1, 1, 1]]
    logits, targets = torch.randn(6, 3), torch.tensor([0, 1, 2, 3, 1, 2])
    expected = F.binary_cross_entropy_with_logits(logits, task.columns(targets))
    torch.testing.assert_close(task.loss(logits, targets), expected)


def test_the_median_class_has_the_least_mean_absolute_error():
    probabilities = torch.rand(50, 4)
    probabilities /= probabilities.sum(dim=1, keepdim=True)
    classes = torch.arange(4.0)
    cost = (probabilities[:, None] * (classes[:, None] - classes).abs()).sum(dim=2)
    torch.testing.assert_close(cost.gather(1, median_class(probabilities)[:, None])[:, 0], cost.amin(dim=1))


def test_thresholds_start_evenly_spaced_around_the_middle():
    logits = CumulativeHead(4, 3)(torch.zeros(1, 4))
    torch.testing.assert_close(logits, torch.tensor([[1.0, 0.0, -1.0]]), atol=1e-3, rtol=0)


def test_the_asymmetric_loss_agrees_with_its_formula():
    logits = torch.randn(8, 3, requires_grad=True)
    targets = torch.randint(0, 2, (8, 3))
    task = create_task({"kind": "multilabel", "loss": "asymmetric", "gamma_present": 1.0}, GRADES[:3])
    p = logits.sigmoid()
    q = (p - 0.05).clamp_min(0)
    expected = -torch.where(targets > 0, (1 - p) * p.log(), q**4 * (1 - q).log()).mean()
    torch.testing.assert_close(task.loss(logits, targets), expected)
    plain = create_task({"kind": "multilabel", "loss": "asymmetric", "gamma_absent": 0.0, "margin": 0.0}, GRADES[:3])
    torch.testing.assert_close(plain.loss(logits, targets), create_task("multilabel", GRADES[:3]).loss(logits, targets))
    task.loss(40 * logits, targets).backward()
    assert torch.isfinite(logits.grad).all()


def clusters(count=40, noise=0.1):
    labels = torch.arange(count) % 4
    return F.normalize(torch.eye(4, 8)[labels] + noise * torch.randn(count, 8), dim=1), labels


def test_retrieval_scores_of_clusters_are_perfect_and_those_of_noise_are_chance():
    scores = RetrievalScores(4)
    vectors, labels = clusters()
    scores.update(vectors[:15], labels[:15])
    scores.update(vectors[15:], labels[15:])
    assert {name: float(value) for name, value in scores.compute().items()} == dict.fromkeys(
        ("recall_at_1", "recall_at_5", "map", "knn_accuracy", "probe_accuracy"), 1.0
    )
    scores.reset()
    scores.update(F.normalize(torch.randn(200, 8), dim=1), torch.arange(200) % 4)
    found = scores.compute()
    assert all(0.15 < float(found[name]) < 0.35 for name in ("recall_at_1", "map", "knn_accuracy"))
    # Of classes of one size, the one that an image is left out of is the rarest.
    assert float(found["probe_accuracy"]) < 0.3


def test_mean_average_precision_agrees_with_a_loop():
    vectors, labels = clusters(25, noise=0.8)
    scores = RetrievalScores(4)
    scores.update(vectors, labels)
    expected = []
    for query in range(25):
        order = sorted((n for n in range(25) if n != query), key=lambda n: -float(vectors[n] @ vectors[query]))
        hits = [labels[n] == labels[query] for n in order]
        precisions = [sum(hits[: rank + 1]) / (rank + 1) for rank, hit in enumerate(hits) if hit]
        expected.append(float(sum(precisions)) / len(precisions))
    assert float(scores.compute()["map"]) == pytest.approx(np.mean(expected), abs=1e-5)


def test_images_alone_in_their_class_ask_for_nothing():
    scores = RetrievalScores(3)
    scores.update(F.normalize(torch.randn(3, 4), dim=1), torch.tensor([0, 1, 2]))
    assert scores.compute()["map"].isnan()


def test_the_contrastive_loss_agrees_with_a_loop():
    task = create_task("retrieval", GRADES)
    vectors, labels = clusters(12, noise=0.5)
    vectors.requires_grad_()
    losses = []
    for n in range(12):
        others = [m for m in range(12) if m != n]
        likeness = torch.stack([vectors[n] @ vectors[m] for m in others]) / 0.1
        shares = likeness.log_softmax(dim=0)
        losses.append(-torch.stack([shares[k] for k, m in enumerate(others) if labels[m] == labels[n]]).mean())
    torch.testing.assert_close(task.loss(vectors, labels), torch.stack(losses).mean())
    task.loss(vectors, labels).backward()
    assert torch.isfinite(vectors.grad).all()
    assert task.loss(vectors[:4], labels[:4]) == 0, "nobody has a partner"
    suffix, content = task.file(vectors[0], (1, 1))
    assert suffix == ".npy"
    np.testing.assert_allclose(np.load(io.BytesIO(content)), vectors[0].detach().numpy())
