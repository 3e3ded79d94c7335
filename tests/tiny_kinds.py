"""One drawn data set and some made-up answers for each kind of task, and settings that keep heads small."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from vimlight.data.scenes import SCENE_TASKS
from vimlight.tasks import TASKS, create_task, list_tasks
from vimlight.tasks.box_layout import BOXES
from vimlight.tasks.targets import FIELDS, FLAGS, IGNORE, LABELS, MASKS, NUMBERS

SIZE = 32
# Settings that keep heads small.
SMALL = {
    "segmentation": {"width": 8},
    "depth": {"width": 8},
    "detection": {"width": 32, "levels": 2, "convs": 1, "score_threshold": 0.001},
}
# Kinds and settings beyond the plain ones.
VARIANTS = {
    "segmentation, linear": {"kind": "segmentation", "head": "linear"},
    "depth, linear": {"kind": "depth", "head": "linear"},
    "depth, l1": {"kind": "depth", "width": 8, "loss": "l1", "scale": "linear"},
    "ordinal, cumulative": {"kind": "ordinal", "loss": "cumulative"},
    "multilabel, asymmetric": {"kind": "multilabel", "loss": "asymmetric"},
    "regression, huber": {"kind": "regression", "loss": "huber"},
}
SETTINGS = {**{kind: {"kind": kind, **SMALL.get(kind, {})} for kind in list_tasks()}, **VARIANTS}


def scene_for(kind: str, stage: str = "midstream") -> str:
    """Returns the drawn task whose targets a kind learns from."""
    layout = TASKS[kind].layout.name
    fitting = [n for n, t in SCENE_TASKS.items() if t.stage == stage and TASKS[t.kind].layout.name == layout]
    own = [name for name in fitting if SCENE_TASKS[name].kind == kind]
    # Few images are to show every class.
    return min(own or fitting, key=lambda name: len(SCENE_TASKS[name].class_names))


def answers(kind: str, count: int = 30, classes: tuple[int, ...] = (1, 3), noise: float = 0.0):
    """Returns a task of five classes, predictions and targets of `count` images that show some of the classes alone.

    Without noise all predictions are right.
    """
    layout = TASKS[kind].layout.name
    names = ("width",) if layout == NUMBERS.name else () if layout == FIELDS.name else tuple("abcde")
    labels = torch.tensor(classes)[torch.arange(count) % len(classes)]
    return create_task(SETTINGS[kind], names), *ANSWERS[layout](labels, noise)


def _labels(labels, noise):
    rows = F.one_hot(labels, 5).float()
    return F.normalize(rows + noise * torch.randn(rows.shape).abs(), p=1.0), labels


def _flags(labels, noise):
    rows = F.one_hot(labels, 5)
    # The first image shows nothing.
    rows[0] = 0
    return (1 - noise) * rows + noise * torch.rand(rows.shape), rows


def _numbers(labels, noise):
    targets = 1e6 + 3 * torch.randn(len(labels), 1)
    return targets + noise * torch.randn(targets.shape), targets


def _masks(labels, noise):
    targets = labels[:, None, None].repeat(1, 4, 4).to(torch.uint8)
    targets[:, 0] = IGNORE
    wrong = torch.rand(targets.shape) < noise
    return torch.where(wrong, torch.randint_like(targets, 5), targets), targets


def _fields(labels, noise):
    targets = 1 + torch.rand(len(labels), 4, 4)
    predictions = targets * (1 + noise * torch.rand(targets.shape))
    targets[:, 0] = torch.nan
    return predictions, targets


def _boxes(labels, noise):
    predictions, targets = [], []
    for number, label in enumerate(labels):
        boxes = torch.tensor([[0.1, 0.1, 0.5, 0.5], [0.5, 0.4, 0.9, 0.8]])
        names, size = label.repeat(2), torch.tensor([20, 40])
        moved = boxes + noise * 0.1 * torch.rand(boxes.shape)
        predictions.append({"boxes": moved, "labels": names, "scores": torch.rand(2)})
        crowd = torch.zeros(2, dtype=torch.bool)
        about = {"crowd": crowd, "size": size, "image": torch.tensor(number)}
        targets.append({"boxes": boxes, "labels": names, **about})
    return predictions, targets


ANSWERS = {
    LABELS.name: _labels, FLAGS.name: _flags, NUMBERS.name: _numbers, MASKS.name: _masks, FIELDS.name: _fields,
    BOXES.name: _boxes,
}  # fmt: skip
