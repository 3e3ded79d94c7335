"""TensorBoard: images, texts and scalars; tables are texts without pictures, and artifacts are named, not kept."""

from __future__ import annotations

import json
from collections.abc import Mapping

from lightning.pytorch.loggers import TensorBoardLogger

from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Table
from vimlight.report.plots import decode
from vimlight.report.tables import markdown_table

__all__ = ["TensorBoardDashboard"]


@DASHBOARDS.register("tensorboard")
class TensorBoardDashboard(Dashboard):
    """Writes event files: images, and texts in Markdown."""

    kind = TensorBoardLogger

    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Shows an image, and what it was drawn of as a text."""
        self.logger.experiment.add_image(key, decode(png), step, dataformats="HWC")
        if data is not None:
            self.table(key, data, step)

    def table(self, key: str, table: Table, step: int) -> None:
        """Shows a table in Markdown, less its pictures."""
        plain = table.without_pictures()
        cells = [[(str(cell), False) for cell in row] for row in plain.rows]
        self.logger.experiment.add_text(key, markdown_table(list(plain.columns), cells), step)

    def text(self, key: str, text: str, step: int) -> None:
        """Shows a text as it is, by the indent that Markdown has for that."""
        self.logger.experiment.add_text(key, "\n".join(f"    {line}" for line in text.splitlines()), step)

    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Notes where an artifact lies and what it is: event files have no room for others."""
        told = {"kind": artifact.kind, "file": str(artifact.file), "about": dict(artifact.about)}
        self.text(f"artifacts/{'used' if used else 'made'}/{artifact.name}", json.dumps(told, indent=1), 0)

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Shows each number as a scalar of the last step."""
        self.logger.log_metrics(dict(values), step)
