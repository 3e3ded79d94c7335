"""A run of `vimlight fit`, `validate` or `test`: curves, gates, ranking, confusion, reliability and config."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from vimlight.errors import ConfigError
from vimlight.files.json_text import json_object, json_of
from vimlight.files.text import csv_rows, read_text
from vimlight.files.yaml_text import yaml_of
from vimlight.masking import masked
from vimlight.pages.sources.base import READERS, Reader, Run, number, sound
from vimlight.report.dashboards.files import ARTIFACTS, SUMMARY
from vimlight.report.facts import Facts, facts_of
from vimlight.report.figures import Bin
from vimlight.report.files import read_versions

__all__ = ["Confusion", "Fit", "Gates", "Link", "by_class", "labels", "titled"]

_CURVES = "metrics.csv"
_SPLITS = ("val", "test")


class Gates(NamedTuple):
    """Shares of modules.

    Attributes:
        places: Names of the rows.
        names: Names of the modules.
        values: `places` rows of a value for each module.
    """

    places: Sequence[str]
    names: Sequence[str]
    values: Sequence[Sequence[float]]


class Confusion(NamedTuple):
    """How often images of a class are taken for one of another.

    Attributes:
        classes: Names of the classes.
        counts: A row for each true class, with a count for each predicted one.
    """

    classes: Sequence[str]
    counts: Sequence[Sequence[float]]


class Link(NamedTuple):
    """A file that a run makes or uses.

    Attributes:
        name: Its name, such as `"module-birds"`.
        kind: What it is.
        used: Whether it was made before.
        content: A hash of its content; empty where none was noted.
    """

    name: str
    kind: str
    used: bool
    content: str


@dataclasses.dataclass(frozen=True)
class Fit(Run):
    """A run.

    Attributes:
        curves: What was logged: points of step and value by name.
        epochs: The epoch of each step that was logged.
        config: The whole config, empty where there is none.
        text: The config as it was written, or less what is secret in it, as earlier versions wrote it.
        gates: The gates after training, if there are any.
        ranking: Rows of what each module is worth, if they were ranked: name and leave-one-out error.
        confusion: By split.
        reliability: Bins by split.
        pictures: PNG files by title.
        precision_recall: Curves of recall and precision by split and class.
        best: The best values of scores.
        links: What the run makes and uses.
    """

    curves: Mapping[str, Sequence[tuple[float, float]]]
    epochs: Mapping[float, int]
    config: Mapping[str, Any]
    text: str
    gates: Gates | None
    ranking: Sequence[tuple[str, float]]
    confusion: Mapping[str, Confusion]
    reliability: Mapping[str, Sequence[Bin]]
    pictures: Mapping[str, bytes]
    precision_recall: Mapping[str, Mapping[str, Sequence[tuple[float, float]]]] = dataclasses.field(
        default_factory=dict
    )
    best: Mapping[str, float] = dataclasses.field(default_factory=dict)
    links: Sequence[Link] = ()

    kind = "run"

    @cached_property
    def facts(self) -> Facts:
        """What the config says in a few words."""
        return facts_of(self.config)

    @property
    def title(self) -> str:
        """The name that its facts give it."""
        return self.facts.name or self.name

    @property
    def settings(self) -> str:
        """The config."""
        return self.text

    def scores(self) -> dict[str, tuple[float, float]]:
        """Returns the last step and value of every score of validation and test images, and the best values."""
        names = [name for name in self.curves if name.partition("/")[0] in _SPLITS and not name.endswith("seen")]
        return {**{name: self.curves[name][-1] for name in names}, **{key: (0.0, it) for key, it in self.best.items()}}


def labels(fits: Sequence[Fit]) -> list[str]:
    """Returns what tells runs apart, as short as may be: their seeds, their titles, or their names.

    Args:
        fits: The runs, in order.
    """
    seeds = [f"seed {fit.facts.seed}" for fit in fits]
    alike = len({fit.facts.group for fit in fits}) == 1 and len(fits) > 1 and bool(fits[0].facts.group)
    for found in ([seeds] if alike else []) + [[fit.title for fit in fits]]:
        if len(set(found)) == len(fits):
            return found
    return [fit.name for fit in fits]


def titled(fits: Sequence[Fit]) -> list[tuple[str, Fit]]:
    """Returns runs with their titles, to which those that share one have their names added.

    Args:
        fits: The runs, in order.
    """
    titles = [fit.title for fit in fits]
    return [
        (f"{title} ({fit.name})" if titles.count(title) > 1 and title != fit.name else title, fit)
        for title, fit in zip(titles, fits, strict=True)
    ]


def _read(file: Path, name: str) -> Fit:
    folder = file.parent
    curves, epochs = _curves(file)
    config = folder / "config.yaml"
    text = read_text(config, ConfigError) if config.is_file() else ""
    content = yaml_of(text, str(config), ConfigError) if text else {}
    if not isinstance(content, dict):
        raise ConfigError(f"{config} holds no settings, but {type(content).__name__}")
    if (safe := masked(content)) != content:
        content, text = safe, yaml.safe_dump(safe, sort_keys=False)
    matrices = {split: folder / f"{split}_confusion.csv" for split in _SPLITS}
    bins = {split: folder / f"{split}_reliability.csv" for split in _SPLITS}
    points = {split: folder / f"{split}_precision_recall.csv" for split in _SPLITS}
    return Fit(
        name, folder, _versions(folder / "versions.json"), curves, epochs, content, text,
        _gates(folder / "gates.csv"), _ranking(folder / "ranking.csv"),
        {split: _confusion(path) for split, path in matrices.items() if path.is_file()},
        {split: _bins(path) for split, path in bins.items() if path.is_file()},
        {f"Predictions, {split}": (folder / f"{split}_images.png").read_bytes()
         for split in _SPLITS if (folder / f"{split}_images.png").is_file()},
        {split: _points(path) for split, path in points.items() if path.is_file()},
        _best(folder / SUMMARY), _links(folder / ARTIFACTS),
    )  # fmt: skip


def _curves(file: Path) -> tuple[dict[str, list[tuple[float, float]]], dict[float, int]]:
    rows = csv_rows(file, ConfigError)
    names = next(rows)
    if "step" not in names:
        raise ConfigError(f"{file} has no column 'step': it is no log of a run")
    curves: dict[str, list[tuple[float, float]]] = {}
    epochs: dict[float, int] = {}
    with sound(file):
        for row in rows:
            cells = {name: cell for name, cell in zip(names, row, strict=True) if cell}
            step, epoch = number(float(cells.pop("step"))), cells.pop("epoch", None)
            if epoch is not None:
                epochs[step] = int(float(epoch))
            for name, cell in cells.items():
                curves.setdefault(name, []).append((step, _logged(float(cell))))
    return {name: sorted(points, key=lambda point: point[0]) for name, points in sorted(curves.items())}, epochs


def _logged(value: float) -> float:
    """Returns a value of a curve, which may be infinite or none after a training that diverged."""
    return number(value) if math.isfinite(value) else value


def _table(file: Path) -> tuple[list[str], list[str], list[list[float]]]:
    """Reads a table of numbers with names in front of rows and above columns."""
    header, *rows = csv_rows(file, ConfigError)
    with sound(file):
        values = [[number(float(cell)) for cell in row[1:]] for row in rows]
        if any(len(row) != len(header) - 1 for row in values):
            raise ValueError("rows differ in length")
        return header[1:], [row[0] for row in rows], values


def _gates(file: Path) -> Gates | None:
    if not file.is_file():
        return None
    names, places, values = _table(file)
    return Gates(places, names, values)


def _ranking(file: Path) -> list[tuple[str, float]]:
    if not file.is_file():
        return []
    header, *rows = csv_rows(file, ConfigError)
    with sound(file):
        name, error = header.index("features"), header.index("left_out_error")
        return [(row[name], number(float(row[error]))) for row in rows]


def _confusion(file: Path) -> Confusion:
    predicted, classes, counts = _table(file)
    if not classes:
        raise ConfigError(f"{file}: it has no class; it is damaged")
    if predicted != classes:
        raise ConfigError(f"{file}: its rows and columns are other classes; it is damaged")
    if any(count < 0 for row in counts for count in row):
        raise ConfigError(f"{file}: a count is below 0; it is damaged")
    return Confusion(classes, counts)


def by_class(rows: Iterable[Sequence[Any]]) -> dict[str, list[tuple[float, float]]]:
    """Returns curves by class.

    Args:
        rows: Class, recall and precision of each point.
    """
    found: dict[str, list[tuple[float, float]]] = {}
    for name, recall, precision in rows:
        found.setdefault(str(name), []).append((number(float(recall)), number(float(precision))))
    return found


def _points(file: Path) -> dict[str, list[tuple[float, float]]]:
    _, *rows = csv_rows(file, ConfigError)
    with sound(file):
        return by_class(rows)


def _best(file: Path) -> dict[str, float]:
    if not file.is_file():
        return {}
    with sound(file):
        found = json_object(read_text(file, ConfigError), str(file), ConfigError)
        return {str(name): number(value) for name, value in found.items()}


def _links(file: Path) -> list[Link]:
    if not file.is_file():
        return []
    with sound(file):
        listed = json_of(read_text(file, ConfigError), str(file), ConfigError)
        return [
            Link(str(each["name"]), str(each["kind"]), bool(each["used"]), str(each["about"].get("sha256", "")))
            for each in listed
        ]


def _bins(file: Path) -> list[Bin]:
    header, *rows = csv_rows(file, ConfigError)
    with sound(file):
        count, confidence, accuracy = map(header.index, ("images", "confidence", "accuracy"))
        return [Bin(int(row[count]), number(float(row[confidence])), number(float(row[accuracy]))) for row in rows]


def _versions(file: Path) -> dict[str, str]:
    return read_versions(read_text(file, ConfigError), str(file)) if file.is_file() else {}


READERS.register("fit")(Reader([_CURVES], "a run of vimlight fit, validate or test",
                               lambda file: file.suffix == ".csv", _read))  # fmt: skip
