"""Scores against direct computations."""

from __future__ import annotations

import math

import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from vimlight.errors import DataError
from vimlight.transmiter.judging.metrics import CALIBRATION_BINS, Scorer, confidence_interval

COLUMNS = (1, 2, 4)


def draw(count=200, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor(COLUMNS)[torch.randint(3, (count,), generator=generator)]
    logits = torch.randn(count, classes, generator=generator)
    logits += 1.5 * torch.nn.functional.one_hot(labels, classes)
    return logits, labels


def score(logits, labels, batch=64):
    scorer = Scorer(COLUMNS, logits.shape[1])
    for some, targets in zip(logits.split(batch), labels.split(batch), strict=True):
        scorer.update(some, targets)
    return scorer.compute()


def test_accuracy_of_all_and_of_each_class_among_the_columns():
    logits, labels = draw()
    logits[:, 0] = 100.0
    found = score(logits, labels)
    predicted = torch.tensor([max(COLUMNS, key=lambda column: row[column].item()) for row in logits])
    right = predicted == labels
    assert found.count == 200
    assert found.accuracy == pytest.approx(right.float().mean().item())
    assert set(found.per_class) == set(COLUMNS)
    for label, share in found.per_class.items():
        assert share == pytest.approx(right[labels == label].float().mean().item())


def test_log_loss_and_calibration_error_by_hand():
    logits, labels = draw()
    found = score(logits, labels)
    exponents = [[math.exp(row[column]) for column in COLUMNS] for row in logits.double().tolist()]
    shares = [[value / sum(row) for value in row] for row in exponents]
    places = [COLUMNS.index(label) for label in labels.tolist()]
    assert found.log_loss == pytest.approx(-sum(math.log(p[y]) for p, y in zip(shares, places, strict=True)) / 200)
    bins = [[] for _ in range(CALIBRATION_BINS)]
    for row, place in zip(shares, places, strict=True):
        sure = max(row)
        bins[min(int(sure * CALIBRATION_BINS), CALIBRATION_BINS - 1)].append((sure, row[place] == sure))
    error = sum(abs(sum(c for c, _ in b) - sum(r for _, r in b)) for b in bins) / 200
    assert found.calibration_error == pytest.approx(error, abs=1e-6)
    assert [count for count, _, _ in found.reliability] == list(map(len, bins))
    gaps = (count * abs(confidence - accuracy) for count, confidence, accuracy in found.reliability)
    assert sum(gaps) / 200 == pytest.approx(error, abs=1e-6)


def test_calibration_error_is_that_of_torchmetrics():
    logits, labels = draw(500)
    places = (labels[:, None] == torch.tensor(COLUMNS)).int().argmax(dim=1)
    expected = multiclass_calibration_error(
        logits[:, list(COLUMNS)].double().softmax(dim=1), places, len(COLUMNS), n_bins=CALIBRATION_BINS
    )
    assert score(logits, labels).calibration_error == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("batch", [1, 7, 200])
def test_scores_do_not_depend_on_the_batches(batch):
    logits, labels = draw()
    found, expected = score(logits, labels, batch), score(logits, labels)
    assert found.per_class == expected.per_class
    assert found.log_loss == pytest.approx(expected.log_loss, rel=1e-12)
    assert found.calibration_error == pytest.approx(expected.calibration_error, rel=1e-9)


def test_one_column_leaves_nothing_to_be_wrong_about():
    scorer = Scorer((2,), 3)
    scorer.update(torch.randn(4, 3), torch.full((4,), 2))
    found = scorer.compute()
    assert (found.accuracy, found.log_loss, found.calibration_error) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused_with_their_row(value):
    logits, labels = draw(8)
    logits[5, 4] = value
    with pytest.raises(DataError, match="row 5 of a batch of 8 images has a logit that is not finite"):
        score(logits, labels)


def test_nothing_to_score_is_refused():
    with pytest.raises(DataError, match="no image to score"):
        Scorer(COLUMNS, 5).compute()


def test_the_interval_is_students():
    found = confidence_interval([0.1, 0.4, 0.2])
    assert found.mean == pytest.approx(0.7 / 3)
    assert found.std == pytest.approx(torch.tensor([0.1, 0.4, 0.2]).std().item())
    # The quantile of two degrees of freedom has a closed form: 0.95 sqrt(2 / (1 - 0.95^2)).
    quantile = 0.95 * math.sqrt(2 / (1 - 0.95**2))
    assert found.half_width == pytest.approx(quantile * found.std / math.sqrt(3))


def test_one_seed_has_no_spread():
    found = confidence_interval([0.5])
    assert found.mean == 0.5
    assert math.isnan(found.std)
    assert math.isnan(found.half_width)
    with pytest.raises(DataError, match="no value to take the mean of"):
        confidence_interval([])


def test_intervals_hold_the_true_mean_as_often_as_they_say():
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(2000, 4, generator=generator).tolist()
    held = sum(abs(interval.mean) <= interval.half_width for interval in map(confidence_interval, draws))
    assert held / 2000 == pytest.approx(0.95, abs=0.015)
