"""The zoo of a comparison and its two controls: shuffled labels, and random weights."""

from __future__ import annotations

import copy
import dataclasses
from functools import cached_property, partial
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch.optim import AdamW

from vimlight.backbone import Backbone
from vimlight.comparison.plan import RANDOM, REAL, SHUFFLED, Plan, Task
from vimlight.comparison.processes import in_parallel, quiet_trainer, quietly
from vimlight.data import MidstreamDataModule, Source
from vimlight.data.target_rows import pick
from vimlight.midstream import MidstreamModule
from vimlight.plugins import Plugin
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
        train.targets = pick(source.train.targets, order)
        return dataclasses.replace(source, train=train)
