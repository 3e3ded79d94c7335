"""Tables of results: methods by tasks and shots, mean and spread over seeds, beside what each method costs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.errors import DataError, unknown_name
from vimlight.report.files import write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = [
    "Column", "MethodFacts", "ResultsTable", "Statistic", "count_text", "multiple_text", "print_whole", "summarise",
    "whole_width",
]  # fmt: skip

MISSING = "—"
AVERAGE = "average"
_FIELDS = ("method", "task", "shots", "seed", "metric", "value")


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One method on one task: a value for each seed.

    Attributes:
        seeds: The values by seed.
    """

    seeds: Mapping[int, float]

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return statistics.fmean(self.seeds.values())

    @property
    def std(self) -> float:
        """The sample standard deviation over the seeds (n - 1 below the fraction), NaN for a single seed."""
        return statistics.stdev(self.seeds.values()) if len(self.seeds) > 1 else math.nan


@dataclasses.dataclass(frozen=True)
class MethodFacts:
    """What a method costs.

    Attributes:
        parameters: How many numbers it learns on the downstream task, its head included.
        cost: FLOPs an image, as a multiple of the bare backbone's.
    """

    parameters: int | None = None
    cost: float | None = None


@dataclasses.dataclass(frozen=True)
class Column:
    """One task at one number of shots.

    Attributes:
        task: The task, or `AVERAGE`.
        shots: Labelled images a class, none for all of them.
    """

    task: str
    shots: int | None = None

    @property
    def shots_text(self) -> str:
        """The number of shots in words."""
        return "all labels" if self.shots is None else f"{self.shots}-shot"

    def __str__(self) -> str:
        return self.task if self.shots is None else f"{self.task} {self.shots_text}"


@dataclasses.dataclass(frozen=True)
class ResultsTable:
    """Results of several methods on several tasks.

    Attributes:
        metric: Name of the metric.
        methods: The methods, in the order of the rows.
        columns: The tasks and shots, in the order of the columns; averages over tasks come last.
        cells: The results that there are.
        facts: What each method costs, where known.
        percent: Whether values are shares, shown as percentages.
        mode: Whether more of the metric is better (`"max"`) or less (`"min"`); the best mean of a column is set bold.
        signed: Whether values are differences, shown with their sign.
    """

    metric: str
    methods: Sequence[str]
    columns: Sequence[Column]
    cells: Mapping[tuple[str, Column], Statistic]
    facts: Mapping[str, MethodFacts] = dataclasses.field(default_factory=dict)
    percent: bool = True
    mode: str = "max"
    signed: bool = False

    def header(self) -> list[str]:
        """Returns the titles of all columns; those of costs only where any are known."""
        unit = ", %" if self.percent else ""
        costs = ("trainable", "cost") if self.facts else ()
        return [f"method ({self.metric}{unit})", *map(str, self.columns), *costs]

    def rows(self) -> list[list[str]]:
        """Returns the texts of all cells, row by row."""
        return [
            [
                method,
                *(self._text(self.cells.get((method, column))) for column in self.columns),
                *(self._costs(method) if self.facts else ()),
            ]
            for method in self.methods
        ]

    def best(self, column: Column) -> str | None:
        """Returns the method with the best mean in a column, none where it is empty or holds differences.

        Args:
            column: The column.
        """
        means = {method: self.cells[method, column].mean for method in self.methods if (method, column) in self.cells}
        choose = max if self.mode == "max" else min
        return choose(means, key=means.__getitem__) if means and not self.signed else None

    def is_best(self, row: int, column: int) -> bool:
        """Tells whether a cell of `rows()` holds the best mean of its column.

        Args:
            row: Number of the row.
            column: Number of the column; the methods' names are column 0.
        """
        return 0 < column <= len(self.columns) and self.best(self.columns[column - 1]) == self.methods[row]

    def panels(self) -> dict[str, list[tuple[float, float] | None]]:
        """Returns mean and spread of each method by column, as `plots.bars_with_spread` takes them."""
        scale = 100 if self.percent else 1
        found = {column: [self.cells.get((method, column)) for method in self.methods] for column in self.columns}
        return {
            str(column): [None if cell is None else (scale * cell.mean, scale * cell.std) for cell in cells]
            for column, cells in found.items()
        }

    def print(self, title: str = "", console: Console | None = None) -> None:
        """Prints the table; where it is too wide, in parts: one for each number of shots, and one for the costs.

        Args:
            title: Title above it.
            console: Where to print; the terminal if left out.
        """
        from rich.console import Console

        console = console or Console()
        results, everything = len(self.columns), range(1, len(self.header()))
        parts = [(title, list(everything))]
        if whole_width(self.rich(title, everything), console) > console.width:
            by_shots: dict[str, list[int]] = {}
            for number, column in enumerate(self.columns, start=1):
                by_shots.setdefault(column.shots_text, []).append(number)
            by_shots.update({"costs": list(everything)[results:]} if self.facts else {})
            parts = [(f"{title}: {part}" if title else part, numbers) for part, numbers in by_shots.items()]
        for name, numbers in parts:
            print_whole(self.rich(name, numbers), console)

    def rich(self, title: str, numbers: Iterable[int]) -> Table:
        """Returns some columns as a table for a terminal; `print` shows all of them.

        Args:
            title: Title above it.
            numbers: Which columns of `rows()` stand beside the methods' names.
        """
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title=title or None, title_justify="left", title_style="bold",
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        header, numbers = self.header(), [0, *numbers]
        for number in numbers:
            # The shots go below the task.
            column = self.columns[number - 1] if 0 < number <= len(self.columns) else None
            name = f"{column.task}\n{column.shots_text}" if column else header[number]
            table.add_column(escape(name), justify="right" if number else "left", no_wrap=True)
        for row, texts in enumerate(self.rows()):
            table.add_row(
                *(f"[bold]{escape(texts[n])}[/]" if self.is_best(row, n) else escape(texts[n]) for n in numbers)
            )
        return table

    def markdown(self) -> str:
        """Returns the table in Markdown, the best of each column in bold."""
        marked = [
            [f"**{text}**" if self.is_best(row, number) else text for number, text in enumerate(texts)]
            for row, texts in enumerate(self.rows())
        ]
        rule = ["---", *["---:"] * (len(self.header()) - 1)]
        lines = [[text.replace("|", "\\|") for text in line] for line in (self.header(), rule, *marked)]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Returns everything as plain values: each method's facts and each result with mean, spread and seeds."""
        results = [
            {
                "method": method,
                **dataclasses.asdict(column),
                "mean": cell.mean,
                "std": None if math.isnan(cell.std) else cell.std,
                "seeds": {str(seed): value for seed, value in sorted(cell.seeds.items())},
            }
            for method in self.methods
            for column in self.columns
            if (cell := self.cells.get((method, column))) is not None
        ]
        methods = [{"method": method, **dataclasses.asdict(self._facts(method))} for method in self.methods]
        return {"metric": self.metric, "mode": self.mode, "methods": methods, "results": results}

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Writes `as_dict` as JSON, whole or not at all.

        Args:
            path: Where to write, such as `results.json`.
            overwrite: Whether an existing file is replaced.

        Raises:
            ConfigError: If the file exists and `overwrite` is false.
        """
        text = json.dumps(self.as_dict(), indent=1, ensure_ascii=False, allow_nan=False)
        return write_whole(path, text + "\n", overwrite=overwrite)

    def averages(self) -> ResultsTable:
        """Returns the averages over the tasks alone."""
        return dataclasses.replace(self, columns=[column for column in self.columns if column.task == AVERAGE])

    def against(self, method: str) -> ResultsTable:
        """Returns how far a method is ahead of each other one, seed by seed: what seeds have in common cancels out.

        Args:
            method: The method.

        Raises:
            UnknownNameError: If it is not in the table.
        """
        if method not in self.methods:
            raise unknown_name("method", method, self.methods)
        others = [other for other in self.methods if other != method]
        cells = {}
        for other, column in itertools.product(others, self.columns):
            ours, theirs = self.cells.get((method, column)), self.cells.get((other, column))
            if ours is not None and theirs is not None and ours.seeds.keys() & theirs.seeds.keys():
                shared = sorted(ours.seeds.keys() & theirs.seeds.keys())
                cells[other, column] = Statistic({seed: ours.seeds[seed] - theirs.seeds[seed] for seed in shared})
        return dataclasses.replace(self, methods=others, cells=cells, facts={}, signed=True)

    def _costs(self, method: str) -> tuple[str, str]:
        facts = self._facts(method)
        return count_text(facts.parameters), multiple_text(facts.cost)

    def _facts(self, method: str) -> MethodFacts:
        return self.facts.get(method, MethodFacts())

    def _text(self, cell: Statistic | None) -> str:
        if cell is None:
            return MISSING
        scale, digits = (100, 1) if self.percent else (1, 3)
        spread = "" if math.isnan(cell.std) else f" ± {scale * cell.std:.{digits}f}"
        return f"{scale * cell.mean:{'+' if self.signed else ''}.{digits}f}{spread}"


def print_whole(table: Table, console: Console | None = None) -> None:
    """Prints a table with nothing cut off, however narrow the terminal is.

    Args:
        table: The table.
        console: Where to print; the terminal if left out.
    """
    from rich.console import Console

    console = console or Console()
    table.width = whole_width(table, console)
    console.print(table, crop=False, soft_wrap=True)


def whole_width(table: Table, console: Console) -> int:
    """Returns how many columns of a terminal a table takes where nothing is cut off."""
    return console.measure(table, options=console.options.update(max_width=10_000)).maximum


def summarise(
    records: Iterable[Mapping[str, Any]],
    facts: Mapping[str, MethodFacts] | None = None,
    *,
    metric: str = "accuracy",
    average: bool = True,
    percent: bool = True,
    mode: str = "max",
) -> ResultsTable:
    """Builds a table from flat records; methods, tasks and shots keep the order of their first appearance.

    Args:
        records: Mappings with `method`, `task`, `shots`, `seed`, `metric` and `value`.
        facts: What each method costs.
        metric: Which metric the table shows.
        average: Whether averages over the tasks are added for each number of shots: first over the tasks for each seed,
            then over the seeds; only for methods that have every task, and if there is more than one task.
        percent: Whether values are shares, shown as percentages.
        mode: `"max"` if more is better, `"min"` if less is.

    Returns:
        The table.

    Raises:
        DataError: If a record lacks a field, is no finite number, or appears twice.
        UnknownNameError: If no record has the metric.
    """
    checked = [_checked(record) for record in records]
    if checked and metric not in {record["metric"] for record in checked}:
        raise unknown_name("metric", metric, {record["metric"] for record in checked})
    values: dict[tuple[str, Column], dict[int, float]] = {}
    for record in checked:
        if record["metric"] != metric:
            continue
        seeds = values.setdefault((record["method"], Column(record["task"], record["shots"])), {})
        if record["seed"] in seeds:
            raise DataError(f"two results for {_where(record)}")
        seeds[record["seed"]] = float(record["value"])
    methods = list(dict.fromkeys(method for method, _ in values))
    columns = list(dict.fromkeys(column for _, column in values))
    cells = {key: Statistic(seeds) for key, seeds in values.items()}
    if average:
        averages = _averages(cells, methods, columns)
        cells.update(averages)
        columns += dict.fromkeys(column for _, column in averages)
    return ResultsTable(metric, methods, columns, cells, dict(facts or {}), percent, mode)


def _averages(
    cells: Mapping[tuple[str, Column], Statistic], methods: Sequence[str], columns: Sequence[Column]
) -> dict[tuple[str, Column], Statistic]:
    averages = {}
    for shots in dict.fromkeys(column.shots for column in columns):
        tasks = [column for column in columns if column.shots == shots]
        for method in methods:
            results = [cells[method, column] for column in tasks if (method, column) in cells]
            seeds = set.intersection(*(set(result.seeds) for result in results)) if results else set()
            if len(tasks) > 1 and len(results) == len(tasks) and seeds:
                means = {seed: statistics.fmean(result.seeds[seed] for result in results) for seed in sorted(seeds)}
                averages[method, Column(AVERAGE, shots)] = Statistic(means)
    return averages


def _checked(record: Mapping[str, Any]) -> Mapping[str, Any]:
    missing = [field for field in _FIELDS if field not in record]
    if missing:
        raise DataError(f"the record {dict(record)} lacks {missing[0]!r}; it needs {', '.join(_FIELDS)}")
    if not math.isfinite(record["value"]):
        raise DataError(f"the result of {_where(record)} is {record['value']}, not a finite number")
    return record


def _where(record: Mapping[str, Any]) -> str:
    return f"{record['method']!r} on {Column(record['task'], record['shots'])}, seed {record['seed']}"


def count_text(number: int | None) -> str:
    """Returns a number of parameters in a few characters."""
    if number is None:
        return MISSING
    if number < 10_000:
        return f"{number:,}"
    return f"{number / 1e3:.1f} k" if number < 1e6 else f"{number / 1e6:.1f} M"


def multiple_text(cost: float | None) -> str:
    """Returns a cost by the bare backbone's in a few characters."""
    return MISSING if cost is None else f"{cost:.2f} x"
