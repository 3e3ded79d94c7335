"""Which modules exactly, and where they are to be had: `zoo.lock` of a run, and what a zoo knows of its own modules."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vimlight.errors import ZooError, shown
from vimlight.files.absent import absence
from vimlight.files.atomic import locked, write_whole
from vimlight.files.json_text import check_version, json_object
from vimlight.files.text import is_file
from vimlight.zoo.card import Card
from vimlight.zoo.names import check_name
from vimlight.zoo.sharing.index import Entry
from vimlight.zoo.sharing.places import Place
from vimlight.zoo.zoo import Zoo

__all__ = ["LOCK", "Pin", "not_here", "read_lock", "remember", "write_lock"]

LOCK = "zoo.lock"
# Where a zoo keeps where its modules came from; a lock like others.
_ORIGINS = ".origins.json"
_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    """One module, by its content.

    Attributes:
        name: Its name.
        sha256: SHA-256 over its tensors, as its card has it.
        head: That over those of its head; empty if it has none.
        source: Address of a zoo where it is to be had; empty where none is known.
    """

    name: str
    sha256: str
    head: str
    source: str = ""

    def is_of(self, card: Card) -> bool:
        """Tells whether a card is that of this module."""
        return (card.sha256, card.head) == (self.sha256, self.head)

    def entry_in(self, place: Place) -> Entry:
        """Returns what the module is called in a zoo elsewhere.

        Args:
            place: The zoo.

        Raises:
            ZooError: If it is not there, or no longer.
        """
        (entry,) = place.index().chosen([self.name], place.url)
        if not self.is_of(entry.card):
            raise ZooError(
                f"module {self.name!r} of {place.url} is another one by now (SHA-256 {entry.card.sha256[:12]}, "
                f"locked is {self.sha256[:12]}): it cannot be restored from there"
            )
        return entry


def write_lock(zoo: Zoo, names: Sequence[str], path: Path) -> None:
    """Writes which modules of a zoo are used, and where they came from.

    Args:
        zoo: The zoo.
        names: The modules.
        path: The file, which is replaced.
    """
    known = _origins(zoo)
    pins = []
    for name in names:
        card = zoo.card(name)
        source = known[name].source if name in known and known[name].is_of(card) else ""
        pins.append(Pin(name, card.sha256, card.head, source))
    _write(pins, path)


def read_lock(path: Path) -> list[Pin]:
    """Reads a lock, which may be a stranger's.

    Args:
        path: The file.

    Raises:
        ZooError: If it is missing, none, or of a newer format.
    """
    if not is_file(path):
        raise ZooError(f"{str(path)!r} {absence(path)}")
    try:
        content = json_object(path.read_bytes(), path.name, ZooError)
    except OSError as error:
        raise ZooError(f"{str(path)!r} cannot be read: {error.strerror}") from error
    check_version(content, _VERSION, ZooError, what=path.name)
    modules = content.get("modules")
    if not isinstance(modules, dict):
        raise ZooError(f"{path.name}: 'modules' must be an object by name, not {shown(modules)}")
    return [_pin(name, stated, path.name) for name, stated in modules.items()]


def not_here(zoo: Zoo, pins: Iterable[Pin], overwrite: bool = False) -> list[Pin]:
    """Returns which modules of a lock a zoo lacks.

    Args:
        zoo: The zoo.
        pins: The modules.
        overwrite: Whether others of the same names count as missing.

    Raises:
        ZooError: If one of another content is here, and `overwrite` is false.
    """
    missing = []
    for pin in pins:
        here = pin.name in zoo
        if here and pin.is_of(zoo.card(pin.name)):
            continue
        if here and not overwrite:
            raise ZooError(
                f"zoo {str(zoo.path)!r} has another module {pin.name!r} than the lock: replace it with --overwrite, or "
                "restore into another directory with --zoo DIR"
            )
        missing.append(pin)
    return missing


def remember(zoo: Zoo, place: Place, names: Iterable[str]) -> None:
    """Keeps beside a zoo's modules that they are to be had elsewhere.

    Args:
        zoo: The zoo.
        place: Where.
        names: The modules.
    """
    if not os.access(zoo.path, os.W_OK):
        # It is somebody else's, who may be pushed from all the same.
        return
    with locked(zoo.path):
        known = _origins(zoo)
        for name in names:
            card = zoo.card(name)
            known[name] = Pin(name, card.sha256, card.head, place.pinned())
        # Of modules that are gone nobody asks any more.
        _write([pin for name, pin in sorted(known.items()) if zoo.file(name).exists()], zoo.path / _ORIGINS)


def _origins(zoo: Zoo) -> dict[str, Pin]:
    path = zoo.path / _ORIGINS
    if not path.exists():
        return {}
    try:
        return {pin.name: pin for pin in read_lock(path)}
    except ZooError as error:
        raise ZooError(f"{error}; remove {str(path)!r}, which tells no more than where modules came from") from error


def _write(pins: Iterable[Pin], path: Path) -> None:
    modules = {pin.name: {"sha256": pin.sha256, "head": pin.head, "from": pin.source} for pin in pins}
    content = {"format_version": _VERSION, "modules": modules}
    write_whole(path, json.dumps(content, indent=1) + "\n", overwrite=True)


def _pin(name: str, stated: Any, what: str) -> Pin:
    try:
        check_name(name)
    except ZooError as error:
        raise ZooError(f"{what}: {error}") from error
    found = [stated.get(key) for key in ("sha256", "head", "from")] if isinstance(stated, dict) else []
    if not all(isinstance(value, str) for value in found) or not found:
        raise ZooError(f"{what}, module {name!r}: it must have 'sha256', 'head' and 'from', not {shown(stated)}")
    sha256, head, source = map(str, found)
    if not _SHA256.fullmatch(sha256) or not (head == "" or _SHA256.fullmatch(head)):
        raise ZooError(f"{what}, module {name!r}: hashes are 64 hexadecimal digits, not {shown(sha256)}, {shown(head)}")
    return Pin(name, sha256, head, source)
