"""Standings as tables: for a terminal, in Markdown, as CSV, and as rows of a page."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from vimlight.comparison.standings import Standings, half_width
from vimlight.errors import printable
from vimlight.files.text import markdown_text
from vimlight.report.tables import MISSING, Statistic, count_text, markdown_table, multiple_text

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["LEGEND", "Cell", "csv_text", "header", "markdown", "marked", "rich_table", "rich_tables", "rows"]

LEGEND = (
    "Mean ± standard deviation over seeds; what more is better of stands as points of a hundred. Bold: the best of its "
    "column; ≈: no different from it within the 95 % interval of the paired differences. Difference: to the reference, "
    "seed by seed, with that interval; W/T/L: tasks won, tied and lost against it by the same interval."
)


class Cell(NamedTuple):
    """A text, and whether it is the best of its column."""

    text: str
    best: bool = False


def header(table: Standings) -> list[str]:
    """Returns the titles of the columns."""
    tasks = [f"{task}, {metric} {'↑' if mode == 'max' else '↓'}" for task, (metric, mode) in _metrics(table)]
    average = (["average"] if len(table.averaged) > 1 else []) + (["mean of groups"] if table.grouped else [])
    return ["method", *tasks, *average, f"difference to {table.reference}", "W/T/L", "rank", "trainable", "cost"]


def rows(table: Standings) -> list[list[Cell]]:
    """Returns the cells, row by row."""
    return [_row(table, method) for method in table.methods]


def _metrics(table: Standings) -> list[tuple[str, tuple[str, str]]]:
    return [(task, table.metrics[task]) for task in table.tasks]


def _row(table: Standings, method: str) -> list[Cell]:
    cells = [Cell(method)]
    for task, (_, mode) in _metrics(table):
        alike = " ≈" if table.as_good_as_best(method, task) else ""
        text = _value(table.cells.get((method, task)), mode)
        cells.append(Cell(text + alike, table.best(task) == method))
    if len(table.averaged) > 1:
        alike = " ≈" if table.average_as_good_as_best(method) else ""
        cells.append(Cell(_value(table.average(method), "max") + alike, table.best_average() == method))
    if table.grouped:
        cells.append(Cell(_value(table.average_of_groups(method), "max")))
    parameters, flops = table.costs[method]
    rank = table.ranks.get(method)
    ahead = [_difference(table, method), "/".join(map(str, table.wins_ties_losses(method)))]
    if method == table.reference:
        ahead = [MISSING, MISSING]
    cost = MISSING if math.isnan(flops) else multiple_text(flops)
    known = [*ahead, MISSING if rank is None else f"{rank:.1f}", count_text(round(parameters)), cost]
    return [*cells, *map(Cell, known)]


def _value(cell: Statistic | None, mode: str) -> str:
    if cell is None:
        return MISSING
    scale, digits = (100, 1) if mode == "max" else (1, 3)
    spread = "" if math.isnan(cell.std) else f" ± {scale * cell.std:.{digits}f}"
    return f"{scale * cell.mean:.{digits}f}{spread}"


def _difference(table: Standings, method: str) -> str:
    """Says by how much a method is better on average; where there is but a task of errors, on that one."""
    found, scale, digits = table.average_against_reference(method), 100, 1
    if not table.averaged and len(table.tasks) == 1:
        found, scale, digits = table.against_reference(method, table.tasks[0]), 1, 3
    if found is None:
        return MISSING
    width = half_width(found)
    interval = "" if math.isnan(width) else f" ± {scale * width:.{digits}f}"
    return f"{scale * found.mean:+.{digits}f}{interval}"


def markdown(tables: Iterable[Standings]) -> str:
    """Returns the tables in Markdown, each under its backbone and number of shots."""
    parts = [marked(f"{table.backbone}, {table.shots_text}", header(table), rows(table)) for table in tables]
    return "\n".join([*parts, LEGEND + "\n"])


def marked(title: str, columns: Sequence[str], body: Iterable[Sequence[Cell]]) -> str:
    """Returns a table in Markdown, what is best in bold.

    Args:
        title: The heading above it.
        columns: Titles of the columns.
        body: The cells, row by row.
    """
    return f"### {markdown_text(title)}\n\n{markdown_table(columns, body)}\n"


def csv_text(tables: Iterable[Standings]) -> str:
    """Returns one line for each backbone, number of shots, method and task, and one for each average."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ("mean", "std", "interval", "seeds", "difference", "difference_std", "difference_interval")
    writer.writerow(["backbone", "shots", "method", "task", "metric", *names])
    for table in tables:
        for method in table.methods:
            for task, (metric, _) in _metrics(table):
                figures = _figures(table.cells.get((method, task)), table.against_reference(method, task))
                writer.writerow([table.backbone, table.shots, method, task, metric, *figures])
            if (average := table.average(method)) is not None:
                figures = _figures(average, table.average_against_reference(method))
                writer.writerow([table.backbone, table.shots, method, "average", "", *figures])
            if (average := table.average_of_groups(method)) is not None:
                writer.writerow([table.backbone, table.shots, method, "mean of groups", "", *_figures(average, None)])
    return file.getvalue()


def _figures(cell: Statistic | None, ahead: Statistic | None) -> list[float | int | str]:
    found: list[float | int | str] = []
    for values, counted in ((cell, True), (ahead, False)):
        if values is None:
            found += [""] * (4 if counted else 3)
            continue
        found += [_finite(values.mean), _finite(values.std), _finite(half_width(values))]
        found += [len(values.seeds)] if counted else []
    return found


def _finite(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)


def rich_tables(tables: Sequence[Standings], width: int) -> list[Table]:
    """Returns the tables for a terminal; what is too wide for it, in two parts: tasks, and what sums them up.

    Args:
        tables: The standings.
        width: Of the terminal.
    """
    found = []
    for table in tables:
        columns, split = range(1, len(header(table))), 1 + len(table.tasks)
        parts = [list(columns)]
        if sum(max(len(row[n].text) for row in rows(table)) + 2 for n in (0, *columns)) > width and table.tasks:
            parts = [list(columns)[: split - 1], list(columns)[split - 1 :]]
        found += [_rich(table, part) for part in parts]
    return found


def _rich(table: Standings, numbers: Sequence[int]) -> Table:
    titles = [
        header(table)[number].replace(", ", "\n").replace("difference to ", "difference to\n")
        for number in (0, *numbers)
    ]
    body = [[row[number] for number in (0, *numbers)] for row in rows(table)]
    return rich_table(f"{table.backbone}, {table.shots_text}", titles, body)


def rich_table(title: str, columns: Sequence[str], body: Iterable[Sequence[Cell]]) -> Table:
    """Returns a table for a terminal, what is best in bold.

    Args:
        title: The heading above it.
        columns: Titles of the columns.
        body: The cells, row by row.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    drawn = Table(
        title=Text(printable(title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for number, name in enumerate(columns):
        drawn.add_column(Text(printable(name)), justify="right" if number else "left", no_wrap=True)
    for row in body:
        drawn.add_row(*(Text(printable(text), style="bold" if best else "") for text, best in row))
    return drawn
