"""The jobs of a plan, and what each of them depends on."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from vimlight.comparison.catalogue import Method
from vimlight.comparison.entries import DownstreamTask, MidstreamTask, Plan, Shots
from vimlight.comparison.fingerprints import data_fingerprint, open_backbone
from vimlight.comparison.standings import Record
from vimlight.comparison.store import Store, key_of
from vimlight.errors import FingerprintError
from vimlight.zoo import Zoo

__all__ = ["Fit", "Group", "ModuleJob", "Study"]

_RESULT = ("kind", "metric", "mode", "value", "parameters", "flops", "seconds", "modules", "scores", "gates")
TRAINED, RANDOM, SHUFFLED = "trained", "random", "shuffled"


@dataclasses.dataclass(frozen=True)
class ModuleJob:
    """A module that is to be trained.

    Attributes:
        backbone: What the backbone is called.
        task: The task.
        zoo: `"trained"`, or `"shuffled"` for the control.
    """

    backbone: str
    task: MidstreamTask
    zoo: str

    def __str__(self) -> str:
        return f"{self.task.name}{', shuffled' if self.zoo == SHUFFLED else ''} on {self.backbone}"


@dataclasses.dataclass(frozen=True)
class Group:
    """What methods share: one task on one backbone, with the same labelled images.

    Attributes:
        backbone: What the backbone is called.
        task: The task.
        shots: Labelled images a class, or `"full"`.
        seed: Seed of the sample.
    """

    backbone: str
    task: DownstreamTask
    shots: Shots
    seed: int

    @property
    def about(self) -> str:
        """What is shared by samples of one task on one backbone: the features of its images."""
        return f"{self.task.name} on {self.backbone}"

    def __str__(self) -> str:
        shots = "all labels" if self.shots == "full" else f"{self.shots} shots"
        return f"{self.task.name}, {shots}, seed {self.seed}, on {self.backbone}"


@dataclasses.dataclass(frozen=True)
class Fit:
    """A method that is to be fitted and tested.

    Attributes:
        group: On what.
        method: The method.
        key: Key of its result; empty as long as modules that it depends on are not there.
    """

    group: Group
    method: Method
    key: str

    @property
    def label(self) -> str:
        """What it is called within its group."""
        return self.method.label

    def __str__(self) -> str:
        return f"{self.label}: {self.group}"


@dataclasses.dataclass(frozen=True)
class Study:
    """A plan in a folder, with what was found out about its data and backbones; it travels to other processes.

    Attributes:
        plan: The plan.
        folder: Where everything goes.
        fingerprints: Fingerprint of each backbone by what it is called.
        data: Fingerprint of the data of each task, by stage and name.
    """

    plan: Plan
    folder: Path
    fingerprints: Mapping[str, str]
    data: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, plan: Plan, folder: Path, *, download: bool = True) -> Study:
        """Opens backbones and data.

        Args:
            plan: The plan.
            folder: Where everything goes.
            download: Whether data that can be downloaded may be; if not, what is not there yet counts as other data.

        Raises:
            BackboneError: If a backbone cannot be had.
            DataError: If data are missing or malformed.
        """
        stages = {"midstream": plan.midstream, "downstream": plan.downstream}
        data = {
            (stage, task.name): data_fingerprint(task, download) for stage, tasks in stages.items() for task in tasks
        }
        fingerprints = {label: open_backbone(arguments).fingerprint for label, arguments in plan.backbones.items()}
        study = cls(plan, folder, fingerprints, data)
        for label in plan.backbones:
            study.check_adopted(label)
        return study

    @cached_property
    def results(self) -> Store:
        """The results of fits."""
        return Store(self.folder / "results")

    @cached_property
    def modules(self) -> Store:
        """What is known of modules that were trained or made."""
        return Store(self.folder / "modules")

    @property
    def prefix_cache(self) -> dict[str, Any] | None:
        """Arguments of `PrefixCache`, where the plan asks for one."""
        asked = self.plan.prefix_cache
        return None if asked is None else {"dir": str(self.folder / "prefix"), **asked}

    @property
    def _arithmetic(self) -> dict[str, Any]:
        kept = {name: value for name, value in (self.prefix_cache or {}).items() if name not in ("dir", "max_gb")}
        return {"precision": self.plan.precision, "prefix_cache": None if self.prefix_cache is None else kept}

    def zoo(self, backbone: str, kind: str) -> Zoo:
        """Returns the zoo of a backbone: `"trained"`, `"random"` or `"shuffled"`."""
        name = re.sub(r"[^\w.-]+", "-", self.plan.backbones[backbone]["name"])
        return Zoo(self.folder / "zoo" / f"{name}-{self.fingerprints[backbone][:8]}" / kind)

    def module_jobs(self) -> list[ModuleJob]:
        """Lists the modules that are to be trained, those of methods that nobody asked for left out."""
        zoos = ([TRAINED] if self.plan.needs_zoo() else []) + ([SHUFFLED] if self.plan.needs_shuffled() else [])
        return [
            ModuleJob(backbone, task, zoo)
            for backbone in self.plan.backbones
            for zoo in zoos
            for task in self.plan.midstream
        ]

    def module_key(self, job: ModuleJob) -> str:
        """Returns the key of a module."""
        entry = dataclasses.asdict(job.task)
        del entry["name"], entry["license"], entry["num_workers"]
        return key_of({
            "backbone": self.fingerprints[job.backbone],
            "data": self.data["midstream", job.task.name],
            "entry": {**entry, "plugin": self.plan.plugin_of(job.task)},
            "zoo": job.zoo,
            **self._arithmetic,
        })  # fmt: skip

    def hash_of(self, job: ModuleJob) -> str | None:
        """Returns the hash of a module's tensors, or nothing if it is still to be trained."""
        return self.made(self.module_key(job), self.zoo(job.backbone, job.zoo), job.task.name)

    def made(self, key: str, zoo: Zoo, name: str) -> str | None:
        """Returns the hash of a module that was made under a key, if it is the one that the zoo holds.

        Args:
            key: The key.
            zoo: The zoo.
            name: The module's name.
        """
        known = self.modules.read(key)
        if known is None or name not in zoo or zoo.card(name).sha256 != known["sha256"]:
            return None
        return str(known["sha256"])

    def adopted(self, backbone: str) -> dict[str, tuple[str, Zoo]]:
        """Returns hash and zoo of the modules that exist already and belong to a backbone, by name."""
        found = {}
        for zoo in map(Zoo, self.plan.zoo):
            for name in zoo.names():
                card = zoo.card(name)
                if card.fingerprint == self.fingerprints[backbone]:
                    found[name] = (card.sha256, zoo)
        return found

    def check_adopted(self, backbone: str) -> None:
        """Checks that directories of modules hold some for a backbone.

        Raises:
            FingerprintError: If they hold none.
        """
        if self.plan.zoo and not self.adopted(backbone) and not self.plan.midstream:
            name = next(zoo.names()[0] for zoo in map(Zoo, self.plan.zoo))
            raise FingerprintError(
                f"zoo: none of the modules in {', '.join(self.plan.zoo)} was trained on backbone {backbone!r}, such as "
                f"{name!r}; give the backbone's settings as they were then, or midstream tasks"
            )

    def hashes(self, backbone: str, zoo: str) -> dict[str, str | None]:
        """Returns what tells a backbone's modules from others, by name; nothing for one that is still to be trained."""
        if zoo == RANDOM:
            return self.twins(backbone)
        found: dict[str, str | None] = {}
        if zoo == TRAINED:
            found.update({name: sha256 for name, (sha256, _) in self.adopted(backbone).items()})
        for task in self.plan.midstream:
            found[task.name] = self.hash_of(ModuleJob(backbone, task, zoo))
        return dict(sorted(found.items()))

    def twins(self, backbone: str) -> dict[str, str | None]:
        """Returns what the random twins of a backbone's modules are made from: their hashes, and their numbers."""
        hashes = self.hashes(backbone, TRAINED)
        return {name: sha256 and f"twin {n} of {sha256}" for n, (name, sha256) in enumerate(hashes.items())}

    def groups(self, shard: tuple[int, int] = (1, 1)) -> list[Group]:
        """Lists what methods are compared on.

        Args:
            shard: Which of how many equal shares, counted from 1.
        """
        found = [
            Group(backbone, task, shots, seed)
            for backbone in self.plan.backbones
            for task in self.plan.downstream
            for shots in self.plan.shots_of(task)
            for seed in self.plan.seeds
        ]
        return found[shard[0] - 1 :: shard[1]]

    def fits(self, groups: list[Group]) -> list[Fit]:
        """Lists the fits of some groups, with the keys of their results."""
        zoos = {
            (backbone, zoo): self.hashes(backbone, zoo)
            for backbone in {group.backbone for group in groups}
            for zoo in {method.zoo for method in self.plan.methods if method.needs_modules}
        }
        return [
            Fit(group, method, self._fit_key(group, method, zoos.get((group.backbone, method.zoo), {})))
            for group in groups
            for method in self.plan.methods
            if method.stands_with(group.shots, group.seed)
        ]

    def jobs(self, shard: tuple[int, int] = (1, 1)) -> list[Fit]:
        """Lists the fits of a shard.

        Args:
            shard: Which of how many equal shares, counted from 1.
        """
        return self.fits(self.groups(shard))

    def records(self, fit: Any) -> list[Record]:
        """Returns the result of a fit under the names that the plan has now, or nothing if there is none.

        Args:
            fit: A fit of this study.
        """
        found = self.results.read(fit.key) if fit.key else None
        if found is None:
            return []
        group = fit.group
        about = {
            "backbone": group.backbone,
            "task": group.task.name,
            "group": group.task.group,
            "method": fit.method.label,
            "shots": group.shots,
            "seed": group.seed,
        }
        return [{**about, **{name: found[name] for name in _RESULT}}]

    def _fit_key(self, group: Group, method: Method, hashes: Mapping[str, str | None]) -> str:
        used = {name: hashes[name] for name in names_for(group.task, method, hashes)}
        if None in used.values():
            return ""
        entry = dataclasses.asdict(group.task)
        for name in ("name", "without", "shots", "num_workers", "group"):
            del entry[name]
        return key_of({
            "backbone": self.fingerprints[group.backbone],
            "data": self.data["downstream", group.task.name],
            "entry": entry,
            "method": method.content(),
            "plugin": self.plan.plugin if method.extra_module is True else None,
            "modules": used,
            "shots": group.shots,
            "seed": group.seed,
            **self._arithmetic,
        })  # fmt: skip


def names_for(task: DownstreamTask, method: Method, known: Mapping[str, Any]) -> list[str]:
    """Returns which modules a method uses for a task, of those that there are.

    Args:
        task: The task.
        method: The method.
        known: The modules by name.
    """
    if not method.needs_modules:
        return []
    allowed = known if method.modules is None else method.modules
    return [name for name in known if name in allowed and name not in task.without]
