"""Looks for results below some paths; each kind of them has a reader."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from vimlight.errors import ConfigError, cut, shown
from vimlight.files.absent import absence
from vimlight.registry import Registry

__all__ = ["READERS", "Found", "Reader", "Run", "find", "number", "sound"]

T = TypeVar("T", bound="Run")
# What may be large and holds no results of its own.
_PASSED_OVER = {"checkpoints", "modules", "prefix", "results", "slurm", "wandb", "zoo"}
# Differences of larger ones are none that a figure could show.
_LARGEST = 1e18


@dataclass(frozen=True)
class Run:
    """Results that were read.

    Attributes:
        name: What tells them from the others of a page.
        path: Where they lie.
        versions: Versions of the libraries that made them, as far as is known.
    """

    name: str
    path: Path
    versions: dict[str, str]

    kind: ClassVar[str]
    """What it is, in a word."""

    @property
    def title(self) -> str:
        """What a page of it alone is called."""
        return self.name

    @property
    def settings(self) -> str:
        """What it was told, as it was written down; empty where nothing is known."""
        return ""


@dataclass(frozen=True)
class Reader:
    """Reads one kind of results.

    Attributes:
        files: Names of files that a directory of such results may hold, or patterns of them.
        about: What they are, for messages.
        knows: Tells whether a file is one of these.
        read: Reads them, from the file and the name that the page gives them.
    """

    files: Sequence[str]
    about: str
    knows: Callable[[Path], bool]
    read: Callable[[Path, str], Run]


READERS: Registry[Reader] = Registry("kind of results", "vimlight.pages.sources", "READERS")


@dataclass(frozen=True)
class Found:
    """All results of a page.

    Attributes:
        runs: The results, in the order of the paths.
    """

    runs: Sequence[Run]

    def of(self, kind: type[T]) -> list[T]:
        """Returns those of one kind."""
        return [run for run in self.runs if isinstance(run, kind)]


def find(paths: Iterable[str | Path]) -> Found:
    """Finds and reads results.

    Args:
        paths: Result files, directories of runs, and directories in which these lie.

    Raises:
        ConfigError: If a path does not exist, holds no results, or a file is damaged.
    """
    files: dict[Path, Reader] = {}
    for path in map(Path, paths):
        # Beside results of the package's own, what W&B keeps is the same once more.
        here = dict(_below(path)) or dict(_below(path, _PASSED_OVER - {"wandb"}))
        if not here:
            kinds = "; ".join(f"{' or '.join(each.files)} ({each.about})" for each in READERS.values())
            raise ConfigError(f"{path} holds no results; expected {kinds}")
        files |= here
    names = _names(list(files))
    return Found([reader.read(file, name) for (file, reader), name in zip(files.items(), names, strict=True)])


@contextmanager
def sound(file: Path) -> Iterator[None]:
    """Turns what a damaged file makes fail into an error that names it.

    Raises:
        ConfigError: If it does.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        reason = f"{type(error).__name__}: {cut(error)}"
        raise ConfigError(f"{file} is damaged, or was not written by vimlight ({reason})") from error


def _below(path: Path, passed_over: Set[str] = _PASSED_OVER) -> Iterator[tuple[Path, Reader]]:
    if path.is_file():
        # A file of one's own name may be any of them.
        fitting = [each for each in READERS.values() if _is_of(path.name, each)] or list(READERS.values())
        yield from ((path, reader) for reader in fitting if reader.knows(path))
        return
    if not path.is_dir():
        raise ConfigError(f"{path} {absence(path, folder=True)}")
    for folder, below, names in os.walk(path):
        below[:] = sorted(name for name in below if name not in passed_over and not name.startswith("."))
        for reader in READERS.values():
            files = [Path(folder, name) for form in reader.files for name in fnmatch.filter(names, form)]
            yield from ((file, reader) for file in files if reader.knows(file))


def _names(files: Sequence[Path]) -> list[str]:
    """Returns the shortest names that tell files apart: a directory's, with as many above it as that takes."""
    usual = [any(_is_of(file.name, reader) for reader in READERS.values()) for file in files]
    places = [file.absolute().parent if known else file.absolute() for file, known in zip(files, usual, strict=True)]
    for depth in range(1, max((len(place.parts) for place in places), default=1)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(set(places)):
            break
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [name if counts[name] == 1 else f"{name}/{file.name}" for name, file in zip(names, files, strict=True)]


def _is_of(name: str, reader: Reader) -> bool:
    return any(fnmatch.fnmatchcase(name, form) for form in reader.files)


def number(value: Any) -> float:
    """Returns a number of a file.

    Raises:
        TypeError: If it is none.
        ValueError: If it is not finite, or larger than anything that is measured.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"expected a number, not {shown(value)}")
    if not abs(float(value)) <= _LARGEST:
        raise ValueError(f"expected a finite number, not {shown(value)}")
    return float(value)
