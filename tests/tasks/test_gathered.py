"""What tasks gather beside their scores: calibration and curves, by torchmetrics' own numbers."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchmetrics.classification import BinaryCalibrationError, MulticlassCalibrationError
from torchmetrics.functional.classification import binary_precision_recall_curve

from vimlight.tasks import TASKS, Task, create_task
from vimlight.tasks.ordinal import median_class

CLASSES = ("a", "b", "c", "d")
# The last class is never shown.
LABELS = torch.tensor([0, 1, 2, 2, 1, 0, 0, 1, 2, 0])
FLAGS = F.one_hot(LABELS, 4) | F.one_hot(LABELS.flip(0), 4)
CURVED = [kind for kind, task in TASKS.items() if task.precision_recall is not Task.precision_recall]
RELIABLE = [kind for kind, task in TASKS.items() if task.reliability is not Task.reliability]


def case(kind):
    """Predictions and targets of a kind, in two batches."""
    task, generator = create_task(kind, CLASSES), torch.Generator().manual_seed(0)
    predictions = task.predictions(torch.randn(len(LABELS), task.num_outputs, generator=generator))
    return task, predictions, FLAGS if kind == "multilabel" else LABELS


def gathered(metric, predictions, targets):
    for part in (slice(0, 3), slice(3, None)):
        metric.update(predictions[part], targets[part])
    return metric.compute()


def test_kinds_with_probabilities_have_curves():
    assert set(RELIABLE) == {"classification", "multilabel", "ordinal"}
    # Those of boxes are beside pycocotools' in test_box_metrics.
    assert set(CURVED) == {*RELIABLE, "detection"}


@pytest.mark.parametrize("kind", RELIABLE)
def test_curves_are_those_of_each_class_against_all_others(kind):
    task, predictions, targets = case(kind)
    curves = gathered(task.precision_recall(), predictions, targets)
    assert curves.shape == (4, 102, 2)
    assert curves[3].isnan().all()
    for number in range(3):
        flags = targets[:, number] if targets.dim() == 2 else (targets == number).long()
        precision, recall, _ = binary_precision_recall_curve(predictions[:, number], flags, thresholds=101)
        torch.testing.assert_close(curves[number], torch.stack([recall, precision], dim=1), equal_nan=True)


@pytest.mark.parametrize("kind", RELIABLE)
def test_bins_have_the_calibration_error_of_torchmetrics(kind):
    task, predictions, targets = case(kind)
    images, confidence, accuracy = gathered(task.reliability(), predictions, targets).unbind(dim=1)
    found = float((images * (confidence - accuracy).abs()).sum() / images.sum())
    if kind == "classification":
        expected = MulticlassCalibrationError(4, n_bins=15)(predictions, targets)
    elif kind == "multilabel":
        expected = BinaryCalibrationError(n_bins=15)(predictions.flatten(), targets.flatten())
    else:
        named = median_class(predictions)
        expected = BinaryCalibrationError(n_bins=15)(predictions.gather(1, named[:, None])[:, 0], named == targets)
    assert found == pytest.approx(float(expected), abs=1e-5)
