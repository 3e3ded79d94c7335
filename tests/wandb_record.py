"""Reads what an offline run of W&B leaves, a log of records: neither its config nor its summary is anywhere else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vimlight.files.wandb_log import wandb_records

__all__ = ["Recorded", "read_run"]


class Recorded:
    """A run.

    Attributes:
        records: All records, in order.
    """

    def __init__(self, records: list[Any]) -> None:
        self.records = records

    def of(self, kind: str) -> list[Any]:
        """Returns the records of one kind, such as `"history"` or `"artifact"`."""
        return [getattr(record, kind) for record in self.records if record.WhichOneof("record_type") == kind]

    @property
    def run(self) -> Any:
        """Name, group, tags and kind of the run, as they were said last."""
        return self.of("run")[-1]

    def history(self) -> list[dict[str, Any]]:
        """Returns what was logged, call by call."""
        return [_values(record.item) for record in self.of("history")]

    def curve(self, key: str) -> list[tuple[int, float]]:
        """Returns steps and values of one thing that was logged."""
        return [(row["trainer/global_step"], row[key]) for row in self.history() if key in row]

    def summary(self) -> dict[str, Any]:
        """Returns the numbers that the run is judged by, as far as it set them itself."""
        return {key: value for each in self.of("summary") for key, value in _values(each.update).items()}

    def metrics(self) -> dict[str, Any]:
        """Returns what was said of metrics, by their names."""
        return {metric.name: metric for metric in self.of("metric") if metric.name}


def _values(items: Any) -> dict[str, Any]:
    """Returns values by key; of an image or a table, one of its parts."""
    return {item.key or "/".join(item.nested_key[:1]): json.loads(item.value_json) for item in items}


def read_run(folder: Path) -> Recorded:
    """Reads the only offline run below a directory.

    Args:
        folder: The directory.
    """
    (file,) = folder.rglob("*.wandb")
    return Recorded(wandb_records(file))
