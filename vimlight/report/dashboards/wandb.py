"""Weights & Biases: images, tables with pictures, charts in which one points at things, artifacts with lineage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.loggers import WandbLogger

from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Table
from vimlight.report.facts import Facts
from vimlight.report.html import element
from vimlight.report.plots import decode
from vimlight.report.wandb_runs import open_wandb

if TYPE_CHECKING:
    import wandb

__all__ = ["WandbDashboard"]

_STEP = "trainer/global_step"
_FORBIDDEN = re.compile(r"[^\w.-]")
# W&B keeps no longer tables.
_ROWS = 10_000


@DASHBOARDS.register("wandb")
class WandbDashboard(Dashboard):
    """Logs to a run of W&B, online or offline."""

    kind = WandbLogger

    def begin(self, facts: Facts) -> None:
        """Starts the run, with name, group, tags and kind; it is kept offline where W&B cannot be reached."""
        chosen = self.logger._wandb_init
        found = {"name": facts.name, "group": facts.group, "tags": facts.tags, "job_type": facts.stage}
        # The logger hands on what it holds here.
        chosen |= {key: value for key, value in found.items() if value and chosen.get(key) is None}
        self.logger._name = chosen.get("name")
        open_wandb(lambda: self.logger.experiment)

    def goals(self, goals: Mapping[str, str]) -> None:
        """Lets the summary of a score be its best value and its last one."""
        for name, goal in goals.items():
            self.logger.experiment.define_metric(name, step_metric=_STEP, step_sync=True, summary=f"{goal},last")

    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Shows an image; what it was drawn of as `KEY_chart` in which one points at things, or as `KEY_table`."""
        self.logger.log_image(key, [decode(png)], step=step)
        if data is not None and data.chart in _CHARTS:
            self._log(f"{key}_chart", _CHARTS[data.chart](data, key), step)
        elif data is not None:
            self.table(f"{key}_table", data, step)

    def table(self, key: str, table: Table, step: int) -> None:
        """Shows a table, pictures and all."""
        import wandb

        rows = [[wandb.Image(cell) if isinstance(cell, np.ndarray) else cell for cell in row] for row in table.rows]
        self.logger.log_table(key, columns=list(table.columns), data=rows, step=step)

    def text(self, key: str, text: str, step: int) -> None:
        """Shows a text as it is."""
        import wandb

        self._log(key, wandb.Html(element("pre", text), inject=False), step)

    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Makes an artifact, or marks it as used; of one content they are one, so that the graph leads on."""
        made = _artifact(artifact)
        run = self.logger.experiment
        if not used:
            run.log_artifact(made)
        elif run.offline:
            # `use_artifact` refuses offline what `wandb sync` can do later.
            run._log_artifact(made, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(made)

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Puts each number into the summary, by which sweeps choose."""
        self.logger.experiment.summary.update(dict(values))

    def _log(self, key: str, value: Any, step: int) -> None:
        self.logger.log_metrics({key: value}, step)


def _artifact(artifact: Artifact) -> wandb.Artifact:
    import wandb

    made = wandb.Artifact(_FORBIDDEN.sub("_", artifact.name)[:128], type=artifact.kind, metadata=dict(artifact.about))
    # Files of a zoo are whole or absent: no copy is needed that cannot change.
    made.add_file(str(artifact.file), name=_FORBIDDEN.sub("_", artifact.file.name), policy="immutable")
    for name, text in artifact.texts.items():
        with made.new_file(name, encoding="utf-8") as file:
            file.write(text)
    return made


def _confusion(table: Table, title: str) -> Any:
    """Returns the chart that `wandb.plot.confusion_matrix` makes of single predictions."""
    names = table.columns[1:]
    cells = [[row[0], name, int(count)] for row in table.rows for name, count in zip(names, row[1:], strict=True)]
    # Of many classes, those that are never taken for each other have no room.
    cells = cells if len(cells) <= _ROWS else [cell for cell in cells if cell[2]]
    columns = ["Actual", "Predicted", "nPredictions"]
    return _chart("confusion_matrix/v1", columns, cells, {name: name for name in columns}, {"title": title})


def _precision_recall(table: Table, title: str) -> Any:
    """Returns the chart that `wandb.plot.pr_curve` makes of single predictions."""
    axes = {"x": "recall", "y": "precision", "class": "class"}
    strings = {"title": title, "x-axis-title": "Recall", "y-axis-title": "Precision"}
    return _chart("area-under-curve/v0", table.columns, table.rows, axes, strings)


def _reliability(table: Table, title: str) -> Any:
    """Returns accuracy over confidence, beside what it should be, as `wandb.plot.line` draws it."""
    bins = [[confidence, accuracy, "as it is", images] for images, confidence, accuracy in table.rows if images]
    even = [[share, share, "as it should be", 0] for share in (0.0, 1.0)]
    axes = {"x": "confidence", "y": "accuracy", "stroke": "curve"}
    return _chart("line/v0", ["confidence", "accuracy", "curve", "images"], [*bins, *even], axes, {"title": title})


def _chart(spec: str, columns: Any, rows: Any, axes: dict[str, Any], strings: dict[str, Any]) -> Any:
    import wandb

    table = wandb.Table(columns=list(columns), data=[list(row) for row in rows])
    return wandb.plot_table(f"wandb/{spec}", table, axes, strings)


_CHARTS = {"confusion": _confusion, "precision_recall": _precision_recall, "reliability": _reliability}
