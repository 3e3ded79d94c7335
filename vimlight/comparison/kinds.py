"""Midstream and downstream tasks of every kind over one frozen backbone: the same head with and without a zoo.

Everything is chosen beforehand; test images are looked at once.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch.optim import AdamW

from vimlight.backbone import Backbone
from vimlight.comparison.plan import cached_backbone
from vimlight.comparison.processes import in_parallel, quiet_trainer, quietly
from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.tasks import create_task
from vimlight.training.downstream import DownstreamModule
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Zoo

__all__ = ["KindPlan", "KindTask", "Score", "gains_of", "score_all", "scores_of", "train_modules"]


@dataclasses.dataclass(frozen=True)
class KindTask:
    """A task of one kind on drawn scenes.

    Attributes:
        name: Its name in tables; of midstream tasks, the module's name in the zoo.
        scene: Name of the drawn task.
        task: Kind and settings, as `DownstreamModule` takes them.
        shots: Downstream, labelled images of each class, or in all where there are no classes.
        epochs: Passes over the training images.
        lr: Learning rate.
        batch_size: Images in a batch.
    """

    name: str
    scene: str
    task: Mapping[str, Any]
    shots: int = 10
    epochs: int = 8
    lr: float = 0.05
    batch_size: int = 512


@dataclasses.dataclass(frozen=True)
class KindPlan:
    """Everything that such a comparison depends on.

    Attributes:
        midstream: The tasks that modules are trained on.
        downstream: The tasks that they are used for.
        backbone: Arguments of `create_backbone`.
        plugin: Arguments of `create_plugin`, the type as `kind`.
        images: Midstream training images of each task; each is seen `epochs` times.
        pool: Downstream images that the shots are drawn from.
        test_images: Test images of each downstream task.
        seeds: Seeds of the few-shot samples.
        size: Side of the images in pixels.
        accelerator: As in Lightning's Trainer.
        precision: As in Lightning's Trainer; `"auto"` is bfloat16 where the hardware multiplies in it.
    """

    midstream: tuple[KindTask, ...]
    downstream: tuple[KindTask, ...]
    backbone: Mapping[str, Any] = dataclasses.field(
        default_factory=lambda: {"name": "vit_scenes_small", "pretrained": True}
    )
    plugin: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {"kind": "convpass", "hidden": 16})
    images: int = 6000
    pool: int = 1000
    test_images: int = 300
    seeds: tuple[int, ...] = (0, 1, 2)
    size: int = 64
    accelerator: str = "auto"
    precision: str = "auto"

    def create_backbone(self) -> Backbone:
        """Returns the backbone, created once in each process."""
        return cached_backbone(json.dumps(dict(self.backbone), sort_keys=True))


@dataclasses.dataclass(frozen=True)
class Score:
    """A test score.

    Attributes:
        task: Name of the downstream task.
        modules: What was aggregated: a module's name, `"zoo"` for all, `"none"` for the bare backbone.
        seed: Seed of the few-shot sample.
        metric: Name of the metric, the one that the kind of task is judged by.
        mode: Whether more is better (`"max"`) or less (`"min"`).
        value: The score.
    """

    task: str
    modules: str
    seed: int
    metric: str
    mode: str
    value: float


def train_modules(plan: KindPlan, folder: Path) -> Zoo:
    """Trains one module on each midstream task; those that exist are kept, so that a broken run goes on.

    Args:
        plan: The plan.
        folder: Where the zoo is kept.
    """
    zoo = Zoo(folder)
    missing = [task for task in plan.midstream if task.name not in zoo]
    in_parallel("midstream", [(task.name, partial(_train, plan, folder, task)) for task in missing])
    return zoo


def _train(plan: KindPlan, folder: Path, task: KindTask) -> None:
    arguments = {"task": task.scene, "train": plan.images, "test": 1, "size": plan.size}
    data = MidstreamDataModule("scenes", arguments, val_fraction=0.05, batch_size=task.batch_size, seed=0)
    pl.seed_everything(0, verbose=False)
    model = MidstreamModule(
        plan.create_backbone(),
        dict(plan.plugin),
        name=task.name,
        zoo=str(folder),
        task=dict(task.task),
        kind=data.kind,
        class_names=data.class_names,
        optimizer=partial(AdamW, lr=task.lr, weight_decay=0.01),
    )
    with quietly():
        quiet_trainer(plan, task.epochs).fit(model, datamodule=data)


def score_all(plan: KindPlan, zoo: Zoo, sets: Mapping[str, Sequence[str]]) -> list[Score]:
    """Fits every downstream task with several sets of modules, for all seeds, and tests it.

    Args:
        plan: The plan.
        zoo: The zoo.
        sets: Names of modules by what the set is called; an empty one is the bare backbone.
    """
    jobs = [
        (f"{task.name}, seed {seed}", partial(_scores, plan, zoo.path, task, seed, dict(sets)))
        for task in plan.downstream
        for seed in plan.seeds
    ]
    found: list[list[Score]] = in_parallel("downstream", jobs)
    return [score for scores in found for score in scores]


def scores_of(scores: Sequence[Score], task: str, modules: str) -> dict[int, float]:
    """Returns the scores of one task and set of modules by seed."""
    return {score.seed: score.value for score in scores if (score.task, score.modules) == (task, modules)}


def gains_of(scores: Sequence[Score], task: str, modules: str) -> list[float]:
    """Returns what a set of modules gains on a task over the bare backbone, for each seed; positive where it helps.

    Args:
        scores: All scores.
        task: Name of the downstream task.
        modules: What was aggregated; see `Score`.
    """
    sign = 1 if next(score for score in scores if score.task == task).mode == "max" else -1
    bare, aggregated = scores_of(scores, task, "none"), scores_of(scores, task, modules)
    return [sign * (aggregated[seed] - bare[seed]) for seed in bare]


def _scores(plan: KindPlan, zoo: Path, task: KindTask, seed: int, sets: Mapping[str, Sequence[str]]) -> list[Score]:
    arguments = {"task": task.scene, "train": plan.pool, "test": plan.test_images, "size": plan.size}
    backbone = plan.create_backbone()
    data = DownstreamDataModule(
        "scenes", arguments, shots=task.shots, val_shots=1, seed=seed, batch_size=task.batch_size,
        preprocessing=backbone.preprocessing,
    )  # fmt: skip
    kind = create_task(dict(task.task), data.class_names)
    return [
        Score(task.name, name, seed, kind.monitor, kind.mode, _score(plan, backbone, zoo, task, data, list(modules)))
        for name, modules in sets.items()
    ]


def _score(
    plan: KindPlan, backbone: Backbone, zoo: Path, task: KindTask, data: DownstreamDataModule, modules: list[str]
) -> float:
    pl.seed_everything(data.seed, verbose=False)
    model = DownstreamModule(
        backbone,
        zoo=str(zoo),
        modules=modules,
        aggregator="ens_moe" if modules else "none",
        task=dict(task.task),
        kind=data.kind,
        class_names=data.class_names,
        optimizer=partial(AdamW, lr=task.lr),
    )
    with quietly():
        # Nothing takes steps where neither gates nor head do.
        epochs = task.epochs if model.trainable_parameters() else 1
        quiet_trainer(plan, epochs, limit_val_batches=0).fit(model, datamodule=data)
        results = quiet_trainer(plan, 1).test(model, datamodule=data, verbose=False)[0]
    return float(results[f"test/{model.task.monitor}"])
