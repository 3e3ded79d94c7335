"""`python -m benchmarks.real.bars DIR`: what the zoo is worth in the suite's results, beside what was asked of it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from vimlight.comparison.standings import Standings, half_width, standings_of
from vimlight.report.files import read_results
from vimlight.report.tables import MISSING, Statistic, print_whole

__all__ = ["BARS", "Bar", "main", "measured"]


class Bar(NamedTuple):
    """A difference between two rows, in points, averaged over tasks.

    Attributes:
        ours: The row that is to be ahead.
        theirs: The other.
        shots: Labelled images a class, or `"full"`.
        asked: By how much.
    """

    ours: str
    theirs: str
    shots: int | str
    asked: float


# The zoo's two rows: gates that are learnt, and one of a few choices.
ZOO = ("ens_moe", "select")
AHEAD_OF = (
    ("best_single", -0.3), ("uniform", 0.3), ("k_streams", 0.0), ("random", 2.0), ("shuffled", 2.0),
)  # fmt: skip
BARS = [
    *(Bar(ours, "none", shots, asked) for ours in (*ZOO, "hindsight") for shots, asked in ((5, 3.0), (20, 2.0))),
    *(Bar(ours, theirs, shots, asked) for ours in ZOO for theirs, asked in AHEAD_OF for shots in (5, 20)),
    Bar("select_and_fresh", "module_alone", 20, 1.0),
]


def measured(table: Standings, bar: Bar) -> tuple[Statistic | None, tuple[str, float] | None]:
    """Returns a bar's difference in points by seed, averaged over tasks, and the task that is worst, with its mean.

    Args:
        table: The standings with the bar's number of shots.
        bar: The bar.
    """
    table = dataclasses.replace(table, reference=bar.theirs)
    mean = table.average_against_reference(bar.ours)
    if mean is None:
        return None, None
    found = {task: table.against_reference(bar.ours, task) for task in table.averaged}
    by_task = {task: 100 * difference.mean for task, difference in found.items() if difference is not None}
    worst = min(by_task, key=by_task.__getitem__)
    return Statistic({seed: 100 * value for seed, value in mean.seeds.items()}), (worst, by_task[worst])


def _table(name: str, tables: Sequence[Standings]) -> Table:
    drawn = Table(title=name, title_justify="left", title_style="bold")
    for column in ("row", "less", "shots", "asked", "measured, with 95 %", "", "worst task"):
        drawn.add_column(column)
    for bar in BARS:
        found = next((measured(table, bar) for table in tables if table.shots == bar.shots), (None, None))
        asked = "at least " + f"{bar.asked:+.1f}"
        if found[0] is None or found[1] is None:
            drawn.add_row(bar.ours, bar.theirs, str(bar.shots), asked, MISSING, "", "")
            continue
        shown = f"{found[0].mean:+.2f} ± {half_width(found[0]):.2f}"
        verdict = "met" if found[0].mean >= bar.asked else "missed"
        drawn.add_row(
            bar.ours, bar.theirs, str(bar.shots), asked, shown, verdict, f"{found[1][0]} {found[1][1]:+.1f}"
        )
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints a table for each backbone.

    Args:
        arguments: The command line; the process's own if left out.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.bars", description=__doc__)
    parser.add_argument("folder", type=Path, help="where `vimlight compare benchmarks/real/suite.yaml` put its results")
    folder = parser.parse_args(arguments).folder
    tables = standings_of(read_results((folder / "results.json").read_bytes(), "results.json")["records"], "none")
    console = Console()
    for backbone in dict.fromkeys(table.backbone for table in tables):
        print_whole(_table(backbone, [table for table in tables if table.backbone == backbone]), console)


if __name__ == "__main__":
    main()
