"""What data sources take, in words: their arguments with types, defaults and docs, read off their functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_type_hints

from vimlight.data.classes import Classes
from vimlight.data.sources import SOURCES
from vimlight.errors import ConfigError
from vimlight.files.yaml_text import yaml_of

__all__ = ["Argument", "arguments_of", "parse_arguments", "summary_of"]

_CLASSES = "some of the classes by name, in the order that they are to have; by default all of them"


@dataclass(frozen=True)
class Argument:
    """An argument of a data source.

    Attributes:
        name: Its name in `dataset_args`.
        type: Its type, such as `"str | None"`.
        default: Its default as Python writes it; empty where there is none and it must be given.
        text: What it means.
    """

    name: str
    type: str
    default: str
    text: str

    @property
    def required(self) -> bool:
        """Whether it must be given."""
        return not self.default


def summary_of(name: str) -> str:
    """Returns what a source is, in one sentence: the first of its docstring.

    Raises:
        UnknownNameError: If there is no such source.
    """
    return (inspect.getdoc(SOURCES[name]) or "").partition("\n\n")[0].replace("\n", " ")


def arguments_of(name: str) -> list[Argument]:
    """Returns the arguments of a source, `classes` included, which every source takes.

    Raises:
        UnknownNameError: If there is no such source.
    """
    function = SOURCES[name]
    found = [_argument(function, parameter) for parameter in inspect.signature(function).parameters.values()]
    if not any(argument.name == "classes" for argument in found):
        found.append(Argument("classes", inspect.formatannotation(Classes | None), "None", _CLASSES))
    return found


def parse_arguments(words: list[str]) -> dict[str, Any]:
    """Reads the arguments of a source from a command line.

    Args:
        words: Each `key=value`, or a mapping such as `"{root: flowers, download: true}"`; values are YAML.

    Raises:
        ConfigError: If a word is neither.
    """
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if equals and key.isidentifier():
            found[key] = yaml_of(value, f"--args {word!r}", ConfigError)
            continue
        mapping = yaml_of(word, f"--args {word!r}", ConfigError)
        if not isinstance(mapping, dict):
            raise ConfigError(f"--args takes key=value, or a mapping such as '{{key: value}}'; got {word!r}")
        found |= {str(key): value for key, value in mapping.items()}
    return found


def _argument(function: Callable[..., Any], parameter: inspect.Parameter) -> Argument:
    from docstring_parser import parse

    docs = {each.arg_name: each.description or "" for each in parse(inspect.getdoc(function) or "").params}
    kind = inspect.formatannotation(get_type_hints(function).get(parameter.name, Any)).replace("typing.", "")
    default = "" if parameter.default is parameter.empty else repr(parameter.default)
    return Argument(parameter.name, kind, default, " ".join(docs.get(parameter.name, "").split()))
