"""The jobs of a plan of transfers, what each of them depends on, and the records of their results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from vimlight.comparison.standings import Record
from vimlight.comparison.store import Store, key_of
from vimlight.comparison.transfers.plan import Transfers, Tuned
from vimlight.transmiter import LogitCache
from vimlight.transmiter.judging.methods import METHODS

__all__ = ["SHOWN", "Move", "Place", "TransferStudy"]

SHOWN = ("harmonic", "base", "novel", "all")
"""The accuracies that have tables: of the two halves, each among its own classes, and of all images among all."""


@dataclasses.dataclass(frozen=True)
class Place:
    """What is moved, and where.

    Attributes:
        weak: The source.
        strong: The target.
        dataset: The data set.
        tuned: How the source is fine-tuned, and everything else trained.
        seed: The seed.
    """

    weak: str
    strong: str
    dataset: str
    tuned: Tuned
    seed: int

    @property
    def direction(self) -> str:
        """The models, and how the source is tuned."""
        return f"{self.weak} to {self.strong}, {self.tuned.name}"

    @property
    def about(self) -> str:
        """What seeds share."""
        return f"{self.dataset}, {self.direction}"

    def __str__(self) -> str:
        return f"{self.dataset}, seed {self.seed}, {self.direction}"


@dataclasses.dataclass(frozen=True)
class Move:
    """A transfer that is to be made and judged, by all methods.

    Attributes:
        group: What, and where.
        key: Key of its result.
    """

    group: Place
    key: str

    @property
    def label(self) -> str:
        """What it is called within its group."""
        return "all methods"

    def __str__(self) -> str:
        return str(self.group)


@dataclasses.dataclass(frozen=True)
class TransferStudy:
    """A plan of transfers in a folder; it travels to other processes.

    Attributes:
        plan: The plan.
        folder: Where everything goes.
        hashes: Hashes of the pools' caches, by model and data set.
    """

    plan: Transfers
    folder: Path
    hashes: Mapping[tuple[str, str], str]

    @classmethod
    def of(cls, plan: Transfers, folder: Path) -> TransferStudy:
        """Opens the pools.

        Args:
            plan: The plan.
            folder: Where everything goes.

        Raises:
            CacheError: If a pool's cache is not whole.
        """
        names = {(model, dataset) for pair in plan.pairs for model in pair for dataset in plan.datasets}
        opened = {
            name: [LogitCache.open(Path(plan.pools, *name, split)).hash for split in ("train", "test")]
            for name in sorted(names)
        }
        return cls(plan, folder, {name: " ".join(hashes) for name, hashes in opened.items()})

    @cached_property
    def results(self) -> Store:
        """The results of transfers."""
        return Store(self.folder / "results")

    def jobs(self, shard: tuple[int, int] = (1, 1)) -> list[Move]:
        """Lists the transfers of a shard, with the keys of their results.

        Args:
            shard: Which of how many equal shares, counted from 1.
        """
        found = [
            Place(weak, strong, dataset, tuned, seed)
            for weak, strong in self.plan.pairs
            for tuned in self.plan.tunings
            for dataset in self.plan.datasets
            for seed in self.plan.seeds
        ]
        return [Move(group, self._key(group)) for group in found[shard[0] - 1 :: shard[1]]]

    def _key(self, group: Place) -> str:
        tuned = dataclasses.asdict(group.tuned)
        del tuned["name"]
        return key_of({
            "weak": self.hashes[group.weak, group.dataset],
            "strong": self.hashes[group.strong, group.dataset],
            "tuned": tuned,
            "methods": json.dumps(self.plan.methods, sort_keys=True),
            "shots": [self.plan.shots, self.plan.val_shots],
            "seed": group.seed,
            "precision": self.plan.precision,
        })  # fmt: skip

    def found(self) -> list[tuple[Place, Mapping[str, Any]]]:
        """Returns every result that there is, in the order of the plan."""
        read = [(move.group, self.results.read(move.key)) for move in self.jobs()]
        return [(group, result) for group, result in read if result is not None]

    def records(self, move: Any) -> list[Record]:
        """Returns a record for each method and accuracy of a result, or nothing if there is none.

        Args:
            move: A transfer of this study.
        """
        result, group = self.results.read(move.key), move.group
        if result is None:
            return []
        return [
            {
                "backbone": f"{group.direction}: {accuracy}",
                "task": group.dataset,
                "group": "",
                "method": METHODS[name].title,
                "shots": self.plan.shots,
                "seed": group.seed,
                "kind": "transfer",
                "metric": "accuracy",
                "mode": "max",
                "value": found["accuracies"][accuracy],
                "parameters": found["parameters"],
                "flops": None,
                "seconds": found["seconds"],
                "modules": [],
                "scores": found["accuracies"],
                "gates": None,
            }
            for accuracy in SHOWN
            for name, found in result["methods"].items()
        ]
