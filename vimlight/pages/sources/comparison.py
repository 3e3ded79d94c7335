"""Results of `vimlight compare`, and of the demo's first half: records, which make standings, and gates."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vimlight.comparison.standings import Record, Standings, standings_of
from vimlight.errors import ConfigError
from vimlight.files.text import read_text
from vimlight.pages.sources.base import READERS, Reader, Run, number, sound
from vimlight.pages.sources.fit import Gates
from vimlight.report.files import read_results
from vimlight.report.parts import Cell

__all__ = ["Comparison", "results_of", "says"]

_TEXTS = ("backbone", "task", "method", "metric")


@dataclasses.dataclass(frozen=True)
class Comparison(Run):
    """Methods on tasks.

    Attributes:
        heading: Its title.
        reference: The method that others are compared with.
        records: Its records, as far as their values are numbers.
        unmeasured: How many have another value, such as a score of classes that no image has.
        gates: Gates by backbone, method and task, of most labels and the last seed.
        summaries: Tables of what holds for several standings together: title, header and rows.
        whole: Whether every result is there.
    """

    heading: str
    reference: str
    records: Sequence[Record]
    unmeasured: int
    gates: Mapping[tuple[str, str, str], Gates]
    summaries: Sequence[tuple[str, Sequence[str], Sequence[Sequence[Cell]]]]
    whole: bool

    kind = "comparison"

    @property
    def title(self) -> str:
        """Its title."""
        return self.heading

    @property
    def settings(self) -> str:
        """What was compared."""
        names = {key: dict.fromkeys(record[key] for record in self.records)
                 for key in ("backbone", "task", "method", "shots", "seed")}  # fmt: skip
        return "\n".join(f"{key}: {', '.join(map(str, found))}" for key, found in names.items())

    @cached_property
    def tables(self) -> list[Standings]:
        """The standings."""
        return standings_of(self.records, self.reference)


def results_of(file: Path) -> dict[str, Any]:
    """Returns what a file of results says.

    Args:
        file: JSON.

    Raises:
        ConfigError: If it is no such file, or of a newer format.
    """
    return read_results(read_text(file, ConfigError), str(file))


def says(file: Path, key: str) -> bool:
    """Tells whether a file is a JSON object with a key; a damaged one may be."""
    if file.suffix != ".json":
        return False
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError):
        return True
    return isinstance(content, dict) and key in content


def _read(file: Path, name: str) -> Comparison:
    content = results_of(file)
    with sound(file):
        gates = {(str(one["backbone"]), str(one["method"]), str(one["task"])): _gates(one)
                 for one in content.get("gates", [])}  # fmt: skip
        versions = {str(key): str(value) for key, value in content.get("versions", {}).items()}
        measured = [record for record in content["records"] if _is_measured(record)]
        return Comparison(
            name, file.parent, {"vimlight": str(content.get("vimlight", "")), **versions}, str(content["title"]),
            str(content["reference"]), list(map(_record, measured)), len(content["records"]) - len(measured), gates,
            [_summary(each) for each in content.get("summaries", [])], bool(content.get("whole", True)),
        )  # fmt: skip


def _is_measured(record: Mapping[str, Any]) -> bool:
    value = record["value"]
    return not isinstance(value, float) or math.isfinite(value)


def _record(record: Mapping[str, Any]) -> Record:
    texts = {key: str(record[key]) for key in _TEXTS}
    if record["mode"] not in ("max", "min"):
        raise ValueError(f"mode {record['mode']!r} is neither 'max' nor 'min'")
    shots = record["shots"] if record["shots"] == "full" else int(record["shots"])
    numbers = {key: number(record[key]) for key in ("value", "parameters")}
    flops = record["flops"]
    flops = None if flops is None or flops != flops else number(flops)
    seconds = number(record.get("seconds") or 0)
    rest = {"mode": record["mode"], "shots": shots, "seed": int(record["seed"]), "group": str(record.get("group", ""))}
    return {**texts, **rest, **numbers, "flops": flops, "seconds": seconds}


def _gates(written: Mapping[str, Any]) -> Gates:
    places, names = [str(each) for each in written["places"]], [str(each) for each in written["names"]]
    values = [[number(value) for value in row] for row in written["values"]]
    if len(values) != len(places) or any(len(row) != len(names) for row in values):
        raise ValueError("gates do not fit their names")
    return Gates(places, names, values)


def _summary(written: Mapping[str, Any]) -> tuple[str, list[str], list[list[Cell]]]:
    header = [str(text) for text in written["header"]]
    rows = [[Cell(str(text), bool(best)) for text, best in row] for row in written["rows"]]
    if any(len(row) != len(header) for row in rows):
        raise ValueError("rows of a summary do not fit their header")
    return str(written["title"]), header, rows


READERS.register("comparison")(Reader(["results.json"], "vimlight compare", lambda file: says(file, "records"), _read))
