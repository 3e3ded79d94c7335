"""What a plan says: backbones, tasks to train modules on, tasks to compare methods on, methods, shots and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vimlight.comparison.catalogue import Method

__all__ = ["DownstreamTask", "MidstreamTask", "Plan", "Shots", "TaskEntry"]

Shots = int | str
"""Labelled images of each class, or `"full"` for all training images of the data set's own split."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """What tasks of both stages have in common; see `ImageDataModule` for how images are read.

    Attributes:
        name: Its name in tables.
        dataset: Name of a data source.
        dataset_args: The source's arguments.
        task: Kind of task, or that as `kind` together with settings; what the data are made for if left out.
        readout: What the head reads; by default as `MidstreamModule` and `DownstreamModule` have it.
        lr: Learning rate.
        epochs: Passes over the training images.
        batch_size: Images in a batch.
        num_workers: Processes that read images.
        augment: What is done to training images.
        image_size: Side of the input, or height and width, if not the backbone's own.
        resize: How images become the input.
        background: Colour that transparent pixels lie over.
        skip_corrupt: Whether to leave out images that cannot be decoded.
    """

    name: str
    dataset: str
    dataset_args: dict[str, Any] = dataclasses.field(default_factory=dict)
    task: str | dict[str, Any] | None = None
    readout: str | None = None
    lr: float | None = None
    epochs: int | None = None
    batch_size: int | None = None
    num_workers: int = 0
    augment: str = "none"
    image_size: int | list[int] | None = None
    resize: str | None = None
    background: str = "white"
    skip_corrupt: bool = False

    def reading(self) -> dict[str, Any]:
        """Returns how images are read, as arguments of a data module."""
        names = ("num_workers", "augment", "image_size", "resize", "background", "skip_corrupt")
        return {name: getattr(self, name) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MidstreamTask(TaskEntry):
    """A task that a module is trained on; its name is the module's in the zoo.

    Attributes:
        plugin: The module's type with its settings, if not the plan's.
        weight_decay: Weight decay.
        val_fraction: Share of the images that the module's own validation takes, where the data set sets none apart.
        seed: Decides its start, and the order of its images.
        license: The licence on its card.
    """

    plugin: str | dict[str, Any] | None = None
    weight_decay: float = 0.01
    val_fraction: float = 0.1
    seed: int = 0
    license: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DownstreamTask(TaskEntry):
    """A task that methods are compared on.

    Attributes:
        without: Modules that saw its images or concepts, and are left out of its zoo.
        head: How its head is fitted; see `DownstreamModule`.
        shots: Its own shots, if not the plan's.
        test_limit: Largest number of test images.
        group: The group that it is averaged with first, where published averages are means of groups.
    """

    without: list[str] = dataclasses.field(default_factory=list)
    head: str | None = None
    shots: int | str | list[int | str] | None = None
    test_limit: int | None = None
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a comparison depends on.

    Attributes:
        backbones: Arguments of `create_backbone` by what each backbone is called in tables.
        midstream: The tasks that modules are trained on.
        downstream: The tasks that methods are compared on.
        methods: The methods, in the order of the table's rows.
        plugin: Arguments of `create_plugin`, the type as `kind`.
        zoo: Directories of modules that exist already.
        shots: Numbers of shots, for tasks that have none of their own.
        seeds: Seeds of the few-shot samples.
        reference: Label of the method that all others are compared with.
        title: Title of the report.
        accelerator: As in Lightning's Trainer.
        precision: As in Lightning's Trainer; `"auto"` is bfloat16 where the hardware multiplies in it.
        prefix_cache: Arguments of `PrefixCache`, to compute what comes before the first plug-in once for each image;
            by default it lies in the results' folder.
    """

    backbones: Mapping[str, dict[str, Any]]
    midstream: tuple[MidstreamTask, ...]
    downstream: tuple[DownstreamTask, ...]
    methods: tuple[Method, ...]
    plugin: dict[str, Any]
    zoo: tuple[str, ...]
    shots: tuple[Shots, ...]
    seeds: tuple[int, ...]
    reference: str
    title: str
    accelerator: str
    precision: str
    prefix_cache: dict[str, Any] | None = None

    def shots_of(self, task: DownstreamTask) -> tuple[Shots, ...]:
        """Returns the numbers of shots of a task: its own, or the plan's."""
        if task.shots is None:
            return self.shots
        return tuple(task.shots) if isinstance(task.shots, list) else (task.shots,)

    def plugin_of(self, task: MidstreamTask) -> dict[str, Any]:
        """Returns the plug-in of a midstream task: its own, or the plan's."""
        if task.plugin is None:
            return self.plugin
        return {"kind": task.plugin} if isinstance(task.plugin, str) else task.plugin

    def needs_shuffled(self) -> bool:
        """Tells whether a method needs modules that were trained on shuffled labels."""
        return any(method.zoo == "shuffled" for method in self.methods)

    def needs_zoo(self) -> bool:
        """Tells whether a method needs modules."""
        return any(method.needs_modules for method in self.methods)
