"""The interface of dashboards, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from lightning.pytorch.loggers import Logger

from vimlight.registry import Registry
from vimlight.report.facts import Facts

__all__ = ["DASHBOARDS", "Artifact", "Dashboard", "Picture", "Table"]

Picture = npt.NDArray[np.uint8]
"""An image, `(H, W, 3)`."""


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        columns: Names of the columns.
        rows: The cells: texts, numbers, or pictures.
        chart: What it is drawn as where one can point at it: `"confusion"`, `"precision_recall"` or `"reliability"`;
            empty where it is a table there as well.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    chart: str = ""

    def without_pictures(self) -> Table:
        """Returns the table less the columns that hold pictures."""
        kept = [n for n in range(len(self.columns)) if not any(isinstance(row[n], np.ndarray) for row in self.rows)]
        return Table([self.columns[n] for n in kept], [[row[n] for n in kept] for row in self.rows], self.chart)


@dataclass(frozen=True)
class Artifact:
    """A file that a run makes or uses, and that others are built on.

    Attributes:
        name: Its name, such as `"module-birds"`.
        kind: What it is: `"module"`, `"downstream-model"` or `"adapter"`.
        file: Where it lies.
        about: Plain values that describe it, its hash among them where it has one.
        texts: Small files beside it, by their names.
    """

    name: str
    kind: str
    file: Path
    about: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)


class Dashboard(ABC):
    """What one logger of a run shows; all of it is called in the first process alone.

    Keys are names such as `"val/confusion"`; what is shown again under a key takes the place of the earlier one, or
    stands beside it where the logger keeps every step.

    Args:
        logger: The logger.
        directory: The directory of the run, for what the logger keeps there or cannot keep itself.

    Attributes:
        kind: The class of loggers that it stands for.
    """

    kind: ClassVar[type[Logger]]

    def __init__(self, logger: Any, directory: Path) -> None:
        self.logger, self.directory = logger, directory

    def begin(self, facts: Facts) -> None:  # noqa: B027  (files need no beginning)
        """Starts the run before there is work that a refusal could end, named by what it is.

        Args:
            facts: What the run is; a name that the logger was given wins.

        Raises:
            ConfigError: If the logger refuses.
        """

    def goals(self, goals: Mapping[str, str]) -> None:  # noqa: B027  (few choose the best themselves)
        """Says of which scores the most (`"max"`) or the least (`"min"`) is best, before there are any."""

    @abstractmethod
    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Shows a figure.

        Args:
            key: Its name.
            png: The figure, a PNG file.
            step: The trainer's step.
            data: What it was drawn of.
        """

    @abstractmethod
    def table(self, key: str, table: Table, step: int) -> None:
        """Shows a table, with its pictures where the logger has room for them."""

    @abstractmethod
    def text(self, key: str, text: str, step: int) -> None:
        """Shows a text; its key ends as a file of it would, in `.txt` or `.json`."""

    @abstractmethod
    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Keeps a file that the run made, or notes which file it uses."""

    @abstractmethod
    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Keeps the numbers that a run is judged by, such as `"best/val/accuracy"`."""


DASHBOARDS: Registry[type[Dashboard]] = Registry("dashboard", "vimlight.report.dashboards", "DASHBOARDS")
