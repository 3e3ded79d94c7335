"""`--model.help` and `--data.help`: which names a config can choose there, and what each takes."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vimlight.aggregation.registry import AGGREGATORS
from vimlight.commands.beforehand import DATA, MODELS
from vimlight.commands.output import print_table
from vimlight.data.arguments import Argument, arguments_of, summary_of
from vimlight.data.sources import SOURCES
from vimlight.errors import unknown_name
from vimlight.plugins.registry import PLUGINS
from vimlight.tasks.registry import TASKS

__all__ = ["GROUPS", "Group", "answered"]

# What the command line takes from the data, and what an aggregator is given by its model.
_LINKED = frozenset({"kind", "class_names", "aux_names", "class_indices"})
_MODELS_OWN = frozenset({"backbone", "modules", "names", "readout", "extra_module"})


@dataclass(frozen=True)
class Group:
    """Names that can stand at one place of a config.

    Attributes:
        title: What they are.
        place: The option.
        key: Which of its settings is the name, where it takes settings too; `""` where settings are options themselves.
        find: Returns what there is, by name.
        hidden: Arguments that a config does not give there.
    """

    title: str
    place: str
    key: str
    find: Callable[[], Mapping[str, Callable[..., Any]]]
    hidden: frozenset[str]


def _classes(names: Sequence[str]) -> dict[str, Callable[..., Any]]:
    train = importlib.import_module("vimlight.commands.train")
    return {name: getattr(train, name) for name in names}


def _tunings() -> Mapping[str, Callable[..., Any]]:
    found: Mapping[str, Callable[..., Any]] = importlib.import_module("vimlight.transmiter.sources").TUNINGS
    return found


GROUPS: Mapping[str, Sequence[Group]] = {
    "model": (
        Group("models", "--model", "", lambda: _classes(MODELS), _LINKED),
        Group("plug-ins", "--model.plugin", "kind", lambda: PLUGINS, frozenset({"site"})),
        Group("aggregators of a zoo", "--model.aggregator", "how", lambda: AGGREGATORS, _MODELS_OWN),
        Group("tasks", "--model.task", "kind", lambda: TASKS, frozenset({"class_names"})),
        Group("ways to fine-tune an image-text model", "--model.method", "name", _tunings, frozenset({"start"})),
    ),
    "data": (
        Group("data modules", "--data", "", lambda: _classes(DATA), frozenset()),
        Group("data sets", "--data.dataset", "", lambda: SOURCES, frozenset()),
    ),
}
"""What there is to choose below `model` and below `data`."""


def answered(words: Sequence[str]) -> bool:
    """Prints what is asked for by `--model.help [NAME]` or `--data.help [NAME]`.

    Args:
        words: The command line of a training.

    Returns:
        Whether it was; classes of other packages, which have dots in their names, are left to Lightning.

    Raises:
        UnknownNameError: If there is no such name.
    """
    for word, following in zip(words, [*words[1:], ""], strict=False):
        option, equals, value = word.partition("=")
        top = option.removeprefix("--").removesuffix(".help")
        if option != f"--{top}.help" or top not in GROUPS:
            continue
        name = value if equals else following.partition("-")[0] and following
        if "." in name:
            return False
        _show(top, name) if name else _list(words[0], top)
        return True
    return False


def _list(command: str, top: str) -> None:
    for group in GROUPS[top]:
        print(f"{group.title}: {group.place} NAME\n")
        print_table(("name", "what"), [(name, _summary(group, name)) for name in group.find()])
        print()
    print(f"what one takes: vimlight {command} --{top}.help NAME")


def _show(top: str, name: str) -> None:
    groups = [group for group in GROUPS[top] if name in group.find()]
    if not groups:
        raise unknown_name(f"choice of {top}", name, [known for group in GROUPS[top] for known in group.find()])
    for group in groups:
        print(f"{name}: {_summary(group, name)}\n")
        takes = _arguments(group, name)
        rows = [(each.name, each.type, each.default or "(needed)", each.text) for each in takes]
        print(f"{group.place} {_example(group, name)}\n")
        print_table(("option", "type", "default", "what"), rows)


def _example(group: Group, name: str) -> str:
    if group.find() is SOURCES:
        return f"{name} --data.dataset_args '{{...}}'"
    return f"'{{{group.key}: {name}, ...}}'" if group.key else f"{name} {group.place}.OPTION VALUE"


def _summary(group: Group, name: str) -> str:
    if group.find() is SOURCES:
        return summary_of(name)
    text = inspect.getdoc(group.find()[name]) or ""
    return " ".join(text.partition("\n\n")[0].split())


def _arguments(group: Group, name: str) -> list[Argument]:
    if group.find() is SOURCES:
        return arguments_of(name)
    found: dict[str, Argument] = {}
    for each in _written(group.find()[name]):
        if each.name not in group.hidden:
            found.setdefault(each.name, each)
    # What must be given stands first.
    return sorted(found.values(), key=lambda each: not each.required)


def _written(kind: Callable[..., Any]) -> Iterator[Argument]:
    """Yields the arguments of a class and of the bases that it passes others on to."""
    from docstring_parser import parse

    classes = [base for base in inspect.getmro(kind) if "__init__" in vars(base)] if inspect.isclass(kind) else []
    for base in classes:
        docs = {
            each.arg_name: " ".join((each.description or "").split())
            for owner in inspect.getmro(base)[::-1]
            for each in parse(owner.__doc__ or "").params
            if each.args[0] == "param"
        }
        parameters = list(inspect.signature(vars(base)["__init__"]).parameters.values())[1:]
        for each in parameters:
            if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY):
                default = "" if each.default is each.empty else repr(each.default)
                yield Argument(each.name, str(each.annotation), default, docs.get(each.name, ""))
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return
