"""Methods by name: aggregators, controls, what needs no zoo, and the bound that looks at the test images."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vimlight.aggregation import AGGREGATORS
from vimlight.errors import ConfigError, shown, unknown_name
from vimlight.training.base import check_types

__all__ = ["HINDSIGHT", "TUNED", "Method", "list_methods", "method_of"]

HINDSIGHT = "hindsight"
TUNED = ("lora_alone", "full_tuning")
ZOOS = ("trained", "random", "shuffled")
GATES, MODULE = {"epochs": 5, "lr": 0.05}, {"epochs": 12, "lr": 4e-3}
# What stands for an aggregator with other settings than its own.
PRESETS: dict[str, dict[str, Any]] = {
    "last_feature": {"how": "none", "readout": "last"},
    "module_alone": {"how": "none", "extra_module": True, **MODULE},
    "fresh_module": {"how": "ens_moe", "extra_module": True, **MODULE},
    "random": {"how": "ens_moe", "zoo": "random", **GATES},
    "shuffled": {"how": "ens_moe", "zoo": "shuffled", **GATES},
    "lora_alone": {"how": "lora_alone", **MODULE},
    "full_tuning": {"how": "full_tuning", "epochs": 12, "lr": 1e-4},
    HINDSIGHT: {"how": HINDSIGHT},
}


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        label: Its name in tables.
        how: Name of an aggregator, of a way to tune without a zoo, or `"hindsight"`.
        zoo: Which modules: `"trained"`, or the controls `"random"` and `"shuffled"`.
        modules: Names of the modules that it may use; all if left out.
        readout: What the head reads, if not what the task says.
        extra_module: Whether a fresh module is trained beside the zoo: the plan's type, or one of its own.
        shots: The numbers of shots with which it stands in the table; all of the plan's if left out.
        seeds: The seeds with which it does; all of the plan's if left out.
        epochs: Passes over the training images for what is learnt by gradient.
        steps: Largest number of steps of that, whatever the number of images.
        lr: Learning rate of that.
        start: Whether gates start from a ranking of the modules or equal; see `DownstreamModule`.
        settings: Settings of the aggregator, or of the way to tune.
    """

    label: str
    how: str
    zoo: str = "trained"
    modules: list[str] | None = None
    readout: str | None = None
    extra_module: bool | str | dict[str, Any] = False
    shots: list[int | str] | None = None
    seeds: list[int] | None = None
    epochs: int = 5
    steps: int | None = None
    lr: float = 0.05
    start: str = "ranking"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def stands_with(self, shots: int | str, seed: int) -> bool:
        """Tells whether it is compared with a number of shots and a seed."""
        return (self.shots is None or shots in self.shots) and (self.seeds is None or seed in self.seeds)

    @property
    def needs_modules(self) -> bool:
        """Whether it uses a zoo at all."""
        return self.how == HINDSIGHT or (self.how in AGGREGATORS and AGGREGATORS[self.how].needs_modules)

    def content(self) -> dict[str, Any]:
        """Returns all that its results depend on; what it is called, and where it is left out, are no part of that."""
        found = dataclasses.asdict(self)
        del found["label"], found["shots"], found["seeds"]
        return found


_OWN = tuple(field.name for field in dataclasses.fields(Method) if field.name not in ("label", "settings"))


def list_methods() -> list[str]:
    """Lists the names that a plan may give: those of the aggregators, and what else is to be compared with."""
    return sorted({*AGGREGATORS, *PRESETS})


def method_of(entry: Any) -> Method:
    """Reads an entry of a plan's methods.

    Args:
        entry: A name, or a label with settings, `{label: {how: NAME, ...}}`; without `how`, the label is the name.

    Raises:
        UnknownNameError: If there is no such method or setting.
        ConfigError: If the entry is neither, or a setting is of the wrong type.
    """
    if isinstance(entry, str):
        return _built(entry, entry, {})
    if not isinstance(entry, dict) or len(entry) != 1:
        raise ConfigError(
            f"a method is a name, or a label with settings, 'label: {{how: ens_moe}}', got {shown(entry)}"
        )
    [(label, settings)] = entry.items()
    if not isinstance(settings, dict):
        raise ConfigError(f"method {shown(label)}: expected settings, as in {{how: ens_moe}}, got {shown(settings)}")
    rest = dict(settings)
    return _built(str(label), str(rest.pop("how", label)), rest)


def _built(label: str, name: str, given: dict[str, Any]) -> Method:
    known = list_methods()
    if name not in known:
        raise unknown_name("method", name, known)
    found = {**PRESETS.get(name, {"how": name, **GATES}), **given}
    own = {key: found.pop(key) for key in _OWN if key in found}
    check_types(f"method {shown(label)}", Method.__init__, own)
    _check_settings(label, own["how"], found)
    if own.get("zoo", "trained") not in ZOOS:
        raise unknown_name(f"zoo of method {shown(label)}:", own["zoo"], ZOOS)
    return Method(label, settings=found, **own)


def _check_settings(label: str, how: str, settings: Mapping[str, Any]) -> None:
    function: Callable[..., object] = _nothing
    if how in AGGREGATORS:
        function = AGGREGATORS[how].__init__
    elif how in TUNED:
        from vimlight.comparison.tuning import SETTINGS, check_installed

        function = SETTINGS[how]
        check_installed(how)
    valid = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in settings:
        if name not in valid:
            raise unknown_name(f"setting of method {shown(label)}:", name, [*valid, *_OWN])
    check_types(f"method {shown(label)}", function, settings)


def _nothing() -> None:
    """Takes no settings."""
