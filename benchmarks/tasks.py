"""Every kind of task on drawn scenes: the frozen backbone with its head against the same head on a zoo.

    python -m benchmarks.tasks --out tasks

One module is trained on each kind of task (midstream), on shapes that the downstream tasks do not ask for alone; then
a few labelled images of each downstream task fit the same head on the bare backbone and on the aggregated zoo. It
prints mean and standard deviation over three seeds and writes `tasks.json`; a broken run goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.comparison.kinds import KindPlan, KindTask, Score, gains_of, score_all, scores_of, train_modules
from vimlight.files.atomic import write_whole
from vimlight.report.tables import Statistic, print_whole

__all__ = ["main", "mean_and_spread", "plan", "write_scores"]

FPN = {"head": "semantic_fpn", "width": 64}
BOXES = {"width": 64, "levels": 2}
ONCE = {"epochs": 1, "lr": 4e-3, "batch_size": 32}
# After one epoch these heads still say background everywhere, and so the module has learnt nothing of shapes.
OFTEN = {**ONCE, "epochs": 5}
MIDSTREAM = (
    KindTask("shapes", "shapes", {"kind": "classification"}, **ONCE),
    KindTask("attributes", "attributes", {"kind": "multilabel"}, **ONCE),
    KindTask("segments", "segments", {"kind": "segmentation", **FPN}, **OFTEN),
    KindTask("depth", "depth", {"kind": "depth", **FPN}, **ONCE),
    KindTask("objects", "objects", {"kind": "detection", **BOXES}, **OFTEN),
    KindTask("geometry", "geometry", {"kind": "regression"}, **ONCE),
    KindTask("amounts", "amounts", {"kind": "ordinal"}, **ONCE),
)
# Heads that are trained by gradient take more and smaller steps than gates beside a head in closed form.
TRAINED = {"epochs": 40, "lr": 4e-3, "batch_size": 16}
DOWNSTREAM = (
    KindTask("classification", "odd_shapes", {"kind": "classification"}),
    KindTask("multilabel", "odd_attributes", {"kind": "multilabel"}),
    KindTask("segmentation", "odd_segments", {"kind": "segmentation", **FPN}, **TRAINED),
    KindTask("segmentation, linear", "odd_segments", {"kind": "segmentation", "head": "linear"}, batch_size=64),
    KindTask("depth", "odd_depth", {"kind": "depth", **FPN}, shots=50, **TRAINED),
    KindTask("depth, linear", "odd_depth", {"kind": "depth", "head": "linear"}, shots=50),
    KindTask("detection", "odd_objects", {"kind": "detection", **BOXES}, **TRAINED),
    KindTask("regression", "odd_geometry", {"kind": "regression"}, shots=50),
    KindTask("ordinal", "odd_amounts", {"kind": "ordinal"}),
    KindTask("retrieval", "odd_shapes", {"kind": "retrieval"}),
)


def plan() -> KindPlan:
    """Returns what is compared."""
    return KindPlan(MIDSTREAM, DOWNSTREAM)


def table(scores: Sequence[Score], tasks: Sequence[KindTask]) -> Table:
    """Builds the table: one row a downstream task, with the gain seed by seed."""
    found = Table(title="test scores, mean ± standard deviation over seeds", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("task", "metric", "frozen backbone", "ViM", "gain"):
        found.add_column(name, justify="left" if name in ("task", "metric") else "right", no_wrap=True)
    for task in tasks:
        about = next(score for score in scores if score.task == task.name)
        cells = [mean_and_spread(list(scores_of(scores, task.name, name).values())) for name in ("none", "zoo")]
        gain = mean_and_spread(gains_of(scores, task.name, "zoo"), signed=True)
        found.add_row(task.name, f"{about.metric} {'↑' if about.mode == 'max' else '↓'}", *cells, gain)
    return found


def mean_and_spread(values: Sequence[float], *, signed: bool = False) -> str:
    """Returns mean and standard deviation as a text."""
    found = Statistic(dict(enumerate(values)))
    return f"{found.mean:{'+' if signed else ''}.3f} ± {found.std:.3f}"


def write_scores(file: Path, scores: Sequence[Score], overwrite: bool) -> None:
    """Writes scores as JSON."""
    text = json.dumps([dataclasses.asdict(score) for score in scores], indent=1, allow_nan=False)
    write_whole(file, text + "\n", overwrite=overwrite)


def main(arguments: Sequence[str] | None = None, chosen: KindPlan | None = None) -> None:
    """Trains the zoo, compares, prints the table and writes the scores.

    Args:
        arguments: Options; see `--help`.
        chosen: Another plan than `plan()`.

    Raises:
        ConfigError: If there are scores already and `--overwrite` was not given.
    """
    parser = Parser("python -m benchmarks.tasks", description=__doc__)
    parser.add_argument("--out", default="tasks", help="folder of the zoo and of tasks.json (default: tasks)")
    parser.add_argument("--overwrite", action="store_true", help="replace the scores that are there")
    options = parser.parse_args(arguments)
    settings, folder = chosen or plan(), Path(options.out)
    zoo = train_modules(settings, folder / "zoo")
    scores = score_all(settings, zoo, {"none": [], "zoo": zoo.names()})
    print_whole(table(scores, settings.downstream))
    write_scores(folder / "tasks.json", scores, options.overwrite)


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
