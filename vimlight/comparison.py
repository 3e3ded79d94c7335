"""The honest comparison: a zoo trained on midstream tasks against every simpler way, at equal readout and equal head.

A `Plan` says which backbone, which midstream and downstream tasks, how many shots and seeds. `train_zoo` trains the zoo
and its controls, `compare` fits every method on every downstream task, and both go through the same `MidstreamModule`
and `DownstreamModule` that a user trains with. Nothing is chosen on test images.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from vimlight.backbone import Backbone, create_backbone
from vimlight.data import DownstreamDataModule, MidstreamDataModule, Source
from vimlight.downstream import DownstreamModule
from vimlight.midstream import MidstreamModule
from vimlight.plugins import Plugin
from vimlight.report import MethodFacts, ResultsTable, summarise
from vimlight.zoo import Zoo

__all__ = ["METHODS", "Method", "Plan", "Task", "compare", "train_zoo"]

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
        aggregator: Name of the aggregator, `"none"` for the bare backbone.
        readout: What the head reads.
        zoo: Which zoo: the real one or a control.
        extra: Whether a fresh module is trained on the downstream images.
        learns: Whether anything but the closed-form head takes gradient steps.
    """

    aggregator: str
    readout: str = "layers"
    zoo: str = REAL
    extra: bool = False
    learns: bool = False


METHODS: dict[str, Method] = {
    "linear probe, last feature": Method("none", readout="last"),
    "linear probe, all layers": Method("none"),
    "module tuned on the task alone": Method("none", extra=True, learns=True),
    "random modules": Method("ens_moe", zoo=RANDOM, learns=True),
    "shuffled midstream labels": Method("ens_moe", zoo=SHUFFLED, learns=True),
    "best single module": Method("best_single"),
    "uniform": Method("uniform"),
    "ViM (ens_moe)": Method("ens_moe", learns=True),
    "router": Method("router", learns=True),
    "K-stream features": Method("k_streams"),
}


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything that a comparison depends on.

    Attributes:
        backbone: Arguments of `create_backbone`.
        midstream: The tasks that the zoo is trained on.
        downstream: The tasks that the methods are compared on.
        plugin: Arguments of `create_plugin`, the type as `kind`.
        shots: Labelled images a class, one column of the table each.
        seeds: Seeds of the few-shot samples.
        epochs: Epochs of midstream training.
        lr: Learning rate of midstream training.
        steps: Gradient steps of whatever learns downstream.
        test_limit: Largest number of test images of a task.
        devices: What Lightning calls `accelerator`.
    """

    backbone: Mapping[str, Any]
    midstream: tuple[Task, ...]
    downstream: tuple[Task, ...]
    plugin: Mapping[str, Any]
    shots: tuple[int, ...] = (5, 20)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 2
    lr: float = 4e-3
    steps: int = 10
    test_limit: int | None = 600
    accelerator: str = "auto"

    def create_backbone(self) -> Backbone:
        """Creates the backbone."""
        return create_backbone(**self.backbone)


def train_zoo(plan: Plan, backbone: Backbone, folder: Path) -> dict[str, Zoo]:
    """Trains the modules and their controls; those that exist already are kept, so that a broken run goes on.

    Args:
        plan: The plan.
        backbone: Its backbone.
        folder: Where the three zoos are kept.

    Returns:
        The zoo, the zoo trained on shuffled labels, and the zoo of random modules.
    """
    zoos = {kind: Zoo(folder / kind) for kind in (REAL, SHUFFLED, RANDOM)}
    with _progress() as progress:
        bar = progress.add_task("midstream", total=2 * len(plan.midstream) * plan.epochs)
        for kind in (REAL, SHUFFLED):
            for task in plan.midstream:
                progress.update(bar, description=f"midstream: {task.name}" + (", shuffled" if kind == SHUFFLED else ""))
                if task.name not in zoos[kind]:
                    _train_module(plan, backbone, zoos[kind], task, shuffled=kind == SHUFFLED)
                progress.advance(bar, plan.epochs)
    for number, name in enumerate(zoos[REAL].names()):
        if name not in zoos[RANDOM]:
            zoos[RANDOM].add(name, random_like(zoos[REAL].load(name, backbone), seed=number))
    return zoos


def compare(
    plan: Plan, backbone: Backbone, zoos: Mapping[str, Zoo]
) -> tuple[ResultsTable, dict[str, DownstreamModule]]:
    """Fits every method on every downstream task, for all shots and seeds.

    Args:
        plan: The plan.
        backbone: Its backbone.
        zoos: The zoos by kind, as `train_zoo` returns them.

    Returns:
        Test accuracies, and the last ViM model of each task, for its gates.
    """
    records: list[dict[str, Any]] = []
    facts: dict[str, MethodFacts] = {}
    models: dict[str, DownstreamModule] = {}
    runs = [(task, shots, seed) for task in plan.downstream for shots in plan.shots for seed in plan.seeds]
    with _progress() as progress:
        bar = progress.add_task("downstream", total=len(runs) * len(METHODS))
        for task, shots, seed in runs:
            data = _downstream_data(plan, backbone, task, shots, seed)
            for name, method in METHODS.items():
                progress.update(bar, description=f"{task.name}, {shots} shots, seed {seed}: {name}")
                model = _fit(plan, backbone, zoos[method.zoo], task, data, method)
                records.append({
                    "method": name, "task": task.name, "shots": shots, "seed": seed,
                    "metric": "accuracy", "value": _test(plan, model, data),
                })  # fmt: skip
                facts.setdefault(name, _facts(model, backbone))
                if name == "ViM (ens_moe)":
                    models[task.name] = model
                progress.advance(bar)
    return summarise(records, facts), models


def random_like(plugin: Plugin, seed: int) -> Plugin:
    """Returns a module of the same shape with random weights.

    Each tensor is normal, with the root mean square of the trained one.

    Args:
        plugin: The trained module.
        seed: Decides the weights.
    """
    generator = torch.Generator().manual_seed(seed)
    twin = Plugin(
        plugin.kind, plugin.sites, plugin.settings, plugin.fingerprint, plugin.backbone_name, plugin.preprocessing
    )
    with torch.no_grad():
        for random, trained in zip(twin.parameters(), plugin.parameters(), strict=True):
            random.copy_(torch.randn(trained.shape, generator=generator) * trained.square().mean().sqrt().cpu())
    return twin


class ShuffledLabels(MidstreamDataModule):
    """A midstream data set whose training labels are dealt out at random: the control for what labels teach."""

    @cached_property
    def source(self) -> Source:
        """The data set with shuffled labels."""
        source = super().source
        order = torch.randperm(len(source.train), generator=torch.Generator().manual_seed(self.seed))
        train = copy.copy(source.train)
        train.targets = source.train.targets[order]
        return dataclasses.replace(source, train=train)


def _train_module(plan: Plan, backbone: Backbone, zoo: Zoo, task: Task, *, shuffled: bool) -> None:
    kind = ShuffledLabels if shuffled else MidstreamDataModule
    data = kind(task.dataset, dict(task.dataset_args), batch_size=64, seed=0)
    pl.seed_everything(0, verbose=False)
    model = MidstreamModule(
        backbone,
        dict(plan.plugin),
        name=task.name,
        zoo=str(zoo.path),
        kind=data.kind,
        class_names=data.class_names,
        optimizer=partial(AdamW, lr=plan.lr, weight_decay=0.01),
        card={"license": "apache-2.0", "text": "shuffled labels: a control" if shuffled else ""},
    )
    with _quiet():
        _trainer(plan, plan.epochs, limit_val_batches=1.0).fit(model, datamodule=data)


def _downstream_data(plan: Plan, backbone: Backbone, task: Task, shots: int, seed: int) -> DownstreamDataModule:
    return DownstreamDataModule(
        task.dataset,
        dict(task.dataset_args),
        shots=shots,
        # Everything is chosen by leaving one out of the training images; validation images stay unused.
        val_shots=1,
        seed=seed,
        batch_size=1024,
        test_limit=plan.test_limit,
        preprocessing=backbone.preprocessing,
    )


def _fit(
    plan: Plan, backbone: Backbone, zoo: Zoo, task: Task, data: DownstreamDataModule, method: Method
) -> DownstreamModule:
    pl.seed_everything(data.seed, verbose=False)
    model = DownstreamModule(
        backbone,
        zoo=str(zoo.path),
        modules=[name for name in zoo.names() if name not in task.without] if method.aggregator != "none" else [],
        aggregator=method.aggregator,
        readout=method.readout,
        extra_module=dict(plan.plugin) if method.extra else None,
        kind=data.kind,
        class_names=data.class_names,
    )
    with _quiet():
        _trainer(plan, plan.steps if method.learns else 1, limit_val_batches=0).fit(model, datamodule=data)
    return model


def _test(plan: Plan, model: DownstreamModule, data: DownstreamDataModule) -> float:
    with _quiet():
        results = _trainer(plan, 1).test(model, datamodule=data, verbose=False)
    return float(results[0]["test/accuracy"])


def _facts(model: DownstreamModule, backbone: Backbone) -> MethodFacts:
    image = torch.zeros(1, 3, *backbone.preprocessing.size, device=model.device)
    learned = model.aggregator.trainable_modules().values()
    parameters = sum(parameter.numel() for module in learned for parameter in module.parameters())
    with torch.no_grad():
        costs = [_flops(partial(function, image)) for function in (model, backbone)]
    return MethodFacts(
        parameters + sum(parameter.numel() for parameter in model.head.parameters()), costs[0] / costs[1]
    )


def _flops(function: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def _trainer(plan: Plan, epochs: int, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        max_epochs=epochs,
        accelerator=plan.accelerator,
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences what Lightning says about each of many small runs."""
    loggers: Sequence[logging.Logger] = [logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _progress() -> Progress:
    return Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
