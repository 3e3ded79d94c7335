"""W&B: a run for each result in one group, and one run with the table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vimlight.comparison.standings import Standings
from vimlight.comparison.tables import header, rows
from vimlight.comparison.work import AnyStudy, Job
from vimlight.report.wandb_runs import open_wandb

__all__ = ["Tracker"]


class Tracker:
    """Logs results as they come.

    Args:
        project: Name of the project.
        study: Whose results; runs are grouped under its folder's name.
    """

    def __init__(self, project: str, study: AnyStudy) -> None:
        self._project, self._study = project, study
        self._group = study.folder.resolve().name

    def log(self, fits: Sequence[Job]) -> None:
        """Logs results, each as a run of its own.

        Args:
            fits: What was fitted.
        """
        for fit in fits:
            for record in self._study.records(fit):
                about = {key: record[key] for key in ("backbone", "task", "method", "shots", "seed", "kind", "modules")}
                numbers = {key: record[key] for key in ("value", "parameters", "flops", "seconds")}
                self._run(str(fit), "fit", about, {**numbers, record["metric"]: record["value"], **record["scores"]})

    def summarise(self, tables: Sequence[Standings]) -> None:
        """Logs the tables as one run.

        Args:
            tables: The standings.
        """
        import wandb

        found = {
            f"{table.backbone}, {table.shots_text}": wandb.Table(
                columns=list(header(table)), data=[[cell.text for cell in row] for row in rows(table)]
            )
            for table in tables
        }
        self._run(self._study.plan.title, "summary", {"reference": self._study.plan.reference}, found)

    def _run(self, name: str, kind: str, about: dict[str, Any], content: dict[str, Any]) -> None:
        import wandb

        options: dict[str, Any] = {"name": name, "job_type": kind, "config": about, "dir": str(self._study.folder)}
        options |= {"project": self._project, "group": self._group, "reinit": "finish_previous"}
        with open_wandb(lambda: wandb.init(**options)) as run:
            run.log(content)
