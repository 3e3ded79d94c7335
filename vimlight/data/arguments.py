"""What data sources take, in words: their arguments with types, defaults and docs.

They are read off the text of the sources' files, since to import them takes seconds; sources of somebody else's are
imported already, and read off their functions.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vimlight.data.sources import SOURCES
from vimlight.errors import ConfigError
from vimlight.files.yaml_text import yaml_of

__all__ = ["Argument", "arguments_of", "parse_arguments", "summary_of"]

# What the alias in annotations stands for; see `vimlight.data.classes`.
_ALIAS = ("Classes", "list[str | int]")
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
    return _written(name)[0].partition("\n\n")[0].replace("\n", " ")


def arguments_of(name: str) -> list[Argument]:
    """Returns the arguments of a source, `classes` included, which every source takes.

    Raises:
        UnknownNameError: If there is no such source.
    """
    from docstring_parser import parse

    text, parameters = _written(name)
    docs = {each.arg_name: " ".join((each.description or "").split()) for each in parse(text).params}
    found = [Argument(key, kind.replace(*_ALIAS), default, docs.get(key, "")) for key, kind, default in parameters]
    if not any(argument.name == "classes" for argument in found):
        found.append(Argument("classes", f"{_ALIAS[1]} | None", "None", _CLASSES))
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


def _written(name: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Returns the docstring of a source and its parameters: name, annotation and default, as they are written."""
    text = SOURCES.source(name)
    if text is not None:
        function = next(_registered(ast.parse(text), name))
        return ast.get_docstring(function) or "", list(_parameters(function.args))
    found = SOURCES[name]
    return inspect.getdoc(found) or "", [_described(each) for each in inspect.signature(found).parameters.values()]


def _registered(module: ast.Module, name: str) -> Iterator[ast.FunctionDef]:
    """Finds the function that a file registers as a data source under a name."""
    decorator = f"SOURCES.register({name!r})"
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and decorator in map(ast.unparse, node.decorator_list):
            yield node


def _parameters(found: ast.arguments) -> Iterator[tuple[str, str, str]]:
    defaults = [None] * (len(found.args) - len(found.defaults)) + [ast.unparse(each) for each in found.defaults]
    for argument, default in zip(found.args, defaults, strict=True):
        yield argument.arg, "Any" if argument.annotation is None else ast.unparse(argument.annotation), default or ""


def _described(parameter: inspect.Parameter) -> tuple[str, str, str]:
    kind = Any if parameter.annotation is parameter.empty else parameter.annotation
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    default = "" if parameter.default is parameter.empty else repr(parameter.default)
    return parameter.name, text.replace("typing.", ""), default
