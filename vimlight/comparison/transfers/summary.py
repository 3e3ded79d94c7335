"""What holds for several data sets, seeds and accuracies together: means, costs, how often the promise is broken."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from vimlight.comparison.tables import Cell
from vimlight.comparison.transfers.study import SHOWN, TransferStudy
from vimlight.report.tables import MISSING
from vimlight.transmiter.judging.margins import Margin
from vimlight.transmiter.judging.methods import METHODS
from vimlight.transmiter.judging.methods.safe import PROMISED

__all__ = ["LEGEND", "Summary", "summaries"]

_LEVELS = (0.05, 0.01)
_SHORT = {"target": "t", "source": "s", "source_tuned": "s*", "target_tuned": "t*"}
LEGEND = (
    "Means over data sets and seeds. Encoders that run for an image: t target, s source, * fine-tuned; added: floating-"
    "point operations for an image beside them. Broken: in how many cases, a data set, a seed and a group of images "
    "each, a method is more than 0.5 points below the better of target zero-shot and source fine-tuned and an exact "
    "McNemar test says so at 5 % (at 1 %); worst: the largest distance below it, in points, whatever the test says."
)


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
    broken, surely = (sum(margin.broken(level) for margin in every) for level in _LEVELS)
    worst = min(margin.difference for margin in every)
    return [f"{broken} ({surely}) of {len(every)}", f"{100 * worst:+.1f}"]
