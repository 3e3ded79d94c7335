"""The zoo of a comparison and its two controls: shuffled labels, and random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import lightning.pytorch as pl
from torch.optim import AdamW

from vimlight.backbone import Backbone
from vimlight.comparison.controls import ShuffledLabels, random_like
from vimlight.comparison.plan import RANDOM, REAL, SHUFFLED, Plan, Task
from vimlight.comparison.processes import in_parallel, quiet_trainer, quietly
from vimlight.data import MidstreamDataModule
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Zoo

__all__ = ["ShuffledLabels", "random_like", "train_zoo"]


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
    in_parallel("midstream", jobs)
    for number, name in enumerate(zoos[REAL].names()):
        if name not in zoos[RANDOM]:
            zoos[RANDOM].add(name, random_like(zoos[REAL].load(name, backbone), seed=number))
    return zoos


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
    with quietly():
        quiet_trainer(plan, plan.epochs, limit_val_batches=1.0).fit(model, datamodule=data)
