"""Reads a plan from YAML; every mistake is found before any work starts, and named by its place in the file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from vimlight.comparison.catalogue import method_of
from vimlight.comparison.entries import DownstreamTask, MidstreamTask, Plan, Shots
from vimlight.data.sources import check_source
from vimlight.data.transforms import AUGMENTATIONS
from vimlight.errors import ConfigError, VimlightError, nearest, unknown_name
from vimlight.plugins import PLUGINS
from vimlight.tasks import TASKS
from vimlight.zoo import Zoo

__all__ = ["plan_of", "read_plan"]

FULL = "full"
METHODS = ["none", "ens_moe", "uniform", "best_single", "k_streams", "random", "shuffled"]
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class _Written:
    """The outermost keys of the file, with what they are if left out."""

    backbone: str | dict[str, Any] | list[str | dict[str, Any]]
    downstream: list[Any]
    midstream: list[Any] | None = None
    methods: list[Any] = dataclasses.field(default_factory=lambda: list(METHODS))
    plugin: str | dict[str, Any] = "convpass"
    zoo: str | list[str] | None = None
    shots: int | str | list[int | str] = FULL
    seeds: int | list[int] = 0
    reference: str = "none"
    title: str = "Comparison of methods"
    accelerator: str = "auto"
    precision: str | int = "auto"


def read_plan(path: str | Path) -> Plan:
    """Reads a plan.

    Args:
        path: The YAML file.

    Raises:
        ConfigError: If it does not exist, is no YAML, or says something that cannot be.
        UnknownNameError: If it names something that does not exist.
    """
    file = Path(path)
    if not file.is_file():
        close = nearest(file.name, [other.name for other in file.parent.glob("*.y*ml")], 1)
        raise ConfigError(f"plan {str(file)!r} does not exist" + (f"; did you mean {close[0]!r}?" if close else ""))
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file.name} is no valid YAML: {' '.join(str(error).split())}") from error
    try:
        return plan_of(content)
    except VimlightError as error:
        error.args = (f"{file.name}: {error}",)
        raise


def plan_of(content: Any) -> Plan:
    """Builds a plan from what a YAML file holds; see `read_plan`."""
    written = _entry(_Written, content, "")
    midstream = tuple(_midstream(n, entry) for n, entry in enumerate(written.midstream or ()))
    plan = Plan(
        backbones=_backbones(_listed(written.backbone)),
        midstream=midstream,
        downstream=tuple(_downstream(n, entry) for n, entry in enumerate(written.downstream)),
        methods=tuple(_at(f"methods[{n}]", method_of, entry) for n, entry in enumerate(written.methods)),
        plugin=_plugin("plugin", written.plugin),
        zoo=tuple(_listed(written.zoo)),
        shots=_shots("shots", written.shots),
        seeds=tuple(_listed(written.seeds)),
        reference=written.reference,
        title=written.title,
        accelerator=written.accelerator,
        precision=str(written.precision),
    )
    _check(plan)
    return plan


def _entry(kind: type[T], content: Any, where: str) -> T:
    """Builds a dataclass from a mapping, with checked keys and types."""
    prefix = f"{where}: " if where else ""
    if not isinstance(content, Mapping):
        raise ConfigError(f"{prefix}expected keys with values, got {type(content).__name__}")
    fields = {field.name: field for field in dataclasses.fields(kind)}  # type: ignore[arg-type]  # a dataclass
    for key in content:
        if key not in fields:
            raise unknown_name("key", f"{where}.{key}" if where else str(key), _paths(where, fields))
    for name, field in fields.items():
        if field.default is field.default_factory is dataclasses.MISSING and name not in content:
            raise ConfigError(f"{prefix}the key {name!r} is missing")
    return _typed(kind, dict(content), where)


def _paths(where: str, fields: Iterable[str]) -> list[str]:
    return [f"{where}.{name}" if where else name for name in fields]


def _typed(kind: type[T], content: dict[str, Any], where: str) -> T:
    for name, value in content.items():
        required = {
            field.name: content[field.name]
            for field in dataclasses.fields(kind)  # type: ignore[arg-type]  # a dataclass
            if field.default is field.default_factory is dataclasses.MISSING
        }
        try:
            _parser_of(kind).parse_object({**required, name: value})  # type: ignore[arg-type]  # classes are hashable
        except ArgumentError as error:
            place = f"{where}.{name}" if where else name
            wanted = kind.__dataclass_fields__[name].type  # type: ignore[attr-defined]
            raise ConfigError(f"{place}: expected {wanted}, got {value!r}") from error
    return kind(**content)


@lru_cache
def _parser_of(kind: type) -> ArgumentParser:
    # Plans have many entries, and a parser takes as long as all that it is asked about one of them.
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, fail_untyped=False)
    return parser


def _midstream(number: int, content: Any) -> MidstreamTask:
    where = f"midstream[{number}]"
    task = _entry(MidstreamTask, content, where)
    _check_task(where, task)
    if task.plugin is not None:
        _plugin(f"{where}.plugin", task.plugin)
    _at(f"{where}.name", Zoo("").check_new, task.name)
    return task


def _downstream(number: int, content: Any) -> DownstreamTask:
    where = f"downstream[{number}]"
    task = _entry(DownstreamTask, content, where)
    _check_task(where, task)
    if task.shots is not None:
        _shots(f"{where}.shots", task.shots)
    return task


def _check_task(where: str, task: MidstreamTask | DownstreamTask) -> None:
    _at(where, check_source, task.dataset, task.dataset_args)
    kind = task.task.get("kind") if isinstance(task.task, dict) else task.task
    if kind is not None:
        _at(f"{where}.task", TASKS.__getitem__, kind)
    if task.augment not in AUGMENTATIONS:
        raise unknown_name(f"augmentation at {where}.augment:", task.augment, AUGMENTATIONS)
    for name in ("epochs", "batch_size"):
        value = getattr(task, name)
        if value is not None and value < 1:
            raise ConfigError(f"{where}.{name}: must be at least 1, got {value}")


def _plugin(where: str, plugin: str | dict[str, Any]) -> dict[str, Any]:
    settings = {"kind": plugin} if isinstance(plugin, str) else plugin
    if "kind" not in settings:
        raise ConfigError(f"{where}: the settings {settings} lack 'kind', the name of the plug-in's type")
    _at(where, PLUGINS.__getitem__, settings["kind"])
    return settings


def _shots(where: str, written: int | str | list[int | str]) -> tuple[Shots, ...]:
    for shots in _listed(written):
        if shots != FULL and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
            raise ConfigError(f"{where}: expected numbers from 1 on, or {FULL!r}, got {shots!r}")
    return tuple(_listed(written))


def _backbones(entries: list[Any]) -> dict[str, dict[str, Any]]:
    """Returns the arguments of each backbone by what it is called: its name, with settings where names repeat."""
    listed = [{"name": entry, "pretrained": True} if isinstance(entry, str) else entry for entry in entries]
    for number, entry in enumerate(listed):
        if "name" not in entry:
            raise ConfigError(f"backbone[{number}]: the settings {entry} lack 'name'")
    counts = Counter(entry["name"] for entry in listed)
    found: dict[str, dict[str, Any]] = {}
    for entry in listed:
        settings = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "name")
        label = str(entry["name"]) if counts[entry["name"]] == 1 else f"{entry['name']} ({settings})"
        if label in found:
            raise ConfigError(f"backbone: {label} stands there twice")
        found[label] = entry
    return found


def _check(plan: Plan) -> None:
    for where, names in (
        ("midstream", [task.name for task in plan.midstream]),
        ("downstream", [task.name for task in plan.downstream]),
        ("methods", [method.label for method in plan.methods]),
        ("seeds", plan.seeds),
        ("shots", plan.shots),
    ):
        for name, count in Counter(names).items():
            if count > 1:
                raise ConfigError(f"{where}: {name!r} stands there {count} times; each needs a name of its own")
    for key in ("backbones", "downstream", "methods", "seeds", "shots"):
        if not getattr(plan, key):
            raise ConfigError(f"{key.removesuffix('s') if key == 'backbones' else key}: there is nothing in the list")
    labels = [method.label for method in plan.methods]
    if plan.reference not in labels:
        raise unknown_name("reference", plan.reference, labels)
    if not plan.midstream and not plan.zoo and plan.needs_zoo():
        needing = next(method.label for method in plan.methods if method.needs_modules)
        raise ConfigError(f"method {needing!r} needs modules: give midstream tasks, or a zoo of modules")
    if plan.needs_shuffled() and not plan.midstream:
        raise ConfigError("shuffled labels are a control of midstream tasks, of which there are none; leave it out")
    _check_names(plan, _module_names(plan))


def _module_names(plan: Plan) -> list[str]:
    names = [task.name for task in plan.midstream]
    for folder in plan.zoo:
        found = Zoo(folder).names()
        if not found:
            raise ConfigError(f"zoo: {folder!r} does not exist or has no modules")
        for name in found:
            if name in names:
                raise ConfigError(f"zoo: {folder!r} has a module {name!r}, and so has midstream or another zoo")
        names += found
    return names


def _check_names(plan: Plan, names: list[str]) -> None:
    asked = [(f"downstream[{n}].without", task.without) for n, task in enumerate(plan.downstream)]
    asked += [(f"method {method.label!r}", method.modules or []) for method in plan.methods]
    for where, modules in asked:
        for name in modules:
            if name not in names:
                raise unknown_name(f"module at {where}:", name, names)
    for task in plan.downstream:
        for method in plan.methods if not set(names) - set(task.without) else ():
            if method.needs_modules:
                raise ConfigError(f"method {method.label!r} needs modules, but {task.name!r} goes without all of them")


def _listed(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list) else [value]


def _at(where: str, function: Any, *arguments: Any) -> Any:
    """Calls a check; a mistake that it finds is told with its place."""
    try:
        return function(*arguments)
    except VimlightError as error:
        error.args = (f"{where}: {error}",)
        raise
