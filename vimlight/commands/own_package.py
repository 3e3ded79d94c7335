"""A package of a user's own, in a directory: where its code lies, and what it announces by entry points."""

from __future__ import annotations

import keyword
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError
from vimlight.files.text import read_text

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["OwnPackage"]

_PROJECT = "pyproject.toml"


@dataclass(frozen=True)
class OwnPackage:
    """A directory with a `pyproject.toml` and a package, or one that is yet to be made.

    Attributes:
        directory: The directory.
        code: The folder of the package in it.
        is_new: Whether nothing of it is there yet.
    """

    directory: Path
    code: Path
    is_new: bool

    @property
    def name(self) -> str:
        """What Python calls the package."""
        return self.code.name

    @property
    def project(self) -> Path:
        """The file that describes the package."""
        return self.directory / _PROJECT

    @classmethod
    def at(cls, directory: Path) -> OwnPackage:
        """Finds the package in a directory, or plans one.

        Args:
            directory: With a `pyproject.toml`, or empty, or not there.

        Raises:
            ConfigError: If it is neither a project with a package nor empty, or no package can be called so.
        """
        if (directory / _PROJECT).is_file():
            return cls(directory, _code_in(directory), is_new=False)
        if directory.exists() and not (directory.is_dir() and not any(directory.iterdir())):
            raise ConfigError(
                f"{str(directory)!r} has no {_PROJECT}, and something else is there; name another: --to DIR"
            )
        name = re.sub(r"[^\w]", "_", directory.absolute().name).lower()
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ConfigError(f"no package can be called {name!r}; name another directory: --to DIR")
        return cls(directory, directory / name, is_new=True)

    def announcing(self, group: str, name: str, module: str, text: str | None = None) -> str:
        """Returns the text of `pyproject.toml` with one more entry point.

        Args:
            group: Group of the entry point, such as `"vimlight.plugins"`.
            name: Its name.
            module: Dotted name of the module that it stands for.
            text: The text that is to be added to, if not what the file says.

        Raises:
            ConfigError: If the file is no TOML, announces the name already, or does so in a way that needs a hand.
        """
        before = read_text(self.project, ConfigError) if text is None else text
        if name in _points(_toml(before, self.project), group):
            raise ConfigError(f"{self.project} has an entry point {name!r} in {group} already; choose another name")
        header, line = f'[project.entry-points."{group}"]', f'{name} = "{module}"'
        after = re.sub(
            rf"^{re.escape(header)}[^\S\n]*(#.*)?$", rf"\g<0>\n{line}", before.rstrip("\n"), count=1, flags=re.MULTILINE
        )
        if header not in before:
            after += f"\n\n{header}\n{line}"
        if not _announces(after, group, name, module):
            raise ConfigError(f"{self.project} writes its entry points otherwise; add to {header} there: {line}")
        return f"{after}\n"


def _code_in(directory: Path) -> Path:
    """Finds the folder of the package: the one with the project's name, or the only one."""
    project = _toml(read_text(directory / _PROJECT, ConfigError), directory / _PROJECT).get("project", {})
    found = [file.parent for place in (directory, directory / "src") for file in sorted(place.glob("*/__init__.py"))]
    found = [folder for folder in found if folder.name not in ("test", "tests")]
    named = [folder for folder in found if folder.name == re.sub(r"\W", "_", str(project.get("name", ""))).lower()]
    if len(named or found) != 1:
        names = ", ".join(folder.name for folder in found) or "none"
        raise ConfigError(
            f"{str(directory)!r} needs one package (a folder with __init__.py), named as the project; found: {names}"
        )
    return (named or found)[0]


def _toml(text: str, file: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is no valid TOML: {error}") from error
    return found


def _points(project: dict[str, Any], group: str) -> dict[str, Any]:
    found = project.get("project", {}).get("entry-points", {}).get(group, {})
    return found if isinstance(found, dict) else {}


def _announces(text: str, group: str, name: str, module: str) -> bool:
    try:
        return bool(_points(tomllib.loads(text), group).get(name) == module)
    except tomllib.TOMLDecodeError:
        return False
