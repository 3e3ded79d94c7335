"""The table of an evaluation from caches: methods by accuracies, beside what each costs and promises."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vimlight.errors import printable
from vimlight.files.text import markdown_text
from vimlight.report.tables import MISSING, Statistic, markdown_table, print_whole, whole_width
from vimlight.transmiter.judging.evaluation import promise
from vimlight.transmiter.judging.methods.safe import PROMISED
from vimlight.transmiter.judging.protocols import PROTOCOLS
from vimlight.transmiter.judging.summary import AVERAGE, Record, Run, averages, records

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["EvaluationTable"]


@dataclass(frozen=True)
class EvaluationTable:
    """Methods in rows; accuracies, and what a method takes, in columns.

    Attributes:
        title: What is above it: protocol, classes, seeds.
        columns: Names of the accuracies.
        titles: The methods' titles by name, in the order of the rows.
        cells: Accuracies over seeds by method and column.
        notes: Further columns: their names with a text for each method.
        remarks: Lines below it, such as which methods were left out and why.
    """

    title: str
    columns: Sequence[str]
    titles: Mapping[str, str]
    cells: Mapping[tuple[str, str], Statistic]
    notes: Mapping[str, Mapping[str, str]]
    remarks: Sequence[str] = ()

    @classmethod
    def of(cls, runs: Sequence[Run], source_gmac: float | None = None) -> EvaluationTable:
        """Builds the table.

        Args:
            runs: Evaluations under one protocol.
            source_gmac: Billions of multiply-adds of the source's image encoder, if they are to be counted.
        """
        found = records(runs)
        shown = [record for record in [*found, *averages(found)] if "/" not in record.metric]
        several = len({record.dataset for record in shown}) > 1, len({record.shots for record in shown}) > 1
        cells: dict[tuple[str, str], dict[int, float]] = {}
        for record in shown:
            cells.setdefault((record.method, _column(record, *several)), {})[record.seed] = record.value
        return cls(
            _title(runs),
            list(dict.fromkeys(column for _, column in cells)),
            {name: result.title for run in runs for name, result in run.evaluation.results.items()},
            {key: Statistic(values) for key, values in cells.items()},
            _notes(runs, source_gmac),
            _remarks(runs),
        )

    def header(self) -> list[str]:
        """Returns the titles of all columns."""
        return ["method (accuracy, %)", *self.columns, *self.notes]

    def rows(self) -> list[list[str]]:
        """Returns the texts of all cells, row by row."""
        return [
            [
                title,
                *(_percent(self.cells.get((name, column))) for column in self.columns),
                *(texts.get(name, MISSING) for texts in self.notes.values()),
            ]
            for name, title in self.titles.items()
        ]

    def is_best(self, row: int, column: int) -> bool:
        """Tells whether a cell of `rows()` holds the best mean of its column.

        Args:
            row: Number of the row.
            column: Number of the column; the methods' titles are column 0.
        """
        if not 0 < column <= len(self.columns):
            return False
        key = self.columns[column - 1]
        means = {name: self.cells[name, key].mean for name in self.titles if (name, key) in self.cells}
        return means.get(list(self.titles)[row]) == max(means.values())

    def markdown(self) -> str:
        """Returns the table in Markdown with its title and remarks, the best of each column in bold."""
        cells = [
            [(text, self.is_best(row, number)) for number, text in enumerate(texts)]
            for row, texts in enumerate(self.rows())
        ]
        remarks = "\n".join(f"- {markdown_text(line)}" for line in self.remarks)
        return f"**{markdown_text(self.title)}**\n\n{markdown_table(self.header(), cells)}\n\n{remarks}\n"

    def print(self, console: Console | None = None) -> None:
        """Prints the table, in parts below each other where it is too wide, and the remarks.

        Args:
            console: Where to print; the terminal if left out.
        """
        from rich.console import Console
        from rich.text import Text

        console = console or Console()
        for place, numbers in enumerate(self._parts(console)):
            print_whole(self.rich("" if place else self.title, numbers), console)
        for remark in self.remarks:
            console.print(Text(printable(remark)), soft_wrap=not console.is_terminal)

    def _parts(self, console: Console) -> list[range]:
        """Returns the columns of each part: all of them, or accuracies and costs, each in as few as have room."""

        def fits(numbers: range) -> bool:
            return whole_width(self.rich("", numbers), console) <= console.width

        last, end = 1 + len(self.columns), len(self.header())
        if fits(range(1, end)):
            return [range(1, end)]
        parts = [range(1, 2)]
        for number in range(2, end):
            longer = range(parts[-1].start, number + 1)
            if number != last and fits(longer):
                parts[-1] = longer
            else:
                parts.append(range(number, number + 1))
        return parts

    def rich(self, title: str, numbers: Sequence[int]) -> Table:
        """Returns some columns as a table for a terminal.

        Args:
            title: Title above it.
            numbers: Which columns of `rows()` stand beside the methods' titles.
        """
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(
            title=Text(printable(title)) if title else None, title_justify="left", title_style="bold",
            box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0),
        )  # fmt: skip
        for number in (0, *numbers):
            column = Text(printable(self.header()[number]))
            table.add_column(column, justify="right" if number else "left", no_wrap=True)
        for row, texts in enumerate(self.rows()):
            styles = {number: "bold" if self.is_best(row, number) else "" for number in (0, *numbers)}
            table.add_row(*(Text(printable(texts[number]), style=style) for number, style in styles.items()))
        return table


def _column(record: Record, datasets: bool, shots: bool) -> str:
    """Names a column by what differs between columns."""
    return " ".join([record.dataset] * datasets + [f"{record.shots}-shot"] * shots + [record.metric])


def _title(runs: Sequence[Run]) -> str:
    protocol = runs[0].evaluation.protocol
    seeds = sorted({run.seed for run in runs})
    spread = f"; mean ± standard deviation over {len(seeds)} seeds" if len(seeds) > 1 else ""
    return f"{protocol}: {PROTOCOLS[protocol].text}{spread}"


def _notes(runs: Sequence[Run], source_gmac: float | None) -> dict[str, dict[str, str]]:
    results = [(name, result) for run in runs for name, result in run.evaluation.results.items()]
    seconds: dict[str, list[float]] = {}
    for name, result in results:
        seconds.setdefault(name, []).append(result.seconds_per_image)
    kept = promise(run.evaluation for run in runs)
    return {
        "encoders": {name: _encoders(result.encoders) for name, result in results},
        "added MFLOP": {name: _mflop(result.added_flops, result.encoders, source_gmac) for name, result in results},
        "µs/image": {name: f"{1e6 * statistics.median(values):.1f}" for name, values in seconds.items()},
        "labels": {name: "yes" if result.labels else "no" for name, result in results},
        "promise": {
            name: f"{sum(p.kept for p in found.values())}/{sum(p.cases for p in found.values())}"
            for name, found in kept.items()
            if name not in PROMISED
        },
    }


def _encoders(roles: Sequence[str]) -> str:
    short = {"target": "t", "source": "s", "source_tuned": "s*", "target_tuned": "t*"}
    return " + ".join(short[role] for role in roles)


def _mflop(flops: float, encoders: Sequence[str], source_gmac: float | None) -> str:
    extra = sum(role in ("source", "source_tuned") for role in encoders)
    if source_gmac is not None:
        return f"{flops / 1e6 + extra * source_gmac * 2e3:.3f}"
    return f"{flops / 1e6:.3f}" + (f" + {extra} source" if extra else "")


def _remarks(runs: Sequence[Run]) -> list[str]:
    remarks = [
        "encoders that run for an image: t target, s source, * fine-tuned; added MFLOP: millions of operations, two "
        "for a multiply-add, beside the target's encoder",
    ]
    if any(set(PROMISED) <= set(run.evaluation.results) for run in runs):
        remarks.append("promise: how often not below the better of target zero-shot and source fine-tuned, all columns")
    if any(record.dataset == AVERAGE and record.metric == "harmonic" for record in averages(records(runs))):
        remarks.append("average harmonic is the mean of harmonic means; that of the averages stands beside it")
    reasons = {name: reason for run in runs for name, reason in run.evaluation.left_out.items()}
    return [*remarks, *(f"left out: {name}: {reason}" for name, reason in reasons.items())]


def _percent(cell: Statistic | None) -> str:
    if cell is None:
        return MISSING
    return f"{100 * cell.mean:.1f}" + ("" if math.isnan(cell.std) else f" ± {100 * cell.std:.1f}")
