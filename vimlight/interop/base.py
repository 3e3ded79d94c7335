"""What every format defines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, NamedTuple

from vimlight.registry import Registry

__all__ = ["FORMATS", "Fact", "Format"]


class Fact(NamedTuple):
    """One line of what an import or an export did.

    Attributes:
        part: What was read or written, such as `"backbone"`.
        text: What is to be said of it.
        file: Where it is now.
    """

    part: str
    text: str
    file: Path


class Format(ABC):
    """A format that a zoo can be read from and written to.

    Attributes:
        suffix: How the format's files end.
    """

    suffix: ClassVar[str]

    @abstractmethod
    def import_zoo(self, path: Path, out: Path, heads: int | None = None) -> list[Fact]:
        """Reads a file of the format into a new zoo, which appears whole or not at all.

        Args:
            path: The file.
            out: Directory of the new zoo.
            heads: Attention heads of the backbone, for formats that do not say how many.

        Returns:
            What was found.

        Raises:
            VimlightError: If the file is not as it should be, or `out` exists.
        """

    @abstractmethod
    def export_zoo(self, zoo: Path, names: Sequence[str], to: Path) -> list[Fact]:
        """Writes modules of a zoo, with the backbone and the tasks kept beside them, to a new file of the format.

        Args:
            zoo: Directory of the zoo.
            names: Which modules; all if empty.
            to: The new file.

        Returns:
            What was written.

        Raises:
            VimlightError: If the zoo holds what the format cannot, or `to` exists.
        """


FORMATS: Registry[type[Format]] = Registry("format", "vimlight.interop")
