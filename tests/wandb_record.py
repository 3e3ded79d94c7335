"""Reads what an offline run of W&B leaves, a log of records: neither its config nor its summary is anywhere else."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

__all__ = ["Recorded", "read_run"]

_BLOCK, _HEADER = 32768, 7
_LAST = (1, 4)


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
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.rglob("*.wandb")
    return Recorded([Record.FromString(content) for content in _contents(file.read_bytes())])


def _contents(data: bytes) -> list[bytes]:
    """Returns the contents of a log in LevelDB's format, behind the seven bytes that W&B puts in front."""
    assert data[:4] == b":W&B"
    found, part, place = [], b"", _HEADER
    while place + _HEADER <= len(data):
        if _BLOCK - place % _BLOCK < _HEADER:
            place += _BLOCK - place % _BLOCK
            continue
        _, size, kind = struct.unpack("<IHB", data[place : place + _HEADER])
        part += data[place + _HEADER : place + _HEADER + size]
        place += _HEADER + size
        if kind in _LAST:
            found.append(part)
            part = b""
    return found
