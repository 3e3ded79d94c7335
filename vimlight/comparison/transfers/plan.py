"""What a plan of transfers says, and how it is read from YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimlight.comparison.checking import at, entry, listed, nothing_twice
from vimlight.comparison.transfer import Adapted
from vimlight.errors import ConfigError, shown
from vimlight.transmiter.judging.methods import create_method, list_methods
from vimlight.transmiter.judging.methods.safe import PROMISED
from vimlight.transmiter.sources import check_tuning

__all__ = ["Transfers", "Tuned", "transfers_of"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tuned(Adapted):
    """How models and adapters are trained, under a name.

    Attributes:
        name: What the way of fine-tuning the source is called in tables.
    """

    name: str


@dataclasses.dataclass(frozen=True)
class Transfers:
    """Everything that a comparison of transfers depends on.

    Attributes:
        pools: Folder of caches to draw from, `MODEL/DATA_SET/train` and `MODEL/DATA_SET/test` in it.
        pairs: Weak and strong model of each direction.
        datasets: Names of the data sets.
        tunings: Ways of fine-tuning the source, each a comparison of its own.
        methods: Settings of the methods by name, in the order of the rows.
        shots: Labelled images of each base class.
        val_shots: Images of each base class that things are chosen on, or what the smallest class has left.
        seeds: Each draws labelled images, and parts the classes in two halves.
        title: Title of the report.
        accelerator: As in Lightning's Trainer.
        precision: As in Lightning's Trainer.
    """

    pools: str
    pairs: tuple[tuple[str, str], ...]
    datasets: tuple[str, ...]
    tunings: tuple[Tuned, ...]
    methods: Mapping[str, Mapping[str, Any]]
    shots: int
    val_shots: int
    seeds: tuple[int, ...]
    title: str
    accelerator: str
    precision: str

    @property
    def reference(self) -> str:
        """The method that others are compared with."""
        return "target_zero_shot"


@dataclasses.dataclass(frozen=True)
class _Section:
    """The keys of `transfer`."""

    pools: str
    pairs: list[list[str]]
    datasets: list[str]
    tunings: list[dict[str, Any]]
    val_shots: int = 16


@dataclasses.dataclass(frozen=True)
class _Written:
    """The outermost keys of the file, with what they are if left out."""

    transfer: dict[str, Any]
    methods: list[Any] = dataclasses.field(default_factory=list_methods)
    shots: int = 16
    seeds: int | list[int] = 0
    title: str = "Transfers to other models"
    accelerator: str = "auto"
    precision: str | int = "32-true"


def transfers_of(content: Any) -> Transfers:
    """Builds a plan from what a YAML file holds.

    Args:
        content: The file's content; it has the key `transfer`.

    Raises:
        ConfigError: If it says something that cannot be.
        UnknownNameError: If it names something that does not exist.
    """
    written = entry(_Written, content, "")
    section = entry(_Section, written.transfer, "transfer")
    plan = Transfers(
        pools=section.pools,
        pairs=tuple(_pair(number, pair) for number, pair in enumerate(section.pairs)),
        datasets=tuple(section.datasets),
        tunings=tuple(_tuned(number, tuning) for number, tuning in enumerate(section.tunings)),
        methods=_methods(written.methods),
        shots=written.shots,
        val_shots=section.val_shots,
        seeds=tuple(listed(written.seeds)),
        title=written.title,
        accelerator=written.accelerator,
        precision=str(written.precision),
    )
    _check(plan)
    return plan


def _pair(number: int, pair: list[str]) -> tuple[str, str]:
    if len(pair) != 2:
        raise ConfigError(f"transfer.pairs[{number}]: expected a weak and a strong model, got {pair}")
    return pair[0], pair[1]


def _tuned(number: int, content: Any) -> Tuned:
    where = f"transfer.tunings[{number}]"
    tuned = entry(Tuned, content, where)
    at(f"{where}.method", check_tuning, tuned.method)
    return tuned


def _methods(entries: list[Any]) -> dict[str, Mapping[str, Any]]:
    found: dict[str, Mapping[str, Any]] = {}
    for number, written in enumerate(entries):
        one = {written: {}} if isinstance(written, str) else written
        if not isinstance(one, dict) or len(one) != 1 or not isinstance(next(iter(one.values())), dict):
            raise ConfigError(
                f"methods[{number}]: a name, or one with settings, 'eft: {{alpha: 1}}', got {shown(written)}"
            )
        [(name, settings)] = one.items()
        at(f"methods[{number}]", create_method, name, settings)
        if name in found:
            raise ConfigError(f"methods: {shown(name)} stands there twice")
        found[name] = settings
    return {name: found[name] for name in [*PROMISED, *found] if name in found}


def _check(plan: Transfers) -> None:
    nothing_twice("transfer.pairs", [" to ".join(pair) for pair in plan.pairs])
    nothing_twice("transfer.datasets", plan.datasets)
    nothing_twice("transfer.tunings", [tuned.name for tuned in plan.tunings])
    nothing_twice("seeds", plan.seeds)
    for key, found in (("pairs", plan.pairs), ("datasets", plan.datasets), ("tunings", plan.tunings)):
        if not found:
            raise ConfigError(f"transfer.{key}: there is nothing in the list")
    for key in ("shots", "val_shots"):
        if getattr(plan, key) < 1:
            raise ConfigError(f"{key}: must be at least 1, got {getattr(plan, key)}")
    lacking = [name for name in PROMISED if name not in plan.methods]
    if lacking:
        raise ConfigError(f"methods: {lacking[0]!r} is missing; the promise is about {' and '.join(PROMISED)}")
    for model, dataset in ((model, dataset) for pair in plan.pairs for model in pair for dataset in plan.datasets):
        for split in ("train", "test"):
            place = Path(plan.pools, model, dataset, split)
            if not (place / "manifest.json").is_file():
                raise ConfigError(f"transfer.pools: there is no cache {str(place)!r}")
