"""The keys of configs: which there are, which were typed, and which one was meant by one that does not exist."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from vimlight.errors import ConfigError
from vimlight.files.text import read_text
from vimlight.files.yaml_text import yaml_of

__all__ = ["CONFIG", "Keys", "Owners", "Typed", "arguments_of", "plain_key", "typed_keys"]

Owners = Mapping[str, Sequence[str]]
"""What takes arguments at one place, such as the classes of optimisers, each with the names of its arguments."""
Typed = Sequence[tuple[str, Any]]
"""Keys that were typed, from the outermost name on, with their values."""

CONFIG = ("--config", "-c")
"""The options that name config files."""
_CLASS, _ARGUMENTS = "class_path", "init_args"
# How alike names must be that stand where the wrong one was typed, and elsewhere.
_ALIKE, _VERY_ALIKE = 0.6, 0.75


@dataclass(frozen=True)
class Keys:
    """The keys that a command takes, by the place that they stand at, such as `model.init_args`.

    Attributes:
        checked: Places whose keys the parser knows.
        passed_on: Places whose keys the parser passes on to something else, which may know more than stands here.
    """

    checked: Mapping[str, Owners]
    passed_on: Mapping[str, Owners] = field(default_factory=dict)

    def classes(self, place: str | None = None) -> list[str]:
        """Returns the names of the classes at a place, or everywhere."""
        everywhere = [*self.checked.items(), *self.passed_on.items()]
        found = {name for path, owners in everywhere if path.endswith(_ARGUMENTS) for name in owners}
        here = {name for path, owners in everywhere if plain_key(path) == place for name in owners}
        return sorted(here or found)

    def explain(self, key: str, typed: Typed) -> str:
        """Says of a key that does not exist where it stands and which one was meant, if one is alike.

        Args:
            key: The key, which may lack its first parts.
            typed: What was typed.
        """
        paths = [path for path, _ in typed]
        candidates = [path for path in paths if path == key or path.endswith(f".{key}")]
        # The parser says "class_path" where a mapping has other keys beside it.
        for path in paths if key == _CLASS else candidates or [key]:
            wrong = self._first_wrong(path, typed)
            if wrong is not None:
                return f"unknown key {path!r}{self._meant(*wrong, typed)}"
        path = candidates[0] if candidates else key
        return f"unknown key {path!r}{self._lacks_class(path, typed) or self._meant(*_last(path), typed)}"

    def _first_wrong(self, path: str, typed: Typed) -> tuple[str, str, str] | None:
        """Returns the place, the name and what is behind it of the first name that does not exist."""
        parts = plain_key(path).split(".")
        for depth, name in enumerate(parts):
            place = ".".join(parts[:depth])
            known = self._names(place, typed)
            if known is None:
                return None
            if name not in known:
                return place, name, ".".join(parts[depth + 1 :])
        return None

    def _names(self, place: str, typed: Typed) -> set[str] | None:
        """Returns the names at a place, of the classes that were chosen for it; nothing if they may have others."""
        owners = next((owners for path, owners in self.checked.items() if plain_key(path) == place), None)
        if owners is None:
            return None
        chosen = _chosen(place, typed)
        if not chosen <= owners.keys():
            return None
        return {name for owner in chosen or owners for name in owners[owner]}

    def _lacks_class(self, path: str, typed: Typed) -> str | None:
        parts = plain_key(path).split(".")
        for depth in range(1, len(parts)):
            place = ".".join(parts[:depth])
            if self._writing(place).endswith(_ARGUMENTS) and not _chosen(place, typed):
                return f"; its class must be named too, by {place}.{_CLASS}"
        return None

    def _meant(self, place: str, name: str, rest: str, typed: Typed) -> str:
        nearby = list(self._nearest_first(place))
        names = self._names(place, typed)
        here = [key for key in nearby if plain_key(key.place) == place]
        here = [key for key in here if names is None or not key.owner or key.name in names]
        usual = [key for key in nearby if self._is_usual(key, typed)]
        meant = (
            next((key for key in usual if key.name == name), None)
            or _alike(name, here, _ALIKE)
            or _alike(name, usual, _VERY_ALIKE)
        )
        if meant is None:
            return ""
        path = ".".join(part for part in (meant.place, meant.name, rest) if part)
        # Of another class than the one that was chosen.
        other = meant.owner and meant.name not in (self._names(plain_key(meant.place), typed) or [meant.name])
        return f"; did you mean {path!r}{f' of {meant.owner}' if other else ''}?"

    def _nearest_first(self, place: str) -> Iterator[_Key]:
        top = place.partition(".")[0]

        def distance(path: str) -> tuple[bool, bool, int]:
            return plain_key(path) != place, path.partition(".")[0] != top, path.count(".")

        for path in sorted({**self.checked, **self.passed_on}, key=distance):
            for owner, names in (*self.checked.get(path, {}).items(), *self.passed_on.get(path, {}).items()):
                yield from (_Key(path, owner, name) for name in names)
            if path.endswith(_ARGUMENTS):
                yield from (_Key(path.removesuffix(f".{_ARGUMENTS}"), "", name) for name in (_CLASS, _ARGUMENTS))

    def _is_usual(self, key: _Key, typed: Typed) -> bool:
        """Tells whether most classes have a key at its place, if none was chosen there."""
        if not key.place.endswith(_ARGUMENTS) or _chosen(plain_key(key.place), typed):
            return True
        owners = {**self.checked.get(key.place, {}), **self.passed_on.get(key.place, {})}
        return 2 * sum(key.name in names for names in owners.values()) >= len(owners)

    def _writing(self, place: str) -> str:
        """Returns a place as it is written in a config, with the keys that stand between a class and its arguments."""
        return next((path for path in (*self.checked, *self.passed_on) if plain_key(path) == place), place)


class _Key(NamedTuple):
    place: str
    owner: str
    name: str


def _alike(name: str, keys: Sequence[_Key], least: float) -> _Key | None:
    """Returns the key whose name is spelt most like a name, the first of equals."""

    def likeness(key: _Key) -> float:
        return SequenceMatcher(None, name.casefold(), key.name.casefold()).ratio()

    best = max(keys, key=likeness, default=None)
    return best if best is not None and likeness(best) >= least else None


def plain_key(path: str) -> str:
    """Returns a key without the parts that may be left out on a command line, `class_path` and `init_args`.

    Args:
        path: The key, with dots in between.
    """
    return ".".join(part for part in path.split(".") if part not in (_CLASS, _ARGUMENTS))


def _last(path: str) -> tuple[str, str, str]:
    place, _, name = plain_key(path).rpartition(".")
    return place, name, ""


def _chosen(place: str, typed: Typed) -> set[str]:
    """Returns the names of the classes that were typed for a place."""
    values = (value for path, value in typed if path and plain_key(path) == place)
    return {value.rpartition(".")[2] for value in values if isinstance(value, str)}


def arguments_of(*kinds: Callable[..., Any]) -> Owners:
    """Returns the names of the arguments of classes or functions, those that they pass on to their bases included.

    Args:
        *kinds: Classes or functions.
    """
    return {kind.__name__: list(_arguments(kind)) for kind in kinds}


def _arguments(kind: Callable[..., Any]) -> Iterator[str]:
    bases = inspect.getmro(kind) if inspect.isclass(kind) else ()
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [kind]:
        parameters = inspect.signature(function).parameters.values()
        named = [each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
        yield from (name for name in named if name != "self")
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return


def typed_keys(arguments: Sequence[str], config: Sequence[str] = CONFIG) -> Typed:
    """Lists the keys that a command line sets, and those of the config files that it names.

    Args:
        arguments: The command line.
        config: The options that name config files.
    """
    found: list[tuple[str, Any]] = []
    for word, following in zip(arguments, [*arguments[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        value = value if equals else following
        if option in config:
            found.extend(_of_file(Path(value)))
        if option.startswith("--"):
            found.extend(_flat(option[2:], _read(value)))
    return found


def _of_file(path: Path) -> Iterator[tuple[str, Any]]:
    # What is wrong with a file the parser says.
    with suppress(ConfigError):
        yield from _flat("", _read(read_text(path, ConfigError)))


def _read(text: str) -> Any:
    try:
        return yaml_of(text, "the value", ConfigError)
    except ConfigError:
        return text


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{path}.{key}" if path else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _flat(path, inner)
    else:
        yield path, value
