"""Reads a plan from YAML; every mistake is found before any work starts, and named by its place in the file."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from vimlight.comparison.catalogue import method_of
from vimlight.comparison.checking import at, entry, listed, nothing_twice
from vimlight.comparison.entries import DownstreamTask, MidstreamTask, Plan, Shots
from vimlight.comparison.transfers.plan import Transfers, transfers_of
from vimlight.data.sources import check_source
from vimlight.data.transforms import AUGMENTATIONS
from vimlight.errors import ConfigError, VimlightError, shown, unknown_name
from vimlight.files.absent import absence
from vimlight.files.text import read_text
from vimlight.files.yaml_text import yaml_of
from vimlight.plugins import PLUGINS
from vimlight.prefix_cache import PrefixCache
from vimlight.tasks import TASKS
from vimlight.trust import guard_parsers
from vimlight.zoo import Zoo

__all__ = ["plan_of", "read_any", "read_plan"]

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
    prefix_cache: dict[str, Any] | None = None


def read_plan(path: str | Path) -> Plan:
    """Reads a plan of methods on tasks.

    Args:
        path: The YAML file.

    Raises:
        ConfigError: If it does not exist, is no YAML, or says something that cannot be.
        UnknownNameError: If it names something that does not exist.
    """
    return _read(path, plan_of)


def read_any(path: str | Path) -> Plan | Transfers:
    """Reads a plan of either kind; one of transfers has the key `transfer`. See `read_plan`."""
    return _read(path, lambda content: transfers_of(content) if "transfer" in (content or ()) else plan_of(content))


def _read(path: str | Path, build: Callable[[Any], T]) -> T:
    guard_parsers()
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"plan {str(file)!r} {absence(file, pattern='*.y*ml')}")
    content = yaml_of(read_text(file, ConfigError), file.name, ConfigError)
    try:
        return build(content)
    except VimlightError as error:
        error.args = (f"{file.name}: {error}",)
        raise


def plan_of(content: Any) -> Plan:
    """Builds a plan from what a YAML file holds; see `read_plan`."""
    written = entry(_Written, content, "")
    midstream = tuple(_midstream(n, one) for n, one in enumerate(written.midstream or ()))
    plan = Plan(
        backbones=_backbones(listed(written.backbone)),
        midstream=midstream,
        downstream=tuple(_downstream(n, one) for n, one in enumerate(written.downstream)),
        methods=tuple(at(f"methods[{n}]", method_of, one) for n, one in enumerate(written.methods)),
        plugin=_plugin("plugin", written.plugin),
        zoo=tuple(listed(written.zoo)),
        shots=_shots("shots", written.shots),
        seeds=tuple(listed(written.seeds)),
        reference=written.reference,
        title=written.title,
        accelerator=written.accelerator,
        precision=str(written.precision),
        prefix_cache=written.prefix_cache,
    )
    if plan.prefix_cache is not None:
        at("prefix_cache", PrefixCache.of, {"dir": "", **plan.prefix_cache})
    _check(plan)
    return plan


def _midstream(number: int, content: Any) -> MidstreamTask:
    where = f"midstream[{number}]"
    task = entry(MidstreamTask, content, where)
    _check_task(where, task)
    if task.plugin is not None:
        _plugin(f"{where}.plugin", task.plugin)
    at(f"{where}.name", Zoo("").check_new, task.name)
    return task


def _downstream(number: int, content: Any) -> DownstreamTask:
    where = f"downstream[{number}]"
    task = entry(DownstreamTask, content, where)
    _check_task(where, task)
    if task.shots is not None:
        _shots(f"{where}.shots", task.shots)
    return task


def _check_task(where: str, task: MidstreamTask | DownstreamTask) -> None:
    at(where, check_source, task.dataset, task.dataset_args)
    kind = task.task.get("kind") if isinstance(task.task, dict) else task.task
    if kind is not None:
        at(f"{where}.task", TASKS.__getitem__, kind)
    if task.augment not in AUGMENTATIONS:
        raise unknown_name(f"augmentation at {where}.augment:", task.augment, AUGMENTATIONS)
    for name in ("epochs", "batch_size"):
        value = getattr(task, name)
        if value is not None and value < 1:
            raise ConfigError(f"{where}.{name}: must be at least 1, got {value}")


def _plugin(where: str, plugin: str | dict[str, Any]) -> dict[str, Any]:
    settings = {"kind": plugin} if isinstance(plugin, str) else plugin
    if "kind" not in settings:
        raise ConfigError(f"{where}: the settings {shown(settings)} lack 'kind', the name of the plug-in's type")
    at(where, PLUGINS.__getitem__, settings["kind"])
    return settings


def _shots(where: str, written: int | str | list[int | str]) -> tuple[Shots, ...]:
    for shots in listed(written):
        if shots != FULL and (not isinstance(shots, int) or isinstance(shots, bool) or shots < 1):
            raise ConfigError(f"{where}: expected numbers from 1 on, or {FULL!r}, got {shown(shots)}")
    return tuple(listed(written))


def _backbones(entries: list[Any]) -> dict[str, dict[str, Any]]:
    """Returns the arguments of each backbone by what it is called: its name, with settings where names repeat."""
    written = [{"name": one, "pretrained": True} if isinstance(one, str) else one for one in entries]
    for number, one in enumerate(written):
        if "name" not in one:
            raise ConfigError(f"backbone[{number}]: the settings {one} lack 'name'")
    counts = Counter(one["name"] for one in written)
    found: dict[str, dict[str, Any]] = {}
    for one in written:
        settings = ", ".join(f"{key} {value}" for key, value in one.items() if key != "name")
        label = str(one["name"]) if counts[one["name"]] == 1 else f"{one['name']} ({settings})"
        if label in found:
            raise ConfigError(f"backbone: {label} stands there twice")
        found[label] = one
    return found


def _check(plan: Plan) -> None:
    for method in plan.methods:
        if method.shots is not None:
            _shots(f"method {shown(method.label)}: shots", method.shots)
    for where, names in (
        ("midstream", [task.name for task in plan.midstream]),
        ("downstream", [task.name for task in plan.downstream]),
        ("methods", [method.label for method in plan.methods]),
        ("seeds", plan.seeds),
        ("shots", plan.shots),
    ):
        nothing_twice(where, names)
    for key in ("backbones", "downstream", "methods", "seeds", "shots"):
        if not getattr(plan, key):
            raise ConfigError(f"{key.removesuffix('s') if key == 'backbones' else key}: there is nothing in the list")
    labels = [method.label for method in plan.methods]
    if plan.reference not in labels:
        raise unknown_name("reference", plan.reference, labels)
    if not plan.midstream and not plan.zoo and plan.needs_zoo():
        needing = next(method.label for method in plan.methods if method.needs_modules)
        raise ConfigError(f"method {shown(needing)} needs modules: give midstream tasks, or a zoo of modules")
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
                raise ConfigError(
                    f"zoo: {folder!r} has a module {shown(name)}, and so has midstream or another zoo"
                )
        names += found
    return names


def _check_names(plan: Plan, names: list[str]) -> None:
    asked = [(f"downstream[{n}].without", task.without) for n, task in enumerate(plan.downstream)]
    asked += [(f"method {shown(method.label)}", method.modules or []) for method in plan.methods]
    for where, modules in asked:
        for name in modules:
            if name not in names:
                raise unknown_name(f"module at {where}:", name, names)
    for task in plan.downstream:
        for method in plan.methods if not set(names) - set(task.without) else ():
            if method.needs_modules:
                raise ConfigError(
                    f"method {shown(method.label)} needs modules, but {shown(task.name)} goes without all of them"
                )
