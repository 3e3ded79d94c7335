"""What of a run's results goes to its dashboards, under which keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from vimlight.report.class_scores import ClassScore, class_scores
from vimlight.report.curve_plots import precision_recall_curves, reliability_diagram
from vimlight.report.dashboards import Dashboards, Table
from vimlight.report.plots import confusion_matrix, gate_heatmap, png
from vimlight.tasks import Task
from vimlight.training.downstream import DownstreamModule

__all__ = ["show_gathered", "show_zoo"]

# More curves than these are a tangle.
_CURVES = 16

Values = npt.NDArray[np.float64]


def show_gathered(boards: Dashboards, step: int, task: Task, split: str, gathered: Mapping[str, Values]) -> None:
    """Shows what was gathered over all images of a split, as far as there were any.

    Args:
        boards: The dashboards.
        step: The trainer's step.
        task: The task.
        split: `"val"` or `"test"`.
        gathered: Values of the task's `confusion`, `reliability` and `precision_recall`, by these names.
    """
    matrix, bins, curves = (gathered.get(name) for name in ("confusion", "reliability", "precision_recall"))
    if matrix is not None and matrix.sum():
        _show_confusion(boards, step, task, split, matrix)
    if bins is not None and bins.sum():
        rows = [[int(images), confidence, accuracy] for images, confidence, accuracy in bins.tolist()]
        table = Table(["images", "confidence", "accuracy"], rows, "reliability")
        figure = reliability_diagram([(row[0], row[1], row[2]) for row in rows], f"Reliability, {split}")
        boards.figure(f"{split}/reliability", png(figure), step, table)
    if curves is not None and not np.isnan(curves[..., 0]).all():
        _show_curves(boards, step, task, split, curves)


def show_zoo(boards: Dashboards, step: int, model: DownstreamModule) -> None:
    """Shows the gates of a model, and what each module and the whole zoo is worth.

    Args:
        boards: The dashboards.
        step: The trainer's step.
        model: The model.
    """
    if model.gates.numel():
        gates, places, names = model.gates.cpu(), model.aggregator.places, model.aggregator.names
        rows = [[place, *row] for place, row in zip(places, gates.tolist(), strict=True)]
        boards.figure("gates", png(gate_heatmap(gates, places, names)), step, Table(["place", *names], rows))
    if model.ranking is not None:
        boards.table("ranking", Table(model.ranking.columns(), model.ranking.rows()), step)
        if model.ranking.aggregated is not None:
            boards.text("zoo.txt", model.ranking.worth(model.gates), step)


def _show_confusion(boards: Dashboards, step: int, task: Task, split: str, matrix: Values) -> None:
    names, table = task.class_names, None
    if matrix.ndim == 2:
        rows: list[list[Any]] = [[name, *row] for name, row in zip(names, matrix.tolist(), strict=True)]
        table = Table(["true", *names], rows, "confusion")
    figure = confusion_matrix(matrix, names, f"Confusion, {split}")
    boards.figure(f"{split}/confusion", png(figure), step, table)
    boards.table(f"{split}/classes", Table(ClassScore._fields, class_scores(matrix, names)), step)


def _show_curves(boards: Dashboards, step: int, task: Task, split: str, curves: Values) -> None:
    found = {
        name: [(recall, precision) for recall, precision in curve.tolist() if not math.isnan(precision)]
        for name, curve in zip(task.class_names, curves, strict=True)
        if not np.isnan(curve[:, 0]).any()
    }
    shown = dict(sorted(found.items(), key=lambda item: _area(item[1]))[:_CURVES])
    which = "" if len(shown) == len(found) else f", the {len(shown)} of {len(found)} classes with the least"
    figure = precision_recall_curves(shown, f"Precision over recall, {split}{which}")
    rows = [[name, recall, precision] for name, points in shown.items() for recall, precision in points]
    table = Table(["class", "recall", "precision"], rows, "precision_recall")
    boards.figure(f"{split}/precision_recall", png(figure), step, table)


def _area(points: list[tuple[float, float]]) -> float:
    """Returns the area below a curve whose recall falls, as average precision sums it."""
    return sum((first[0] - second[0]) * first[1] for first, second in pairwise(points))
