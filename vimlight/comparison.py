"""The honest comparison: a zoo trained on midstream tasks against every simpler way, at equal readout and equal head.

A `Plan` says which backbone, which midstream and downstream tasks, how many shots and seeds. `train_zoo` trains the zoo
and its controls, `compare` fits every method on every downstream task, and both go through the same `MidstreamModule`
and `DownstreamModule` that a user trains with. Nothing is chosen on test images.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import timm
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from vimlight.aggregation import Aggregate, aggregate
from vimlight.backbone import Backbone, create_backbone
from vimlight.data import DownstreamDataModule, MidstreamDataModule, Source
from vimlight.downstream import DownstreamModule
from vimlight.midstream import MidstreamModule
from vimlight.plugins import Plugin
from vimlight.report import MethodFacts, ResultsTable, summarise
from vimlight.tasks import AffineHead, create_task
from vimlight.tasks.closed_form import ridge
from vimlight.zoo import Zoo

__all__ = ["METHODS", "Gates", "Method", "Plan", "Task", "compare", "train_zoo"]

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
        steps: Gradient steps beside the closed-form head; without any, features are computed once for all runs.
        lr: Learning rate of these steps.
    """

    aggregator: str
    readout: str = "layers"
    zoo: str = REAL
    extra: bool = False
    steps: int = 0
    lr: float = 0.05


METHODS: dict[str, Method] = {
    "linear probe, last feature": Method("none", readout="last"),
    "linear probe, all layers": Method("none"),
    "module tuned on the task alone": Method("none", extra=True, steps=15, lr=4e-3),
    "random modules": Method("ens_moe", zoo=RANDOM, steps=5),
    "shuffled midstream labels": Method("ens_moe", zoo=SHUFFLED, steps=5),
    "best single module": Method("best_single"),
    "uniform": Method("uniform"),
    "ViM (ens_moe)": Method("ens_moe", steps=5),
    "router": Method("router", steps=5),
    "K-stream features": Method("k_streams"),
}
VIM = "ViM (ens_moe)"


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
        readout: What the midstream heads read.
        test_limit: Largest number of test images of a task.
        accelerator: As in Lightning's Trainer.
    """

    backbone: Mapping[str, Any]
    midstream: tuple[Task, ...]
    downstream: tuple[Task, ...]
    plugin: Mapping[str, Any]
    shots: tuple[int, ...] = (5, 20)
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 2
    lr: float = 4e-3
    readout: str = "last"
    test_limit: int | None = 600
    accelerator: str = "auto"

    def create_backbone(self) -> Backbone:
        """Returns the backbone, created once in each process."""
        return _cached_backbone(json.dumps(dict(self.backbone), sort_keys=True))


@dataclasses.dataclass(frozen=True)
class Gates:
    """The gates that a method learned.

    Attributes:
        values: `(places, K)`.
        places: Names of the rows.
        names: Names of the modules.
    """

    values: Tensor
    places: list[str]
    names: list[str]


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
    jobs = [
        (f"{task.name}, shuffled" if kind == SHUFFLED else task.name, partial(_train_module, plan, zoos[kind], task))
        for kind in (REAL, SHUFFLED)
        for task in plan.midstream
        if task.name not in zoos[kind]
    ]
    _in_parallel("midstream", plan, jobs)
    for number, name in enumerate(zoos[REAL].names()):
        if name not in zoos[RANDOM]:
            zoos[RANDOM].add(name, random_like(zoos[REAL].load(name, backbone), seed=number))
    return zoos


def compare(plan: Plan, zoos: Mapping[str, Zoo]) -> tuple[ResultsTable, dict[str, Gates]]:
    """Fits every method on every downstream task, for all shots and seeds.

    Args:
        plan: The plan.
        zoos: The zoos by kind, as `train_zoo` returns them.

    Returns:
        Test accuracies, and ViM's gates for each task.
    """
    jobs = [
        (f"{task.name}, {shots} shots, seed {seed}", partial(_run_methods, plan, zoos, task, shots, seed))
        for task, shots, seed in _grid(plan)
    ]
    results: list[_Run] = _in_parallel("downstream", plan, jobs)
    records = [record for run in results for record in run.records]
    gates = {task.name: run.gates for run, (task, *_) in zip(results, _grid(plan), strict=True)}
    return summarise(records, results[0].facts), gates


@dataclasses.dataclass(frozen=True)
class _Run:
    """What one worker found for one task, number of shots and seed."""

    records: list[dict[str, Any]]
    facts: dict[str, MethodFacts]
    gates: Gates


def _run_methods(plan: Plan, zoos: Mapping[str, Zoo], task: Task, shots: int, seed: int) -> _Run:
    backbone = plan.create_backbone()
    memory = _memory(plan, zoos[REAL])
    data = _downstream_data(plan, backbone, task, shots, seed)
    records, facts, gates = [], {}, None
    for name, method in METHODS.items():
        if method.steps:
            model = _fit(plan, backbone, zoos[method.zoo], task, data, method)
            accuracy, aggregator, head = _test(plan, model, data), model.aggregator, model.head
            if name == VIM:
                gates = Gates(model.gates.cpu(), aggregator.places, aggregator.names)
        else:
            accuracy, aggregator, head = _fit_fixed(memory, task, data, method)
        facts[name] = _facts(aggregator, head, backbone)
        records.append({
            "method": name, "task": task.name, "shots": shots, "seed": seed, "metric": "accuracy", "value": accuracy,
        })  # fmt: skip
    assert gates is not None
    return _Run(records, facts, gates)


def _in_parallel(stage: str, plan: Plan, jobs: Sequence[tuple[str, Callable[[], Any]]]) -> list[Any]:
    """Runs jobs with a bar: one process a core with one thread each, which beats many threads on small models."""
    if not jobs:
        return []
    workers = 1 if torch.cuda.is_available() else min(os.cpu_count() or 1, len(jobs))
    context = multiprocessing.get_context("spawn")
    results: dict[int, Any] = {}
    with (
        ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(workers,)) as pool,
        Progress(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")) as progress,
    ):
        bar = progress.add_task(stage, total=len(jobs))
        waiting = {pool.submit(job): number for number, (_, job) in enumerate(jobs)}
        try:
            for done in as_completed(waiting):
                results[waiting[done]] = done.result()
                progress.update(bar, advance=1, description=f"{stage}: {jobs[waiting[done]][0]} done")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[number] for number in range(len(jobs))]


def _start_worker(workers: int) -> None:
    if workers > 1:
        torch.set_num_threads(1)
    if not torch.cuda.is_available():
        # On a processor and with few tokens, plain attention trains almost twice as fast as the fused kernel.
        timm.layers.set_fused_attn(False)


@lru_cache(maxsize=1)
def _cached_backbone(description: str) -> Backbone:
    with torch.random.fork_rng():
        # Weights that are drawn rather than loaded must be the same in every process.
        torch.manual_seed(0)
        return create_backbone(**json.loads(description))


@lru_cache(maxsize=1)
def _cached_memory(description: str, zoo: Path) -> _Memory:
    return _Memory(_cached_backbone(description), Zoo(zoo))


def _memory(plan: Plan, zoo: Zoo) -> _Memory:
    """Returns the features that are known in this process."""
    return _cached_memory(json.dumps(dict(plan.backbone), sort_keys=True), zoo.path)


def _grid(plan: Plan) -> list[tuple[Task, int, int]]:
    return [(task, shots, seed) for task in plan.downstream for shots in plan.shots for seed in plan.seeds]


class _Memory:
    """Features of models that nothing downstream changes, computed once for each image."""

    def __init__(self, backbone: Backbone, zoo: Zoo) -> None:
        self.backbone = backbone
        self.modules = {name: zoo.load(name, backbone) for name in zoo.names()}
        self._rows: dict[tuple[str, ...], dict[str, Tensor]] = {}

    def aggregator(self, how: str, names: Sequence[str]) -> Aggregate:
        """Aggregates modules with all layers read out."""
        return aggregate(self.backbone, [self.modules[n] for n in names], how, names=names, readout="layers")

    @torch.no_grad()
    def features(self, how: str, names: Sequence[str], data: DownstreamDataModule, split: str) -> Tensor:
        """Returns the features `(N, D)` of a split."""
        rows = self._rows.setdefault((how, *names), {})
        ids = data.split_ids()[split]
        if any(identity not in rows for identity in ids):
            model = self.aggregator(how, names)
            for batch in data.batches(split, next(self.backbone.parameters()).device):
                new = [n for n, identity in enumerate(batch["id"]) if identity not in rows]
                if new:
                    rows.update(zip([batch["id"][n] for n in new], model(batch["image"][new]), strict=True))
        return torch.stack([rows[identity] for identity in ids])


def _fit_fixed(
    memory: _Memory, task: Task, data: DownstreamDataModule, method: Method
) -> tuple[float, Aggregate, AffineHead]:
    """Fits the head alone; the same closed form that `DownstreamModule` fits."""
    names = [] if method.aggregator == "none" else [name for name in memory.modules if name not in task.without]
    kind = create_task(data.kind, data.class_names)
    targets = {split: data.tables[split].targets for split in ("train", "test")}

    def features(split: str, how: str = method.aggregator, modules: Sequence[str] = names) -> Tensor:
        return memory.features(how, modules, data, split)

    def single(name: str) -> partial[Tensor]:
        return partial(features, how="uniform", modules=[name])

    compute: Callable[[str], Tensor] = features
    if method.aggregator == "best_single":
        columns = kind.columns(targets["train"])
        compute = min((single(name) for name in names), key=lambda one: float(ridge(one("train"), columns).loss))
    elif method.aggregator == "k_streams":
        compute = lambda split: torch.cat([single(name)(split) for name in names], dim=1)  # noqa: E731
    elif method.readout == "last":
        compute = lambda split: features(split)[:, : memory.backbone.num_features()]  # noqa: E731
    train, test = compute("train"), compute("test")
    head = AffineHead(train.shape[1], kind.num_outputs)
    head.fit(train.cpu(), targets["train"], kind, "ridge")
    right = head(test.cpu()).argmax(dim=1) == targets["test"]
    return float(right.float().mean()), memory.aggregator(method.aggregator, names), head


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


def _train_module(plan: Plan, zoo: Zoo, task: Task) -> None:
    shuffled = zoo.path.name == SHUFFLED
    kind = ShuffledLabels if shuffled else MidstreamDataModule
    data = kind(task.dataset, dict(task.dataset_args), batch_size=32, seed=0)
    pl.seed_everything(0, verbose=False)
    model = MidstreamModule(
        plan.create_backbone(),
        dict(plan.plugin),
        readout=plan.readout,
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
        optimizer=partial(AdamW, lr=method.lr),
    )
    with _quiet():
        _trainer(plan, method.steps, limit_val_batches=0).fit(model, datamodule=data)
    return model


def _test(plan: Plan, model: DownstreamModule, data: DownstreamDataModule) -> float:
    with _quiet():
        results = _trainer(plan, 1).test(model, datamodule=data, verbose=False)
    return float(results[0]["test/accuracy"])


def _facts(model: Aggregate, head: nn.Module, backbone: Backbone) -> MethodFacts:
    image = torch.zeros(1, 3, *backbone.preprocessing.size, device=next(backbone.parameters()).device)
    learned = [head, *model.trainable_modules().values()]
    parameters = sum(parameter.numel() for module in learned for parameter in module.parameters())
    with torch.no_grad():
        return MethodFacts(parameters, _flops(partial(model, image)) / _flops(partial(backbone, image)))


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
