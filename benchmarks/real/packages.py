"""Packages that bring real images: fetched by name, unpacked into a folder, nothing installed."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from vimlight.errors import DataError

__all__ = ["APT", "NPM", "VENDORS", "bring"]

VENDORS = ("google", "facebook", "twitter", "apple")
NPM = {f"emoji-datasource-{vendor}": "16.0.0" for vendor in VENDORS}
APT = (
    "openclipart-png",
    "tuxpaint-stamps-default",
    "dataset-fashion-mnist",
    "gnome-icon-theme",
    "mate-icon-theme",
    "tango-icon-theme",
    "elementary-xfce-icon-theme",
    "faenza-icon-theme",
    "oxygen-icon-theme",
    "fonts-noto-core",
    "fonts-freefont-ttf",
    "fonts-bpg-georgian",
    "fonts-lato",
    "fonts-comic-neue",
    "fonts-oldstandard",
    "fonts-humor-sans",
    "fonts-cabin",
    "fonts-quattrocento",
    "fonts-play",
    "fonts-jura",
    "fonts-kaushanscript",
    "fonts-vollkorn",
    "fonts-dosis",
    "fonts-junicode",
    "fonts-thai-tlwg",
)


def bring(root: Path, say: Callable[[str], None] = print) -> Path:
    """Fetches and unpacks what is not there yet.

    Args:
        root: The suite's folder; archives go to `archives/`, their files to `unpacked/`.
        say: Receives a line for each package that is brought.

    Returns:
        The folder of the unpacked files: those of Debian packages as they would be installed, those of an npm package
        in a folder of its name.

    Raises:
        DataError: If a package cannot be fetched; the text names it.
    """
    archives, unpacked = root / "archives", root / "unpacked"
    for folder in (archives, unpacked):
        folder.mkdir(parents=True, exist_ok=True)
    for name in APT:
        _once(archives, name, say, lambda name=name: _debian(name, archives, unpacked))  # type: ignore[misc]
    for name, version in NPM.items():
        _once(archives, name, say, lambda name=name, version=version: _npm(name, version, archives, unpacked / name))  # type: ignore[misc]
    return unpacked


def _once(archives: Path, name: str, say: Callable[[str], None], step: Callable[[], None]) -> None:
    """Runs a step unless its mark says that an earlier call finished it."""
    mark = archives / f"{name}.unpacked"
    if not mark.exists():
        say(f"package {name}")
        step()
        mark.touch()


def _debian(name: str, archives: Path, unpacked: Path) -> None:
    _run(["apt-get", "download", name], archives)
    _run(["dpkg-deb", "-x", str(_newest(archives, f"{name}_*.deb")), str(unpacked)], archives)


def _npm(name: str, version: str, archives: Path, folder: Path) -> None:
    _run(["npm", "pack", f"{name}@{version}"], archives)
    with tarfile.open(_newest(archives, f"{name}-{version}.tgz")) as archive:
        wanted = [m for m in archive.getmembers() if m.isfile() and ("/64/" in m.name or m.name.endswith("emoji.json"))]
        for member in wanted:
            # Only the bytes are taken: no owner, mode or link of the archive reaches the disk.
            target = folder / Path(*Path(member.name).parts[1:]).relative_to(".")
            if ".." in target.parts:
                raise DataError(f"package {name}: the path {member.name!r} leads out of its folder")
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as source:  # type: ignore[union-attr]  # a file has content
                target.write_bytes(source.read())


def _newest(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
    if not found:
        raise DataError(f"no file {pattern} was fetched into {folder}")
    return found[-1]


def _run(command: list[str], folder: Path) -> None:
    if shutil.which(command[0]) is None:
        raise DataError(f"{command[0]} is needed to bring {command[-1]!r}, but it is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"{' '.join(command)} failed: {last}")
