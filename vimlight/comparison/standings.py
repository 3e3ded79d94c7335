"""Where methods stand: means with intervals, paired differences to a reference, wins and losses, average ranks."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from scipy.stats import rankdata, t

from vimlight.comparison.entries import Shots
from vimlight.report.tables import Statistic

__all__ = ["Record", "Standings", "differences", "half_width", "standings_of"]

Record = Mapping[str, Any]
"""One result, flat: backbone, task, method, shots, seed, metric, mode, value, and costs."""
CONFIDENCE = 0.95
_Values = dict[tuple[str, str], dict[int, float]]


def half_width(values: Statistic) -> float:
    """Returns half the width of Student's 95 % interval of a mean over seeds; NaN for a single seed."""
    count = len(values.seeds)
    if count < 2:
        return math.nan
    return float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * values.std / math.sqrt(count)


def differences(ours: Statistic, theirs: Statistic, mode: str = "max") -> Statistic | None:
    """Returns by how much the first is better, seed by seed; nothing without a seed in common.

    Args:
        ours: The one.
        theirs: The other.
        mode: Whether more is better (`"max"`) or less (`"min"`).
    """
    shared = sorted(ours.seeds.keys() & theirs.seeds.keys())
    sign = 1 if mode == "max" else -1
    return Statistic({seed: sign * (ours.seeds[seed] - theirs.seeds[seed]) for seed in shared}) if shared else None


def _differ(difference: Statistic | None) -> int:
    """Returns the sign of a difference whose interval leaves out 0, and 0 otherwise."""
    if difference is None or difference.mean == 0:
        return 0
    width = half_width(difference)
    return 0 if abs(difference.mean) <= width else int(math.copysign(1, difference.mean))


@dataclasses.dataclass(frozen=True)
class Standings:
    """The results of all methods on one backbone with one number of shots.

    Attributes:
        backbone: What the backbone is called.
        shots: Labelled images a class, or `"full"`.
        methods: The methods, in order.
        tasks: The tasks, in order.
        metrics: The metric of each task and whether more of it is better (`"max"`) or less (`"min"`).
        cells: The results by method and task.
        costs: Trainable parameters and FLOPs by the bare backbone's of each method, means over tasks; NaN for unknown.
        reference: The method that others are compared with.
        groups: The group of each task, empty for none.
    """

    backbone: str
    shots: Shots
    methods: Sequence[str]
    tasks: Sequence[str]
    metrics: Mapping[str, tuple[str, str]]
    cells: Mapping[tuple[str, str], Statistic]
    costs: Mapping[str, tuple[float, float]]
    reference: str
    groups: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def shots_text(self) -> str:
        """The number of shots in words."""
        return "all labels" if self.shots == "full" else f"{self.shots}-shot"

    @property
    def averaged(self) -> list[str]:
        """The tasks that averages are over: those where more is better, all in points of a hundred."""
        return [task for task in self.tasks if self.metrics[task][1] == "max"]

    def average(self, method: str) -> Statistic | None:
        """Returns the average over tasks for each seed; nothing for a method that lacks one, or for a single task."""
        found = [self.cells.get((method, task)) for task in self.averaged]
        if len(found) < 2 or None in found:
            return None
        return _mean_of([cell for cell in found if cell is not None])

    @property
    def grouped(self) -> list[list[str]]:
        """The tasks that averages are over, group by group; nothing if one has no group, or all have the same."""
        found: dict[str, list[str]] = {}
        for task in self.averaged:
            found.setdefault(self.groups.get(task, ""), []).append(task)
        return list(found.values()) if len(found) > 1 and "" not in found else []

    def average_of_groups(self, method: str) -> Statistic | None:
        """Returns the mean of the groups' means for each seed; nothing for a method that lacks a task."""
        cells = [[self.cells.get((method, task)) for task in tasks] for tasks in self.grouped]
        if not cells or any(None in group for group in cells):
            return None
        means = [_mean_of([cell for cell in group if cell is not None]) for group in cells]
        return None if None in means else _mean_of([mean for mean in means if mean is not None])

    def against_reference(self, method: str, task: str) -> Statistic | None:
        """Returns by how much a method is better than the reference on a task, seed by seed."""
        ours, theirs = self.cells.get((method, task)), self.cells.get((self.reference, task))
        return None if ours is None or theirs is None else differences(ours, theirs, self.metrics[task][1])

    def average_against_reference(self, method: str) -> Statistic | None:
        """Returns the same, averaged over tasks as `average`, or of the single task that there is."""
        found = [self.against_reference(method, task) for task in self.averaged]
        if not found or None in found:
            return None
        return _mean_of([cell for cell in found if cell is not None])

    def wins_ties_losses(self, method: str) -> tuple[int, int, int]:
        """Returns on how many tasks a method is better than the reference, no different within the interval, worse."""
        signs = [_differ(found) for task in self.tasks if (found := self.against_reference(method, task)) is not None]
        return signs.count(1), signs.count(0), signs.count(-1)

    @cached_property
    def ranks(self) -> dict[str, float]:
        """Ranks of the means, 1 for the best, averaged over tasks; of methods that have every task."""
        whole = [method for method in self.methods if all((method, task) in self.cells for task in self.tasks)]
        ranks = []
        for task in self.tasks if whole else ():
            sign = -1 if self.metrics[task][1] == "max" else 1
            ranks.append(rankdata([sign * self.cells[method, task].mean for method in whole]))
        return {method: statistics.fmean(row[n] for row in ranks) for n, method in enumerate(whole)}

    def best(self, task: str) -> str | None:
        """Returns the method with the best mean on a task."""
        means = {m: self.cells[m, task].mean for m in self.methods if (m, task) in self.cells}
        choose = max if self.metrics[task][1] == "max" else min
        return choose(means, key=means.__getitem__) if means else None

    def best_average(self) -> str | None:
        """Returns the method with the best average."""
        means = {method: found.mean for method in self.methods if (found := self.average(method)) is not None}
        return max(means, key=means.__getitem__) if means else None

    def as_good_as_best(self, method: str, task: str) -> bool:
        """Tells whether a method does not differ from the best on a task within the interval."""
        best = self.best(task)
        if best is None or best == method or (method, task) not in self.cells:
            return False
        return _differ(differences(self.cells[best, task], self.cells[method, task], self.metrics[task][1])) == 0

    def average_as_good_as_best(self, method: str) -> bool:
        """Tells the same of the average."""
        best = self.best_average()
        ours, theirs = self.average(method), None if best is None else self.average(best)
        if method == best or ours is None or theirs is None:
            return False
        return _differ(differences(theirs, ours)) == 0


def _mean_of(cells: Sequence[Statistic]) -> Statistic | None:
    shared = set.intersection(*(set(cell.seeds) for cell in cells))
    means = {seed: statistics.fmean(cell.seeds[seed] for cell in cells) for seed in sorted(shared)}
    return Statistic(means) if means else None


def standings_of(records: Iterable[Record], reference: str) -> list[Standings]:
    """Sorts records by backbone and shots; all names keep the order of their first appearance.

    Args:
        records: The records.
        reference: The method that others are compared with.
    """
    found: dict[tuple[str, Shots], list[Record]] = {}
    for record in records:
        found.setdefault((record["backbone"], record["shots"]), []).append(record)
    return [_standings(backbone, shots, part, reference) for (backbone, shots), part in found.items()]


def _standings(backbone: str, shots: Shots, records: Sequence[Record], reference: str) -> Standings:
    seeds: _Values = {}
    costs: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        seeds.setdefault((record["method"], record["task"]), {})[record["seed"]] = record["value"]
        flops = math.nan if record["flops"] is None else record["flops"]
        costs.setdefault(record["method"], []).append((record["parameters"], flops))
    if shots == "full":
        seeds = _without_repeated_fits(seeds)
    return Standings(
        backbone,
        shots,
        list(dict.fromkeys(record["method"] for record in records)),
        list(dict.fromkeys(record["task"] for record in records)),
        {record["task"]: (record["metric"], record["mode"]) for record in records},
        {key: Statistic(values) for key, values in seeds.items()},
        {name: (statistics.fmean(p for p, _ in of), statistics.fmean(f for _, f in of)) for name, of in costs.items()},
        reference,
        {record["task"]: record.get("group", "") for record in records},
    )


def _without_repeated_fits(seeds: _Values) -> _Values:
    """Keeps one seed of the tasks where all methods give all seeds the same: one fit each, which has no interval."""
    varied = {task for (_, task), values in seeds.items() if len(set(values.values())) > 1}
    return {
        (method, task): values if task in varied else dict([next(iter(values.items()))])
        for (method, task), values in seeds.items()
    }
