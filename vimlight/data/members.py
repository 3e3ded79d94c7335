"""Collections of data sets that are read as one source: what each of them has, and what of it is on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vimlight.errors import ConfigError, unknown_name
from vimlight.registry import Registry

__all__ = ["MEMBERS", "Member", "members_of", "missing_on_disk"]


@dataclass(frozen=True)
class Member:
    """A data set of a collection.

    Attributes:
        argument: The source's argument that chooses it.
        name: What that argument calls it.
        group: The group that means are taken over first; empty where there are none.
        missing: The file or folder that it needs and that is not there; empty where all is.
    """

    argument: str
    name: str
    group: str = ""
    missing: str = ""


MEMBERS: Registry[Callable[..., list[Member]]] = Registry("collection of data sets", "vimlight.data.sources", "MEMBERS")
"""By the source's name, a function from the folder of a collection to all its members in their usual order."""


def members_of(name: str, arguments: Mapping[str, Any]) -> list[Member]:
    """Returns the data sets of a collection, and what of each is missing on disk.

    Args:
        name: The source's name, such as `"vtab1k"`.
        arguments: `root`, the folder of the collection.

    Raises:
        ConfigError: If there is no `root`.
        DataError: If there is no such folder.
        UnknownNameError: If there is no such collection or argument.
    """
    list_members = MEMBERS[name]
    for key in arguments:
        if key != "root":
            raise unknown_name(f"argument of the collection {name!r}:", key, ["root"])
    if "root" not in arguments:
        raise ConfigError(f"the collection {name!r} needs its folder: --args root=...")
    return list_members(str(arguments["root"]))


def missing_on_disk(name: str, arguments: Mapping[str, Any]) -> str:
    """Returns what is missing of the data set of a collection that a source would open; nothing for other sources.

    Args:
        name: The source's name.
        arguments: The source's arguments.

    Raises:
        DataError: If the collection's folder is missing.
    """
    found = members_of(name, {"root": arguments["root"]}) if name in MEMBERS else []
    return next((member.missing for member in found if arguments.get(member.argument) == member.name), "")
