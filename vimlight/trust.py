"""What code a config may name by a `class_path`: all that is installed, or only what was named on the command line.

Without a limit, a few modules of Python are refused all the same (`os`, `subprocess`, `pickle` and others that nothing
here is made of), and a `class_path` where any value may stand is a value and makes no object.
"""

from __future__ import annotations

import argparse
import pydoc
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vimlight.errors import ConfigError

__all__ = ["BUILT_IN", "check_made", "check_trusted", "guard_parsers", "refusal", "trust_only", "trusted"]

# Whose classes a config may name always; the functions in them take anything, and are left out.
BUILT_IN = ("lightning", "torch.nn", "torch.optim", "vimlight")

_named: tuple[str, ...] | None = None


def trust_only(names: Sequence[str] | None) -> None:
    """Limits what configs may name, for this process.

    Args:
        names: Modules and packages, such as `"my_package"`, beside `BUILT_IN`; none for no limit.

    Raises:
        ConfigError: If one is no dotted name.
    """
    global _named
    for name in names or ():
        if not all(part.isidentifier() for part in name.split(".")) or name.partition(".")[0] == "jsonargparse":
            raise ConfigError(
                f"--trusted-modules takes names of packages with commas between, as in my_package,theirs; got {name!r}"
            )
    _named = None if names is None else tuple(names)


def trusted() -> tuple[str, ...] | None:
    """Returns what `trust_only` was told, for other processes."""
    return _named


def guard_parsers() -> None:
    """Lets the config parser import nothing that is not trusted."""
    from jsonargparse import set_parsing_settings

    set_parsing_settings(
        import_path_denylist=[] if _named is None else ["*"],
        import_path_allowlist=[] if _named is None else [*BUILT_IN, *_named],
        instantiate_subclass_spec_in_any=False,
    )


def check_trusted(path: str, where: str) -> None:
    """Checks a dotted name before it is imported.

    Args:
        path: The name.
        where: What says so, as in `"config.yaml: model.class_path"`.

    Raises:
        ConfigError: If it is not trusted.
    """
    if not _is_trusted(path):
        raise ConfigError(refusal(path, f"{where}: "))


def refusal(path: str, where: str, entry: str = "*") -> str:
    """Says that a name is not trusted, and what to do if it should be.

    Args:
        path: The name.
        where: What says so, with a colon behind, or nothing.
        entry: The module, if it is one that is never trusted unless it is named.
    """
    why = "is not trusted" if entry == "*" else "is nothing that a config should name"
    package = path.partition(".")[0] if entry == "*" else entry
    return f"{where}{path!r} {why}; if you trust whoever wrote it, say so: --trusted-modules {package}"


def check_made(config: Any) -> None:
    """Checks, before objects are made, that a config calls only classes, or functions that the user named.

    Args:
        config: What a parser made of it.

    Raises:
        ConfigError: If it calls another function.
    """
    if _named is None:
        return
    for key, path in _functions(config, ()):
        if not _within(path, _named):
            raise ConfigError(f"{key}: {refusal(path, '', path.rpartition('.')[0])}")


def _is_trusted(path: str) -> bool:
    return _named is None or _within(path, (*BUILT_IN, *_named))


def _within(path: str, places: Sequence[str]) -> bool:
    return any(f"{path}.".startswith(f"{place}.") for place in places)


def _functions(value: Any, place: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yields place and name of every function that a config holds or names as what makes an object."""
    if isinstance(value, (Mapping, argparse.Namespace)):
        entries = vars(value) if isinstance(value, argparse.Namespace) else value
        path = entries.get("class_path")
        # What is not trusted was refused by the parser, or is no more than a value; to look for it would import it.
        if isinstance(path, str) and _is_trusted(path) and not isinstance(pydoc.locate(path), type):
            yield ".".join(place), path
        for key, entry in entries.items():
            yield from _functions(entry, (*place, str(key)))
    elif isinstance(value, (list, tuple)):
        for entry in value:
            yield from _functions(entry, place)
    elif callable(value) and not isinstance(value, type) and hasattr(value, "__qualname__"):
        yield ".".join(place), f"{value.__module__}.{value.__qualname__}"
