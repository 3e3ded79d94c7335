"""The promise, with its noise: how often a method is below the better of target zero-shot and fine-tuned source.

A group of images breaks it where the method's accuracy is more than half a point below that of the better of the two,
and an exact McNemar test of the two on these images says so at the level.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from scipy.stats import binomtest
from torch import Tensor

from vimlight.comparison.tables import Cell
from vimlight.comparison.transfers.study import SHOWN, TransferStudy
from vimlight.report.tables import MISSING
from vimlight.transmiter.judging.evaluation import Evaluation, Result
from vimlight.transmiter.judging.methods import METHODS
from vimlight.transmiter.judging.methods.safe import PROMISED

__all__ = ["LEGEND", "Margin", "Summary", "margins", "mcnemar", "summaries"]

_SLACK = 0.005
_LEVELS = (0.05, 0.01)
_SHORT = {"target": "t", "source": "s", "source_tuned": "s*", "target_tuned": "t*"}
LEGEND = (
    "Means over data sets and seeds. Encoders that run for an image: t target, s source, * fine-tuned; added: floating-"
    "point operations for an image beside them. Broken: in how many cases, a data set, a seed and a group of images "
    "each, a method is more than 0.5 points below the better of target zero-shot and source fine-tuned and an exact "
    "McNemar test says so at 5 % (at 1 %); worst: the largest distance below it, in points, whatever the test says."
)


@dataclasses.dataclass(frozen=True)
class Margin:
    """How far a method is from the better of the two models.

    Attributes:
        difference: Its accuracy less the better one's.
        p: Probability of a difference as large between equals; exact.
    """

    difference: float
    p: float


def mcnemar(first: Tensor, second: Tensor) -> float:
    """Returns the two-sided p-value of the exact McNemar test: of images that one alone has right, half are each one's.

    Args:
        first: `(n,)` bool, whether the one is right.
        second: The same of the other.
    """
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def margins(evaluation: Evaluation) -> dict[str, dict[str, Margin]]:
    """Returns the margins of each method on each group of images.

    Args:
        evaluation: Results, those of both models of the promise among them. Images that are all told from all classes
            are one group, `"all"`.
    """
    right = {name: _right(evaluation, result) for name, result in evaluation.results.items()}
    found: dict[str, dict[str, Margin]] = {name: {} for name in right}
    for group in right[PROMISED[0]]:
        better = max((right[model][group] for model in PROMISED), key=lambda answers: float(answers.double().mean()))
        for name, answers in right.items():
            difference = float(answers[group].double().mean() - better.double().mean())
            found[name][group] = Margin(difference, mcnemar(answers[group], better))
    return found


def _right(evaluation: Evaluation, result: Result) -> dict[str, Tensor]:
    found = {group: said == evaluation.labels[group] for group, said in result.predictions.items()}
    together = len({group.columns for group in evaluation.groups}) == 1
    return {"all": torch.cat(list(found.values()))} if together else found


@dataclasses.dataclass(frozen=True)
class Summary:
    """What holds for several data sets, seeds and accuracies together, as a table.

    Attributes:
        title: Its title.
        header: Titles of the columns.
        rows: The cells, row by row.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def summaries(study: TransferStudy) -> list[Summary]:
    """Returns a table for each direction, and before these one of all together where there are several.

    Args:
        study: The study; results that there are not yet are left out.
    """
    by_direction: dict[str, list[Mapping[str, Any]]] = {}
    for group, result in study.found():
        by_direction.setdefault(group.direction, []).append(result["methods"])
    parts = {"all directions": [one for part in by_direction.values() for one in part]} if len(by_direction) > 1 else {}
    return [_summary(study, title, part) for title, part in {**parts, **by_direction}.items()]


def _summary(study: TransferStudy, title: str, results: Sequence[Mapping[str, Any]]) -> Summary:
    cells = {}
    for name in study.plan.methods:
        found = [result[name] for result in results if name in result]
        if found:
            cells[name] = found
    means = {
        name: [100 * statistics.fmean(one["accuracies"][key] for one in found) for key in SHOWN]
        for name, found in cells.items()
    }
    best = [max(column) for column in zip(*means.values(), strict=True)]
    ordered = sorted(cells, key=lambda name: (METHODS[name].place, name))
    rows = [
        [
            Cell(METHODS[name].title),
            *(Cell(f"{mean:.1f}", mean == top) for mean, top in zip(means[name], best, strict=True)),
            *map(Cell, _costs(cells[name])),
            *map(Cell, [MISSING, MISSING] if name in PROMISED else _kept(cells[name])),
        ]
        for name in ordered
    ]
    header = ["method", *SHOWN, "encoders", "added MFLOP", "broken", "worst"]
    return Summary(f"{title}, {study.plan.shots}-shot: means, %", header, rows)


def _costs(found: Sequence[Mapping[str, Any]]) -> list[str]:
    encoders = " + ".join(_SHORT[role] for role in found[0]["encoders"])
    return [encoders, f"{statistics.fmean(one['added_flops'] for one in found) / 1e6:.3f}"]


def _kept(found: Sequence[Mapping[str, Any]]) -> list[str]:
    every = [Margin(**margin) for one in found for margin in one["margins"].values()]
    below = [margin for margin in every if margin.difference < -_SLACK]
    broken, surely = (sum(margin.p < level for margin in below) for level in _LEVELS)
    worst = min(margin.difference for margin in every)
    return [f"{broken} ({surely}) of {len(every)}", f"{100 * worst:+.1f}"]
