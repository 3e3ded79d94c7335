"""What a comparison depends on: backbone, tasks, methods, shots and seeds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from vimlight.backbone import Backbone, create_backbone

__all__ = ["BOUND", "METHODS", "RANDOM", "REAL", "SHUFFLED", "VIM", "Method", "Plan", "Task", "cached_backbone"]

RANDOM, SHUFFLED, REAL = "random", "shuffled", "zoo"


@dataclasses.dataclass(frozen=True)
class Task:
    """A data set to train a module on, or to aggregate the zoo for.

    Attributes:
        name: Its name in tables, and the module's name in the zoo.
        dataset: Name of a data source.
        dataset_args: The source's arguments.
        without: Modules that saw its images and are left out of its zoo.
    """

    name: str
    dataset: str
    dataset_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    without: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Method:
    """One row of the comparison.

    Attributes:
        aggregator: Name of the aggregator, `"none"` for the bare backbone, `"bound"` for the best choice in hindsight.
        readout: What the head reads; the same for all but the row that says otherwise.
        zoo: Which zoo: the real one or a control.
        extra: Whether a fresh module is trained on the downstream images.
        steps: Gradient steps beside the closed-form head; without any, features are computed once for all runs.
        lr: Learning rate of these steps.
        settings: Settings of the aggregator.
    """

    aggregator: str
    readout: str = "grid"
    zoo: str = REAL
    extra: bool = False
    steps: int = 0
    lr: float = 0.05
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


METHODS: dict[str, Method] = {
    "linear probe, last feature": Method("none", readout="last"),
    "linear probe, all layers": Method("none"),
    "module tuned on the task alone": Method("none", extra=True, steps=12, lr=4e-3),
    "random modules": Method("ens_moe", zoo=RANDOM, steps=5),
    "shuffled midstream labels": Method("ens_moe", zoo=SHUFFLED, steps=5),
    "best single module": Method("best_single"),
    "uniform": Method("uniform"),
    "ViM, last feature": Method("ens_moe", readout="last", steps=5),
    "ViM, gates that sum to 1": Method("ens_moe", steps=5, settings={"strength": "one"}),
    "ViM (ens_moe)": Method("ens_moe", steps=5),
    "ViM with a fresh module": Method("ens_moe", extra=True, steps=12, lr=4e-3),
    "router": Method("router", steps=5),
    "K-stream features": Method("k_streams"),
    "bound: module and strength by test": Method("bound"),
}


VIM = "ViM (ens_moe)"
# No method, for it chooses on the test images: what any single module at any strength could reach at most.
BOUND = "bound: module and strength by test"


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a comparison depends on.

    Attributes:
        backbone: Arguments of `create_backbone`.
        midstream: The tasks that the zoo is trained on.
        downstream: The tasks that the methods are compared on.
        plugin: Arguments of `create_plugin`, the type as `kind`.
        methods: Names of the methods to compare, in the order of `METHODS`; ViM must be among them.
        shots: Labelled images a class, one column of the table each.
        seeds: Seeds of the few-shot samples.
        epochs: Epochs of midstream training.
        lr: Learning rate of midstream training.
        readout: What the midstream heads read.
        test_limit: Largest number of test images of a task.
        accelerator: As in Lightning's Trainer.
        precision: As in Lightning's Trainer; `"auto"` is bfloat16 where the hardware multiplies in it.
    """

    backbone: Mapping[str, Any]
    midstream: tuple[Task, ...]
    downstream: tuple[Task, ...]
    plugin: Mapping[str, Any]
    methods: tuple[str, ...] = tuple(name for name in METHODS if name != BOUND)
    shots: tuple[int, ...] = (5, 20)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 1
    lr: float = 4e-3
    readout: str = "last"
    test_limit: int | None = 600
    accelerator: str = "auto"
    precision: str = "auto"

    def create_backbone(self) -> Backbone:
        """Returns the backbone, created once in each process."""
        return cached_backbone(json.dumps(dict(self.backbone), sort_keys=True))


@lru_cache(maxsize=1)
def cached_backbone(description: str) -> Backbone:
    """Returns a backbone, created once in each process.

    Args:
        description: The arguments of `create_backbone` as JSON.
    """
    with torch.random.fork_rng():
        # Weights that are drawn rather than loaded must be the same in every process.
        torch.manual_seed(0)
        return create_backbone(**json.loads(description))
