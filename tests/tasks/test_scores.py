"""Scores of every kind: of the classes that occur, of nothing at all, and of images that several processes saw."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as reference
from tiny_kinds import SETTINGS, answers
from torch.nn import functional as F

from vimlight.tasks import TASKS, averages, create_task, list_tasks
from vimlight.tasks.regression import merged_moments
from vimlight.tasks.scoring import SplitScores

EVERY = pytest.mark.parametrize("kind", list_tasks())
ERRORS = ("mae", "rmse", "abs_rel")
BATCHES = (slice(0, 12), slice(12, 24), slice(24, 30))


def computed(scores):
    return {name: float(value) for name, value in scores.compute().items()}


@EVERY
@pytest.mark.parametrize("classes", [(1, 3), (2,), (0, 1, 2, 3, 4)])
def test_classes_that_do_not_occur_do_not_count(kind, classes):
    task, predictions, targets = answers(kind, classes=classes)
    scores = task.scores()
    for part in BATCHES:
        scores.update(predictions[part], targets[part])
    found = computed(scores)
    assert found.pop("classes_seen", len(classes)) == len(classes)
    # Grades of one kind agree no better than by chance: there is no kappa, in scikit-learn neither.
    unknown = {"quadratic_kappa"} if len(classes) == 1 else set()
    for name, value in found.items():
        if name.startswith("iou_") or name in unknown:
            assert math.isnan(value) or value == 1
        else:
            assert value == pytest.approx(0 if name in ERRORS else 1, abs=1e-6), name
    if not unknown:
        assert found[task.monitor] == pytest.approx(1 if task.mode == "max" else 0, abs=1e-6)


def test_kinds_whose_targets_have_classes_say_how_many_occur():
    with_classes = {kind for kind in list_tasks() if "classes_seen" in answers(kind)[0].scores()}
    assert with_classes == set(list_tasks()) - {"regression", "depth"}


NOTHING = {
    "multilabel": (torch.rand(4, 5), torch.zeros(4, 5, dtype=torch.int64)),
    "segmentation": (torch.zeros(4, 2, 2, dtype=torch.uint8), torch.full((4, 2, 2), 255, dtype=torch.uint8)),
    "depth": (torch.ones(4, 2, 2), torch.full((4, 2, 2), torch.nan)),
    "retrieval": (F.normalize(torch.rand(4, 6), dim=1), torch.arange(4)),
}


@EVERY
def test_an_epoch_with_nothing_to_score_has_no_score(kind):
    task, predictions, targets = answers(kind)
    predictions, targets = NOTHING.get(kind, (predictions[:0], targets[:0]))
    scores = SplitScores(task, "val")
    scores.update(predictions, targets, torch.tensor(0.0))
    assert scores.metrics.compute()[f"val/{task.monitor}"].isnan()


@pytest.mark.parametrize("seed", range(4))
def test_classes_that_are_only_predicted(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 4, (40,), generator=generator)
    predictions = torch.rand(40, 8, generator=generator) + 0.5 * F.one_hot(targets, 8)
    answer = predictions[:, :6].argmax(dim=1)
    scores = create_task("classification", tuple("abcdefgh")).scores()
    scores.update(F.pad(predictions[:, :6], (0, 2)), targets)
    found = computed(scores)
    assert set(answer.tolist()) > set(targets.tolist())
    assert found["f1"] == pytest.approx(reference.f1_score(targets, answer, average="macro"), abs=1e-6)
    balanced = np.mean([(answer[targets == label] == label).float().mean() for label in range(4)])
    assert found["accuracy_per_class"] == pytest.approx(balanced, abs=1e-6)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(targets, answer), abs=1e-6)
    assert found["classes_seen"] == 4


@pytest.mark.parametrize("seed", range(4))
def test_labels_that_are_only_predicted(seed):
    generator = torch.Generator().manual_seed(seed)
    targets = (torch.rand(30, 6, generator=generator) < 0.3).long()
    targets[:, 2:4] = 0
    predictions = (0.3 * targets + 0.7 * torch.rand(targets.shape, generator=generator)).clamp(0, 1)
    predictions[:, 3] = 0.2
    scores = create_task("multilabel", tuple("abcdef")).scores()
    for part in (slice(0, 7), slice(7, 30)):
        scores.update(predictions[part], targets[part])
    found = computed(scores)
    shown = [0, 1, 4, 5]
    precision = reference.average_precision_score(targets[:, shown], predictions[:, shown])
    assert found["average_precision"] == pytest.approx(precision, abs=1e-6)
    f1 = reference.f1_score(targets, predictions > 0.5, average="macro", zero_division=np.nan)
    assert found["f1"] == pytest.approx(f1, abs=1e-6)
    assert found["accuracy"] == pytest.approx(1 - reference.hamming_loss(targets, predictions > 0.5), abs=1e-6)
    assert found["classes_seen"] == 4


def test_an_image_alone_in_its_class_is_asked_for_by_nobody():
    task, predictions, targets = answers("retrieval", count=12)
    scores = task.metrics()
    scores.update(torch.cat([predictions, torch.eye(5)[:1]]), torch.cat([targets, torch.tensor([0])]))
    assert all(value == 1 for value in computed(scores).values())


@pytest.mark.parametrize(("mean", "spread"), [(0, 1), (1e6, 3), (-2e5, 0.1), (1e-3, 1e-6), (1e12, 1e9)])
def test_r2_of_a_spread_that_is_small_beside_the_mean(mean, spread):
    targets = (mean + spread * torch.randn(60, 1).double()).float()
    predictions = (targets.double() + 0.4 * spread * torch.randn(60, 1)).float()
    scores = create_task("regression", ("width",)).metrics()
    for part in (slice(0, 1), slice(1, 20), slice(20, 60)):
        scores.update(predictions[part], targets[part])
    expected = reference.r2_score(targets.double(), predictions.double())
    assert 0.6 < expected < 0.95
    assert computed(scores)["r2"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6 + 0.3])
def test_r2_of_a_constant_is_no_number(value):
    scores = create_task("regression", ("width",)).metrics()
    for count in (3, 4):
        scores.update(torch.rand(count, 1), torch.full((count, 1), value))
    assert scores.compute()["r2"].isnan()


def test_moments_merge_in_any_grouping():
    values = 1e7 + torch.randn(30, 2).double()
    parts = [values[:4], values[4:4], values[4:17], values[17:]]
    moments = [torch.stack([torch.full((2,), len(x)), x.sum(0) / max(1, len(x)), x.var(0, correction=0) * len(x)])
               if len(x) else torch.zeros(3, 2).double() for x in parts]  # fmt: skip
    whole = merged_moments(torch.stack(moments))
    nested = merged_moments(torch.stack([merged_moments(torch.stack(moments[:2])), *moments[2:]]))
    for found in (whole, nested):
        torch.testing.assert_close(found[1], values.mean(dim=0))
        torch.testing.assert_close(found[2] / found[0], values.var(dim=0, correction=0), rtol=1e-7, atol=0)


def test_a_scale_that_is_off_everywhere_is_what_silog_forgives():
    task = create_task({"kind": "depth", "head": "linear", "focus": 1.0})
    targets = 1 + torch.rand(2, 4, 4)
    outputs = (targets.log() + 5000 + 0.01 * torch.randn(2, 4, 4))[:, None]
    expected = (outputs[:, 0].double() - targets.double().log()).std(correction=0)
    assert float(task.loss(outputs, targets)) == pytest.approx(float(expected), rel=0.05)


@pytest.mark.parametrize("kind", ["regression", "depth"])
def test_sums_are_in_single_precision_where_there_is_no_double(kind, monkeypatch):
    task, predictions, targets = answers(kind, noise=0.5)
    double, single = task.metrics(), task.metrics()
    double.update(predictions, targets)
    monkeypatch.setattr(averages, "widest", lambda device: torch.float32)
    single.to("cpu")
    assert all(x.dtype == torch.float32 for m in single.values() for x in m.metric_state.values())
    single.update(predictions, targets)
    assert computed(single) == pytest.approx(computed(double), rel=1e-3)
    single.reset()
    single.update(predictions, targets)
    assert computed(single) == pytest.approx(computed(double), rel=1e-3)


def share(ranks):
    """Returns the first of several scores, ready to compute as if each had been gathered in a process of its own."""
    sent = []
    for scores in ranks:
        sent.append([])
        sync(scores, lambda x, group=None: sent[-1].append(x) or [x])
        scores.compute()
    for parts in zip(*sent, strict=True):
        assert len({(x.dtype, x.dim(), x.shape[1:]) for x in parts}) == 1, "processes could not exchange these"
    given = iter(zip(*sent, strict=True))
    sync(ranks[0], lambda x, group=None: list(next(given)))
    return ranks[0]


def sync(scores, gather):
    for metric in scores.values():
        metric._computed = None
        metric.dist_sync_fn, metric.distributed_available_fn = gather, lambda: True


@EVERY
@pytest.mark.parametrize("world", [2, 4])
def test_scores_do_not_depend_on_the_number_of_processes(kind, world):
    task, predictions, targets = answers(kind, classes=(0, 1, 3), noise=0.6)
    one, ranks = SplitScores(task, "val"), [SplitScores(task, "val") for _ in range(world)]
    for part in BATCHES:
        one.update(predictions[part], targets[part])
    for rank, scores in enumerate(ranks):
        for part in BATCHES[rank::world] or [slice(0, 0)]:
            scores.update(predictions[part], targets[part])
    expected = computed(one.metrics)
    assert 0 < expected[f"val/{task.monitor}"] < (1 if task.mode == "max" else 1e6)
    assert computed(share([rank.metrics for rank in ranks])) == pytest.approx(expected, rel=1e-6, nan_ok=True)


LOSSES = [name for name in SETTINGS if name not in ("retrieval", "detection", "depth", "depth, linear")]


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_loss_does_not_depend_on_the_sizes_of_batches(name):
    kind = SETTINGS[name]["kind"]
    _, _, targets = answers(kind, classes=(0, 1, 3))
    if TASKS[kind].layout.name == "masks of classes":
        targets[:4] = 255
        targets[4:, 2:] = 255
    names = ("width",) if kind == "regression" else tuple("abcde")
    task = create_task(SETTINGS[name], names)
    shape = (30, task.num_outputs, 2, 2) if task.reads == "maps" else (30, task.num_outputs)
    outputs, found = torch.randn(shape), []
    for parts in (BATCHES, [slice(0, 30)], [slice(0, 4), slice(4, 30), slice(0, 0)]):
        scores = SplitScores(task, "val")
        for part in parts:
            loss = task.loss(outputs[part], targets[part]) if len(targets[part]) else torch.tensor(torch.nan)
            scores.update(task.predictions(outputs[part], (4, 4)), targets[part], loss)
        found.append(float(scores.loss.compute()))
    assert found == pytest.approx([float(task.loss(outputs, targets))] * 3, rel=1e-5)


def test_the_loss_of_numbers_far_from_zero():
    task = create_task("regression", ("width",))
    task.spread = torch.tensor([0.3])
    targets = 1e6 + 0.3 * torch.randn(40, 1)
    outputs = targets + torch.randint(-3, 4, (40, 1)) / 16
    expected = ((outputs - targets) / 0.3).square().mean()
    assert float(task.loss(outputs, targets)) == pytest.approx(float(expected), rel=1e-4)
