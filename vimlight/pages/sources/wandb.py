"""An offline run of W&B, from its file alone: what `vimlight report` shows of a run that left nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from vimlight.errors import ConfigError
from vimlight.files.json_text import json_object, json_of
from vimlight.files.text import read_text
from vimlight.files.wandb_log import wandb_records
from vimlight.masking import masked
from vimlight.pages.sources.base import READERS, Reader, number, sound
from vimlight.pages.sources.fit import Confusion, Fit, Gates, Link, by_class
from vimlight.report.figures import Bin
from vimlight.report.files import read_versions

__all__ = ["wandb_run"]

_STEP = "trainer/global_step"
_SPLITS = ("val", "test")


class _Record:
    """What the file says, and where its tables and pictures lie.

    Args:
        file: The file.
    """

    def __init__(self, file: Path) -> None:
        self.folder = file.parent / "files"
        self._records = wandb_records(file)

    def of(self, kind: str) -> list[Any]:
        """Returns the records of one kind."""
        return [getattr(record, kind) for record in self._records if record.WhichOneof("record_type") == kind]

    @cached_property
    def history(self) -> list[dict[str, Any]]:
        """What was logged, call by call."""
        return [_values(record.item) for record in self.of("history")]

    @cached_property
    def last(self) -> dict[str, Any]:
        """What was logged last, by its key."""
        return {key: value for row in self.history for key, value in row.items()}

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run, less what W&B notes itself."""
        found = {key: value for each in self.of("config") for key, value in _values(each.update).items()}
        return {key: value for key, value in found.items() if key != "_wandb"}

    @property
    def summary(self) -> dict[str, Any]:
        """The numbers that the run was judged by."""
        return {key: value for each in self.of("summary") for key, value in _values(each.update).items()}

    def file(self, key: str) -> Path | None:
        """Returns the file that a key names, if it is one of the run's own."""
        value = self.last.get(key)
        names = value.get("filenames") if isinstance(value, Mapping) else None
        path = f"media/images/{names[0]}" if names else value.get("path", "") if isinstance(value, Mapping) else ""
        file = (self.folder / str(path)).resolve()
        return file if path and file.is_relative_to(self.folder.resolve()) and file.is_file() else None

    def table(self, *keys: str) -> tuple[list[str], list[list[Any]]] | None:
        """Returns the columns and rows of the first of some tables that is there."""
        for file in filter(None, map(self.file, keys)):
            content = json_object(read_text(file, ConfigError), str(file), ConfigError)
            return [str(name) for name in content["columns"]], [list(row) for row in content["data"]]
        return None


def wandb_run(file: Path, name: str) -> Fit:
    """Reads a run.

    Args:
        file: Its file.
        name: What the page calls it.

    Raises:
        ConfigError: If it is damaged.
    """
    record = _Record(file)
    with sound(file):
        config = masked(record.config)
        splits = {split: _of_split(record, split) for split in _SPLITS}
        return Fit(
            name, file.parent, _versions(record), _curves(record), _epochs(record), config,
            yaml.safe_dump(config, sort_keys=False) if config else "", _gates(record), _ranking(record),
            **{
                kind: {split: found[kind] for split, found in splits.items() if found[kind]}
                for kind in ("confusion", "reliability", "precision_recall")
            },
            pictures={
                f"Predictions, {split}": picture.read_bytes()
                for split in _SPLITS
                if (picture := record.file(f"{split}/images"))
            },
            best={key: number(value) for key, value in record.summary.items() if key.startswith("best/")},
            links=_links(record),
        )  # fmt: skip


def _values(items: Any) -> dict[str, Any]:
    """Returns values by key; those that have parts as mappings."""
    found: dict[str, Any] = {}
    for item in items:
        value = json_of(item.value_json, "a value of the run", ConfigError)
        if item.key:
            found[item.key] = value
        elif len(item.nested_key) == 1:
            found[item.nested_key[0]] = value
        else:
            found.setdefault(item.nested_key[0], {})["/".join(item.nested_key[1:])] = value
    return found


def _curves(record: _Record) -> dict[str, list[tuple[float, float]]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for row in record.history:
        step = row.get(_STEP)
        for key, value in row.items():
            if step is not None and _is_number(value) and key not in (_STEP, "epoch") and not key.startswith("_"):
                found.setdefault(key, []).append((float(step), float(value)))
    return {key: sorted(points, key=lambda point: point[0]) for key, points in sorted(found.items())}


def _epochs(record: _Record) -> dict[float, int]:
    return {float(row[_STEP]): int(row["epoch"]) for row in record.history if _STEP in row and "epoch" in row}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _gates(record: _Record) -> Gates | None:
    found = record.table("gates_table")
    if found is None:
        return None
    columns, rows = found
    if len(columns) < 2 or any(len(row) != len(columns) for row in rows):
        raise ValueError("gates do not fit their names")
    return Gates([str(row[0]) for row in rows], columns[1:], [list(map(number, row[1:])) for row in rows])


def _ranking(record: _Record) -> list[tuple[str, float]]:
    columns, rows = record.table("ranking") or (["features", "left_out_error"], [])
    name, error = columns.index("features"), columns.index("left_out_error")
    return [(str(row[name]), number(row[error])) for row in rows]


def _of_split(record: _Record, split: str) -> dict[str, Any]:
    confusion, reliability, curves = (
        record.table(f"{split}/{key}_chart_table") for key in ("confusion", "reliability", "precision_recall")
    )
    return {
        "confusion": _confusion(confusion[1]) if confusion else None,
        "reliability": [Bin(int(row[3]), number(row[0]), number(row[1])) for row in reliability[1] if row[3]]
        if reliability
        else None,
        "precision_recall": by_class(curves[1]) if curves else None,
    }


def _confusion(cells: Sequence[Sequence[Any]]) -> Confusion:
    names = list(dict.fromkeys(str(cell[0]) for cell in cells))
    counts = {(str(true), str(given)): number(count) for true, given, count in cells}
    return Confusion(names, [[counts.get((true, given), 0.0) for given in names] for true in names])


def _links(record: _Record) -> list[Link]:
    """Returns the artifacts that the run made or used, less those that W&B makes of tables."""
    return [
        Link(str(each.name), str(each.type), bool(each.use_after_commit), str(about.get("sha256", "")) or each.digest)
        for each in record.of("artifact")
        if each.metadata and (about := json_object(each.metadata, "an artifact's metadata", ConfigError))
    ]


def _versions(record: _Record) -> dict[str, str]:
    file = record.file("versions.json")
    if file is None:
        return {}
    text = html.unescape(read_text(file, ConfigError).partition("<pre>")[2].partition("<")[0])
    return read_versions(text, str(file))


READERS.register("wandb")(Reader(["*.wandb"], "an offline run of W&B", lambda file: file.suffix == ".wandb", wandb_run))
