"""MLflow: figures, tables and artifacts are files of the run, in the forms that its pages show; scores are metrics."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import MLFlowLogger

from vimlight.errors import ConfigError
from vimlight.masking import masked
from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Table
from vimlight.report.facts import Facts

__all__ = ["MLflowDashboard", "allow_file_store"]

# What its pages take for tables.
_TABLES = "mlflow.loggedArtifacts"


@DASHBOARDS.register("mlflow")
class MLflowDashboard(Dashboard):
    """Logs to a run of MLflow, in its files, its database or on its server.

    A figure is `KEY.png`, a table `KEY.json` with its pictures beside it, an artifact a folder of its name. A run that
    uses an artifact keeps no copy: the tag `used.NAME` has its hash, by which the run that made it is found.
    """

    kind = MLFlowLogger

    def begin(self, facts: Facts) -> None:
        """Starts the run, with a name and with tags that runs are searched by.

        Raises:
            ConfigError: If MLflow refuses.
        """
        from mlflow.exceptions import MlflowException

        self.logger._run_name = self.logger._run_name or facts.name or None
        self.logger.tags = {**facts.parts, **(self.logger.tags or {})}
        try:
            self.logger.experiment  # noqa: B018  (to ask for it starts the run)
        except MlflowException as error:
            reason = masked(" ".join(str(error).partition("\n")[0].split()))
            raise ConfigError(f"MLflow starts no run ({reason}); see tracking_uri, or leave the logger out") from error

    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Keeps a PNG file, and a table of what it was drawn of."""
        self._keep(f"{key}.png", png)
        if data is not None:
            self.table(key, data, step)

    def table(self, key: str, table: Table, step: int) -> None:
        """Keeps a table as `mlflow.log_table` would, except that it takes the place of an earlier one."""
        rows = [
            [self._picture(f"{key}_images/{number}_{name}", cell) if isinstance(cell, np.ndarray) else cell
             for name, cell in zip(table.columns, row, strict=True)]
            for number, row in enumerate(table.rows)
        ]  # fmt: skip
        self._keep(f"{key}.json", json.dumps({"columns": list(table.columns), "data": rows}).encode())
        shown = json.loads(self._client.get_run(self._run).data.tags.get(_TABLES, "[]"))
        entry = {"path": f"{key}.json", "type": "table"}
        if entry not in shown:
            self._client.set_tag(self._run, _TABLES, json.dumps([*shown, entry]))

    def text(self, key: str, text: str, step: int) -> None:
        """Keeps a text as a file."""
        self._keep(key, text.encode())

    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Keeps what the run made with what describes it; of what it uses, the hash."""
        if used:
            self._client.set_tag(self._run, f"used.{artifact.name}", str(artifact.about.get("sha256", artifact.file)))
            return
        self._client.log_artifact(self._run, str(artifact.file), artifact.name)
        for name, text in {**artifact.texts, "about.json": json.dumps(dict(artifact.about), indent=1)}.items():
            self._keep(f"{artifact.name}/{name}", text.encode())

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Keeps each number as a metric, by which its pages sort runs."""
        self.logger.log_metrics(dict(values), step)

    @property
    def _client(self) -> Any:
        return self.logger.experiment

    @property
    def _run(self) -> str:
        return str(self.logger.run_id)

    def _picture(self, key: str, picture: Any) -> dict[str, str]:
        """Keeps a picture and returns what stands for it in a cell."""
        self._client.log_image(self._run, picture, f"{key}.png")
        return {"type": "image", "filepath": f"{key}.png", "compressed_filepath": f"{key}.png"}

    def _keep(self, name: str, content: bytes) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, Path(name).name)
            file.write_bytes(content)
            parent = Path(name).parent.as_posix()
            self._client.log_artifact(self._run, str(file), None if parent == "." else parent)


def allow_file_store() -> None:
    """Lets runs lie in files, where a config says so: MLflow 3 refuses them unless a variable is set."""
    os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
