"""All dashboards of a run as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger

from vimlight.report.dashboards.base import DASHBOARDS, Artifact, Dashboard, Table
from vimlight.report.dashboards.files import FileDashboard
from vimlight.report.facts import Facts

__all__ = ["Dashboards"]

_FILES = FileDashboard


class Dashboards(Dashboard):
    """What stands for each logger of a run, as one; files alone where there is no logger.

    Args:
        loggers: The loggers of a trainer.
        directory: The directory of the run.
    """

    kind = Logger

    def __init__(self, loggers: Iterable[Logger], directory: str | Path) -> None:
        super().__init__(None, Path(directory))
        stand = [(_stands_for(logger), logger) for logger in loggers]
        self._each = [kind(logger, self.directory) for kind, logger in stand if kind is not _FILES]
        # Of several loggers that leave nothing but files, one is enough.
        if not stand or len(self._each) < len(stand):
            self._each.append(_FILES(None, self.directory))

    def begin(self, facts: Facts) -> None:
        """Starts every run."""
        for each in self._each:
            each.begin(facts)

    def goals(self, goals: Mapping[str, str]) -> None:
        """Says everywhere which scores are best."""
        for each in self._each:
            each.goals(goals)

    def figure(self, key: str, png: bytes, step: int, data: Table | None = None) -> None:
        """Shows a figure everywhere."""
        for each in self._each:
            each.figure(key, png, step, data)

    def table(self, key: str, table: Table, step: int) -> None:
        """Shows a table everywhere."""
        for each in self._each:
            each.table(key, table, step)

    def text(self, key: str, text: str, step: int) -> None:
        """Shows a text everywhere."""
        for each in self._each:
            each.text(key, text, step)

    def artifact(self, artifact: Artifact, *, used: bool) -> None:
        """Keeps or notes a file everywhere."""
        for each in self._each:
            each.artifact(artifact, used=used)

    def summary(self, values: Mapping[str, float], step: int) -> None:
        """Keeps numbers everywhere."""
        for each in self._each:
            each.summary(values, step)


def _stands_for(logger: Logger) -> type[Dashboard]:
    return next((each for each in DASHBOARDS.values() if isinstance(logger, each.kind)), _FILES)
