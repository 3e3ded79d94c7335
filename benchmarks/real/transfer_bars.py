"""`python -m benchmarks.real.transfer_bars DIR`: what was asked of methods of transfer, beside what they reach."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from vimlight.comparison.standings import half_width
from vimlight.report.tables import Statistic, print_whole
from vimlight.transmiter.judging.margins import Margin
from vimlight.transmiter.judging.methods.safe import PROMISED

__all__ = ["BARS", "Bar", "Case", "cases_in", "difference", "main", "promise"]


class Case(NamedTuple):
    """One data set, one seed, one direction.

    Attributes:
        about: Data set and direction, which seeds share.
        seed: The seed.
        methods: What each method reached.
    """

    about: str
    seed: str
    methods: Mapping[str, Any]


class Bar(NamedTuple):
    """A difference between two rows, in points, averaged over data sets and directions.

    Attributes:
        ours: The row that is to be ahead.
        theirs: The other, or the better of several by its mean.
        accuracy: Which accuracy.
        asked: By how much.
    """

    ours: str
    theirs: Sequence[str]
    accuracy: str
    asked: float


# Rows that a target gets from a source's tuning; of one encoder, those that no label of the target went into.
_ONE = ("gap_ridge", "gap_ridge_features", "ridge", "transmiter_published", "transmiter")
_MOVED = (*_ONE, "eft", "logit_ensemble", "tip_adapter", "transmiter_plus", "gap_ridge_plus")
BARS = [
    Bar("safe", _MOVED, "harmonic", 0.5),
    Bar("safe", PROMISED, "novel", 0.0),
    *(
        bar
        for ours in ("gap_ridge_features", "gap_ridge_plus")
        for bar in (Bar(ours, ["eft"], "harmonic", 1.5), Bar(ours, _ONE, "harmonic", -0.3))
    ),
    Bar("transmiter", ["eft"], "harmonic", 1.5),
    *(
        Bar(ours, [theirs], "harmonic", asked)
        for ours in ("transmiter_plus", "gap_ridge_plus")
        for theirs, asked in (("transmiter", 0.5), ("target_tuned", 1.0))
    ),
]


def cases_in(folder: Path) -> list[Case]:
    """Returns what `vimlight compare` left of a plan of transfers.

    Args:
        folder: Its output folder.
    """
    found = [json.loads(path.read_text()) for path in sorted((folder / "results").glob("*.json"))]
    cases = []
    for one in (each for each in found if "transfer" in each):
        dataset, seed, direction = one["transfer"].split(", ", 2)
        cases.append(Case(f"{dataset}, {direction}", seed.removeprefix("seed "), one["methods"]))
    return cases


def difference(cases: Sequence[Case], ours: str, theirs: str, accuracy: str) -> tuple[Statistic, tuple[str, float]]:
    """Returns a difference in points by seed, and the data set and direction that is worst, with its mean over seeds.

    Args:
        cases: The cases.
        ours: A method.
        theirs: The one that is taken off.
        accuracy: Which accuracy.
    """
    by_seed, by_set = defaultdict(list), defaultdict(list)
    for case in cases:
        one, other = (case.methods[name]["accuracies"][accuracy] for name in (ours, theirs))
        by_seed[case.seed].append(100 * (one - other))
        by_set[case.about].append(100 * (one - other))
    means = {about: sum(found) / len(found) for about, found in by_set.items()}
    worst = min(means, key=means.__getitem__)
    return Statistic({seed: sum(found) / len(found) for seed, found in by_seed.items()}), (worst, means[worst])


def promise(cases: Sequence[Case], method: str) -> tuple[int, int, int]:
    """Returns how many groups of images a method breaks the promise in, at 5 % and at 1 %, and of how many.

    Args:
        cases: The cases.
        method: The method.
    """
    margins = [Margin(**each) for case in cases for each in case.methods[method]["margins"].values()]
    return sum(each.broken(0.05) for each in margins), sum(each.broken(0.01) for each in margins), len(margins)


def _table(cases: Sequence[Case]) -> Table:
    drawn = Table(title="transfers: what was asked, what is reached", title_justify="left", title_style="bold")
    for column in ("row", "less", "accuracy", "asked", "measured, with 95 %", "", "worst data set"):
        drawn.add_column(column)
    for bar in BARS:
        others = [name for name in bar.theirs if name != bar.ours and name in cases[0].methods]
        if bar.ours not in cases[0].methods or not others:
            continue
        # The strongest of the others is the one that our lead over is smallest.
        found = {name: difference(cases, bar.ours, name, bar.accuracy) for name in others}
        best = min(found, key=lambda name: found[name][0].mean)
        mean, (worst, least) = found[best]
        verdict = "met" if mean.mean >= bar.asked else "missed"
        measured = f"{mean.mean:+.2f} ± {half_width(mean):.2f}"
        drawn.add_row(
            bar.ours, best, bar.accuracy, f"at least {bar.asked:+.1f}", measured, verdict, f"{worst} {least:+.1f}"
        )
    for method in [name for name in ("safe", *_MOVED) if name in cases[0].methods]:
        broken, surely, count = promise(cases, method)
        verdict = "met" if broken <= count / 20 and not surely else "missed"
        drawn.add_row(
            method, "promise", "groups", "5 % broken, none at 1 %", f"{broken} ({surely}) of {count}", verdict, ""
        )
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table.

    Args:
        arguments: The command line; the process's own if left out.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real.transfer_bars", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="where `vimlight compare benchmarks/real/transfer.yaml` put its results"
    )
    folder = parser.parse_args(arguments).folder
    cases = cases_in(folder)
    if not cases:
        parser.error(f"there are no results of transfers in {str(folder)!r}; give the folder after --out")
    print_whole(_table(cases), Console())


if __name__ == "__main__":
    main()
