"""Files in the directory of the run, for Lightning's CSV logger and for all that nobody else stands for."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger

from vimlight.errors import ConfigError
from vimlight.files.json_text import json_of
from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Table
from vimlight.report.files import write_whole

__all__ = ["ARTIFACTS", "SUMMARY", "FileDashboard", "table_csv"]

ARTIFACTS, SUMMARY = "artifacts.json", "summary.json"


@DASHBOARDS.register("csv")
class FileDashboard(Dashboard):
    """PNG, CSV and JSON files; `val/confusion` is `val_confusion.png`. One of an earlier step is replaced.

    Pictures in tables are left out: what shows them is a figure of its own. Artifacts stay where they are:
    `artifacts.json` says which they were, with their hashes.
    """

    kind = CSVLogger

    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Writes a PNG file, and a CSV file of what it was drawn of."""
        self._write(f"{key}.png", png)
        if data is not None:
            self.table(key, data, step)

    def table(self, key: str, table: Table, step: int) -> None:
        """Writes a CSV file."""
        plain = table.without_pictures()
        self._write(f"{key}.csv", table_csv(plain.columns, plain.rows))

    def text(self, key: str, text: str, step: int) -> None:
        """Writes the text."""
        self._write(key, text)

    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Adds an entry to the list of artifacts, in the place of an earlier one of the same name."""
        file = self.directory / ARTIFACTS
        entry = {"name": artifact.name, "kind": artifact.kind, "used": used, "file": str(artifact.file),
                 "about": dict(artifact.about)}  # fmt: skip
        earlier = json_of(file.read_bytes(), str(file), ConfigError) if file.is_file() else []
        others = [each for each in earlier if (each["name"], each["used"]) != (artifact.name, used)]
        self._write(ARTIFACTS, json.dumps([*others, entry], indent=1) + "\n")

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Writes the numbers as JSON."""
        self._write(SUMMARY, json.dumps(dict(values), indent=1) + "\n")

    def _write(self, name: str, content: str | bytes) -> None:
        write_whole(Path(self.directory, name.replace("/", "_")), content, overwrite=True)


def table_csv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Returns a table as CSV.

    Args:
        columns: Names of the columns.
        rows: The cells.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return text.getvalue()
