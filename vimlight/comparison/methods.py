"""Every method on every downstream task, for all shots and seeds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.utils.flop_counter import FlopCounterMode

from vimlight.aggregation import Aggregate, aggregate
from vimlight.backbone import Backbone
from vimlight.comparison.plan import METHODS, REAL, VIM, Method, Plan, Task
from vimlight.comparison.processes import in_parallel, precision_here, quiet_trainer, quietly
from vimlight.data import DownstreamDataModule
from vimlight.report import MethodFacts, ResultsTable, summarise
from vimlight.tasks import AffineHead, create_task
from vimlight.tasks.closed_form import ridge
from vimlight.training.downstream import DownstreamModule
from vimlight.zoo import Zoo

__all__ = ["Gates", "compare"]

_STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)


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


def compare(plan: Plan, zoos: Mapping[str, Zoo]) -> tuple[ResultsTable, dict[str, Gates]]:
    """Fits every method on every downstream task, for all shots and seeds.

    Args:
        plan: The plan.
        zoos: The zoos by kind, as `train_zoo` returns them.

    Returns:
        Test accuracies, and ViM's gates for each task.
    """
    # What a method learns and costs is counted once, where the first task is fitted.
    jobs = [
        (f"{task.name}, {shots} shots, seed {seed}", partial(_run_methods, plan, zoos, task, shots, seed, not number))
        for number, (task, shots, seed) in enumerate(_grid(plan))
    ]
    results: list[_Run] = in_parallel("downstream", jobs)
    records = [record for run in results for record in run.records]
    gates = {task.name: run.gates for run, (task, *_) in zip(results, _grid(plan), strict=True)}
    return summarise(records, results[0].facts), gates


def _grid(plan: Plan) -> list[tuple[Task, int, int]]:
    return [(task, shots, seed) for task in plan.downstream for shots in plan.shots for seed in plan.seeds]


@dataclasses.dataclass(frozen=True)
class _Run:
    """What one worker found for one task, number of shots and seed; facts about the methods if it counted."""

    records: list[dict[str, Any]]
    facts: dict[str, MethodFacts]
    gates: Gates


def _run_methods(plan: Plan, zoos: Mapping[str, Zoo], task: Task, shots: int, seed: int, count: bool) -> _Run:
    backbone = plan.create_backbone()
    memory = _memory(backbone, zoos[REAL].path, precision_here(plan.precision) != "32-true")
    data = _downstream_data(plan, backbone, task, shots, seed)
    records, facts, gates = [], {}, None
    for name, method in ((name, METHODS[name]) for name in plan.methods):
        if method.steps:
            model = _fit(plan, backbone, zoos[method.zoo], task, data, method)
            accuracy, aggregator, head = _test(plan, model, data), model.aggregator, model.head
            if name == VIM:
                gates = Gates(model.gates.cpu(), aggregator.places, aggregator.names)
        else:
            accuracy, aggregator, head = _fit_fixed(memory, task, data, method)
        if count:
            facts[name] = _facts(aggregator, head, backbone)
        records.append({
            "method": name, "task": task.name, "shots": shots, "seed": seed, "metric": "accuracy", "value": accuracy,
        })  # fmt: skip
    assert gates is not None
    return _Run(records, facts, gates)


def _fit(
    plan: Plan, backbone: Backbone, zoo: Zoo, task: Task, data: DownstreamDataModule, method: Method
) -> DownstreamModule:
    pl.seed_everything(data.seed, verbose=False)
    model = DownstreamModule(
        backbone,
        zoo=str(zoo.path),
        modules=[name for name in zoo.names() if name not in task.without] if method.aggregator != "none" else [],
        aggregator={"how": method.aggregator, **method.settings},
        readout=method.readout,
        extra_module=dict(plan.plugin) if method.extra else None,
        kind=data.kind,
        class_names=data.class_names,
        optimizer=partial(AdamW, lr=method.lr),
    )
    with quietly():
        quiet_trainer(plan, method.steps, limit_val_batches=0).fit(model, datamodule=data)
    return model


def _test(plan: Plan, model: DownstreamModule, data: DownstreamDataModule) -> float:
    with quietly():
        results = quiet_trainer(plan, 1).test(model, datamodule=data, verbose=False)
    return float(results[0]["test/accuracy"])


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


class _Memory:
    """Features of models that nothing downstream changes, computed once for each image, in the trainer's precision."""

    def __init__(self, backbone: Backbone, zoo: Zoo, mixed: bool) -> None:
        self.backbone = backbone
        self.mixed = mixed
        self.modules = {name: zoo.load(name, backbone) for name in zoo.names()}
        self._rows: dict[tuple[str | float, ...], dict[str, Tensor]] = {}

    def aggregator(self, how: str, names: Sequence[str], strength: float = 1.0) -> Aggregate:
        """Aggregates modules, at a strength where it can be set."""
        modules = [self.modules[name] for name in names]
        model = aggregate(self.backbone, modules, how, names=names, readout=Method(how).readout)
        model.scale_to(strength)
        return model

    @torch.no_grad()
    def features(
        self, how: str, names: Sequence[str], data: DownstreamDataModule, split: str, strength: float = 1.0
    ) -> Tensor:
        """Returns the features `(N, D)` of a split."""
        rows = self._rows.setdefault((how, strength, *names), {})
        ids = data.split_ids()[split]
        if any(identity not in rows for identity in ids):
            model = self.aggregator(how, names, strength)
            device = next(self.backbone.parameters()).device
            for batch in data.batches(split, device):
                new = [n for n, identity in enumerate(batch["id"]) if identity not in rows]
                if new:
                    with torch.autocast(device.type, torch.bfloat16, enabled=self.mixed):
                        features = model(batch["image"][new])
                    rows.update(zip([batch["id"][n] for n in new], features, strict=True))
        return torch.stack([rows[identity] for identity in ids])


@lru_cache(maxsize=1)
def _memory(backbone: Backbone, zoo: Path, mixed: bool) -> _Memory:
    """Returns what this process remembers of a zoo's models."""
    return _Memory(backbone, Zoo(zoo), mixed)


def _fit_fixed(
    memory: _Memory, task: Task, data: DownstreamDataModule, method: Method
) -> tuple[float, Aggregate, AffineHead]:
    """Fits the head alone; the same closed form that `DownstreamModule` fits."""
    names = [] if method.aggregator == "none" else [name for name in memory.modules if name not in task.without]
    probe = _Probe(data)
    accuracy, head = probe(_features(memory, data, method, names, probe))
    if method.aggregator == "bound":
        return accuracy, memory.aggregator("uniform", names[:1]), head
    return accuracy, memory.aggregator(method.aggregator, names), head


_BySplit = Callable[[str], Tensor]


class _Probe:
    """A closed-form head on features of the training images, and how good it is."""

    def __init__(self, data: DownstreamDataModule) -> None:
        self.kind = create_task(data.kind, data.class_names)
        self.targets = {split: data.tables[split].targets for split in ("train", "test")}

    def __call__(self, features: _BySplit) -> tuple[float, AffineHead]:
        """Returns the test accuracy and the head."""
        train, test = features("train"), features("test")
        head = AffineHead(train.shape[1], self.kind.num_outputs)
        head.fit(train.cpu(), self.targets["train"], self.kind, "ridge")
        right = head(test.cpu()).argmax(dim=1) == self.targets["test"]
        return float(right.float().mean()), head

    def left_out_error(self, features: _BySplit) -> float:
        """Returns the leave-one-out error on the training images."""
        return float(ridge(features("train"), self.kind.columns(self.targets["train"])).loss)


def _features(
    memory: _Memory, data: DownstreamDataModule, method: Method, names: Sequence[str], probe: _Probe
) -> _BySplit:
    """Returns what gives the features of a split, chosen where a method has a choice."""

    def one(name: str, how: str = "uniform", strength: float = 1.0) -> _BySplit:
        return lambda split: memory.features(how, [name], data, split, strength)

    if method.aggregator == "best_single":
        return min(map(one, names), key=probe.left_out_error)
    if method.aggregator == "bound":
        choices = [one(name, "ens_moe", strength) for name in names for strength in _STRENGTHS]
        return max(choices, key=lambda choice: probe(choice)[0])
    if method.aggregator == "k_streams":
        return lambda split: torch.cat([one(name)(split) for name in names], dim=1)
    width = memory.backbone.num_features(method.readout)
    return lambda split: memory.features(method.aggregator, names, data, split)[:, :width]


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
