"""What a run is, in a few words of its config: for names, groups and tags of dashboards, and for tables of runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

__all__ = ["Facts", "facts_of"]

# What says, of a source's arguments, which of its data sets is meant; of paths, the last part does.
_NAMING = ("task", "name", "dataset")
_PLACES = ("path", "root")


@dataclass(frozen=True)
class Facts:
    """A run in a few words; empty where the config says nothing of the kind.

    Attributes:
        stage: What is trained, such as `"downstream"`.
        method: How: the plug-in's or the aggregator's name.
        module: Name of the module that it makes.
        backbone: Name of the backbone.
        dataset: Name of the data set.
        shots: Labelled images a class.
        seed: Seed of the training.
    """

    stage: str
    method: str
    module: str
    backbone: str
    dataset: str
    shots: int | None
    seed: int | None

    @property
    def group(self) -> str:
        """What runs have in common that differ in their seed alone."""
        shots = "" if self.shots is None else f"{self.shots}-shot"
        return " ".join(filter(None, [self.module, self.method or self.stage, self.dataset, shots]))

    @property
    def name(self) -> str:
        """The run's name: its group and seed; empty where there is no config."""
        return f"{self.group}, seed {self.seed}" if self.group and self.seed is not None else self.group

    @property
    def parts(self) -> dict[str, str]:
        """What is known, by its name, and the group."""
        found = {"group": self.group, **dataclasses.asdict(self)}
        return {name: str(value) for name, value in found.items() if value not in ("", None)}

    @property
    def tags(self) -> list[str]:
        """What one may look for among many runs."""
        shots = None if self.shots is None else f"{self.shots}-shot"
        found = [self.stage, self.method, self.backbone, self.dataset, shots]
        # W&B takes no longer ones.
        return list(dict.fromkeys(tag[:64] for tag in found if tag))


def facts_of(config: Mapping[str, Any]) -> Facts:
    """Returns what a config of `vimlight fit` says of its run.

    Args:
        config: The config; whatever is missing in it or of another type says nothing.
    """
    model, data = (_part(config, key) for key in ("model", "data"))
    settings, arguments = (_part(part, "init_args") for part in (model, data))
    return Facts(
        stage=_text(model.get("class_path")).rpartition(".")[2].removesuffix("Module").lower(),
        method=_named(settings.get("plugin"), "kind") or _named(settings.get("aggregator"), "how"),
        module=_text(settings.get("name")),
        backbone=_named(settings.get("backbone"), "name"),
        dataset=_dataset(arguments),
        shots=_whole(arguments.get("shots")),
        seed=_whole(config.get("seed_everything")),
    )


def _dataset(arguments: Mapping[str, Any]) -> str:
    name, more = _text(arguments.get("dataset")), _part(arguments, "dataset_args")
    which = next((_text(more[key]) for key in _NAMING if more.get(key)), "")
    which = which or next((PurePath(_text(more[key])).stem for key in _PLACES if more.get(key)), "")
    # Caches of logits are named by their directories.
    caches = arguments.get("train")
    return "/".join(filter(None, [name, which])) or _text(caches)


def _part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = content.get(key)
    return found if isinstance(found, Mapping) else {}


def _named(value: Any, key: str) -> str:
    return _text(value.get(key)) if isinstance(value, Mapping) else _text(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
