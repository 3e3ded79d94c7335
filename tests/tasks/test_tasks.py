"""Tasks and the heads that are fitted for them."""

from __future__ import annotations

import pytest
import torch

from vimlight.errors import ConfigError, UnknownNameError
from vimlight.tasks import SOLVERS, AffineHead, EnsembleHead, Examples, create_task, list_tasks

NAMES = ["ant", "bee", "cat"]
# What holds for every kind stands in `test_kinds.py`.
EVERY = pytest.mark.parametrize("kind", ["classification", "multilabel"])


def targets_for(kind, count=12):
    classes = torch.arange(count) % 3
    if kind == "classification":
        return classes
    return torch.nn.functional.one_hot(classes, 3) | (torch.arange(count)[:, None] % 2 == 0).long()


@EVERY
def test_every_kind_of_task_trains_measures_and_names(kind):
    task = create_task(kind, NAMES)
    assert (task.kind, task.num_outputs, task.class_names) == (kind, 3, tuple(NAMES))
    targets = targets_for(kind)
    columns = task.columns(targets)
    assert columns.shape == (12, 3)
    assert set(columns.unique().tolist()) <= {0.0, 1.0}
    right, wrong = 20 * (columns - 0.5), 20 * (0.5 - columns)
    assert task.loss(right, targets) < 0.01 < task.loss(wrong, targets)
    logits = right.clone().requires_grad_()
    task.loss(logits, targets).backward()
    assert torch.isfinite(logits.grad).all()
    probabilities = task.predictions(right.bfloat16())
    assert probabilities.dtype == torch.float32
    metrics, confusion = task.metrics(), task.confusion()
    # In two parts, as batches come.
    for part in (slice(0, 5), slice(5, 12)):
        metrics.update(probabilities[part], targets[part])
        confusion.update(probabilities[part], targets[part])
    values = metrics.compute()
    assert task.monitor in values
    assert all(value == pytest.approx(1.0) for value in values.values()), values
    assert confusion.compute().sum() == (12 if kind == "classification" else 36)
    metrics.reset()
    metrics.update(task.predictions(wrong), targets)
    assert metrics.compute()[task.monitor] < 0.7


def test_labels_are_names():
    one, several = create_task("classification", NAMES), create_task("multilabel", NAMES)
    probabilities = torch.tensor([[0.1, 0.8, 0.1], [0.7, 0.2, 0.6], [0.2, 0.3, 0.4]])
    assert one.labels(probabilities) == ["bee", "ant", "cat"]
    assert several.labels(probabilities) == ["bee", "ant|cat", ""]


def test_probabilities_sum_to_one_where_there_is_one_label():
    logits = torch.randn(5, 3)
    torch.testing.assert_close(create_task("classification", NAMES).predictions(logits).sum(dim=1), torch.ones(5))
    torch.testing.assert_close(create_task("multilabel", NAMES).predictions(logits), logits.sigmoid())


def test_mistakes():
    with pytest.raises(UnknownNameError, match="task 'clasification'; did you mean 'classification'"):
        create_task("clasification", NAMES)
    with pytest.raises(ConfigError, match=r"at least 2 classes, got \['ant'\]"):
        create_task("multilabel", ["ant"])
    with pytest.raises(ConfigError, match="takes 4 features, got 5"):
        AffineHead(4, 3).fit(torch.randn(6, 5), torch.arange(6) % 3, create_task("classification", NAMES), "ridge")


def noisy(kind, count, noise, seed):
    generator = torch.Generator().manual_seed(seed)
    targets = targets_for(kind, count)
    columns = create_task(kind, NAMES).columns(targets)
    return columns @ torch.randn(3, 8, generator=generator) + noise * torch.randn(
        count, 8, generator=generator
    ), targets


@EVERY
@pytest.mark.parametrize("solver", list(SOLVERS))
@pytest.mark.parametrize("noise", [1.5, 3.0])
def test_the_logits_of_a_fitted_head_are_calibrated(kind, solver, noise):
    if (kind, solver) == ("multilabel", "lda"):
        pytest.skip("one label an image")
    task, head = create_task(kind, NAMES), AffineHead(8, 3)
    features, targets = noisy(kind, 600, noise, seed=0)
    head.fit(features[:300], targets[:300], task, solver)
    with torch.no_grad():
        logits = head(features[300:])
        losses = {factor: float(task.loss(factor * logits, targets[300:])) for factor in (0.25, 0.5, 1.0, 2.0, 4.0)}
    assert min(losses, key=losses.get) in (0.5, 1.0, 2.0)
    assert losses[1.0] < 1.1 * min(losses.values())


def test_a_new_head_standardises_and_knows_nothing():
    head = AffineHead(8, 3)
    features = 100 + 5 * torch.randn(50, 8)
    features[:, 0] = 7
    head.standardise(features)
    assert not head(features).any()
    with torch.no_grad():
        head.weight.copy_(torch.eye(3, 8))
    assert head(features)[:, 1:].abs().max() < 6
    assert not head(features)[:, 0].any()


def test_an_ensemble_mixes_its_heads():
    task, ensemble = create_task("classification", NAMES), EnsembleHead([AffineHead(8, 3), AffineHead(8, 3)])
    features, targets = noisy("classification", 60, 1.0, seed=1)
    streams = torch.stack([features, torch.randn(60, 8)], dim=1)
    ensemble.solve(Examples(streams, task.columns(targets), torch.arange(60)), task, "ridge")
    alone = AffineHead(8, 3)
    alone.fit(features, targets, task, "ridge")
    with torch.no_grad():
        torch.testing.assert_close(ensemble(streams, torch.tensor([1.0, 0.0])), alone(features))
        half = ensemble(streams, torch.tensor([0.5, 0.5]))
        ends = [ensemble(streams, torch.tensor(shares)) for shares in ([1.0, 0.0], [0.0, 1.0])]
        torch.testing.assert_close(half, (ends[0] + ends[1]) / 2)
    ensemble.start(streams, targets)
    torch.testing.assert_close(ensemble.heads[1].mean, streams[:, 1].mean(dim=0))


def test_a_kind_from_outside_the_package():
    from vimlight.tasks import TASKS
    from vimlight.tasks.classification import Classification

    @TASKS.register("smoothed")
    class Smoothed(Classification):
        kind = "smoothed"

        def loss(self, logits, targets):
            return torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2)

    try:
        assert "smoothed" in list_tasks()
        assert create_task("smoothed", NAMES).loss(torch.zeros(2, 3), torch.tensor([0, 1])) > 1
    finally:
        del TASKS._entries["smoothed"]
