"""Which module helps which task: every module alone against the bare backbone, over tasks of every kind.

    python -m benchmarks.gain --out gain

It takes the zoo of `benchmarks.tasks` (`--zoo tasks/zoo` for one that is trained already), adds modules trained on
letters and textures, fits each downstream task's head on the bare backbone and on each module alone, for three seeds,
and writes `gain.json` and `gain.png`. A gain is the difference of the test scores, positive where the module helps.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from benchmarks import tasks
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.comparison.kinds import KindPlan, KindTask, gains_of, score_all, train_modules
from vimlight.files.atomic import write_whole
from vimlight.report.plots import gain_matrix, png
from vimlight.report.tables import Statistic, print_whole

__all__ = ["gains_of", "main", "plan"]

MORE = (
    KindTask("letters", "letters", {"kind": "classification"}, **tasks.ONCE),
    KindTask("textures", "textures", {"kind": "classification"}, **tasks.ONCE),
)
# Dense tasks with their heads in closed form: a fit costs seconds, not minutes.
DOWNSTREAM = tuple(task for task in tasks.DOWNSTREAM if task.task.get("head") != "semantic_fpn" and task.epochs < 20)


def plan() -> KindPlan:
    """Returns what is compared."""
    return KindPlan((*tasks.MIDSTREAM, *MORE), DOWNSTREAM)


def main(arguments: Sequence[str] | None = None, chosen: KindPlan | None = None) -> None:
    """Trains the modules, compares, prints the matrix and writes scores and plot.

    Args:
        arguments: Options; see `--help`.
        chosen: Another plan than `plan()`.

    Raises:
        ConfigError: If there are results already and `--overwrite` was not given.
    """
    parser = Parser("python -m benchmarks.gain", description=__doc__)
    parser.add_argument("--out", default="gain", help="folder of gain.json and gain.png (default: gain)")
    parser.add_argument("--zoo", help="folder of the modules (default: OUT/zoo)")
    parser.add_argument("--overwrite", action="store_true", help="replace the results that are there")
    options = parser.parse_args(arguments)
    settings, folder = chosen or plan(), Path(options.out)
    zoo = train_modules(settings, Path(options.zoo) if options.zoo else folder / "zoo")
    names = [task.name for task in settings.midstream]
    scores = score_all(settings, zoo, {"none": [], **{name: [name] for name in names}})
    columns = [task.name for task in settings.downstream]
    gains = [[gains_of(scores, task, module) for task in columns] for module in names]
    _print(names, columns, gains)
    tasks.write_scores(folder / "gain.json", scores, options.overwrite)
    found = [[Statistic(dict(enumerate(values))) for values in row] for row in gains]
    means, spreads = [[one.mean for one in row] for row in found], [[one.std for one in row] for row in found]
    figure = gain_matrix(means, spreads, names, columns, "Gain of a module over the bare backbone, test scores")
    write_whole(folder / "gain.png", png(figure), overwrite=options.overwrite)


def _print(names: Sequence[str], columns: Sequence[str], gains: Sequence[Sequence[Sequence[float]]]) -> None:
    table = Table(title="gain over the bare backbone, test scores", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("module", *columns):
        table.add_column(name, justify="left" if name == "module" else "right", no_wrap=True)
    for name, row in zip(names, gains, strict=True):
        table.add_row(name, *(tasks.mean_and_spread(values, signed=True) for values in row))
    print_whole(table)


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
