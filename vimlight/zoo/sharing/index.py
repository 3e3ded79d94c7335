"""What lies in a zoo elsewhere: `index.json` beside the modules, with their cards, sizes and hashes.

It is what makes a place readable that cannot list its files, and is written last: what it names is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from vimlight.errors import ZooError, shown, unknown_name
from vimlight.files.json_text import check_version, json_object
from vimlight.zoo.card import FORMAT_VERSION, Card
from vimlight.zoo.names import SUFFIX, check_name
from vimlight.zoo.signing import checked_form

__all__ = ["INDEX", "LARGEST_INDEX", "Entry", "Index"]

INDEX = "index.json"
# Bytes; an index of a hundred thousand modules has less.
LARGEST_INDEX = 1 << 28
_VERSION = 1
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A module of a zoo elsewhere.

    Attributes:
        name: Its name.
        size: Bytes of its file.
        sha256: SHA-256 of its file.
        card: Its card.
        signature: Its signature, unchecked; empty if there is none.
    """

    name: str
    size: int
    sha256: str
    card: Card
    signature: str = ""

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.name}{SUFFIX}"

    def is_same(self, card: Card) -> bool:
        """Tells whether a card is that of the same module: the same words, and the same tensors by their hashes."""
        one, two = (replace(each, format_version=FORMAT_VERSION).to_json() for each in (self.card, card))
        return one == two


@dataclass(frozen=True)
class Index:
    """What a zoo elsewhere says of its modules.

    Attributes:
        modules: The modules by name.
    """

    modules: Mapping[str, Entry]

    def chosen(self, names: list[str], where: str) -> list[Entry]:
        """Returns the modules of some names, or all of them where none is named.

        Args:
            names: Their names.
            where: What the zoo is called in messages.

        Raises:
            ZooError: If one is not there.
        """
        for name in names:
            if name not in self.modules:
                raise ZooError(str(unknown_name(f"module of {where}:", name, self.modules)))
        return [self.modules[name] for name in names or sorted(self.modules)]

    def to_json(self) -> str:
        """Returns the content of `index.json`."""
        modules = {name: _stated(entry) for name, entry in sorted(self.modules.items())}
        return json.dumps({"format_version": _VERSION, "modules": modules}, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Index:
        """Reads an index, which may be a stranger's.

        Args:
            text: The content of `index.json`.
            where: What the zoo is called in messages.

        Raises:
            ZooError: If it is none, of a newer format, or says something of a module that cannot be.
        """
        what = f"{INDEX} of {where}"
        content = json_object(text, what, ZooError)
        check_version(content, _VERSION, ZooError, what=what)
        modules = content.get("modules")
        if not isinstance(modules, dict):
            raise ZooError(f"{what}: 'modules' must be an object by name, not {shown(modules)}")
        return cls({name: _entry(name, stated, what) for name, stated in modules.items()})


def _stated(entry: Entry) -> dict[str, Any]:
    signature = {"signature": entry.signature} if entry.signature else {}
    return {"size": entry.size, "sha256": entry.sha256, "card": json.loads(entry.card.to_json()), **signature}


def _entry(name: str, stated: Any, what: str) -> Entry:
    try:
        check_name(name)
        if not isinstance(stated, dict):
            raise ZooError(f"it must be an object, not {shown(stated)}")
        size, sha256 = stated.get("size"), stated.get("sha256")
        if type(size) is not int or size < 1:
            raise ZooError(f"its size must be a whole number of bytes, not {shown(size)}")
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise ZooError(f"its sha256 must be 64 hexadecimal digits, not {shown(sha256)}")
        if not isinstance(stated.get("card"), dict):
            raise ZooError("it has no card")
        signature = stated.get("signature", "")
        if signature:
            checked_form(str(signature), "its signature")
        return Entry(name, size, sha256, Card.from_json(json.dumps(stated["card"])), signature)
    except ZooError as error:
        raise ZooError(f"{what}, module {shown(name)}: {error}") from error
