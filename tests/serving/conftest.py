"""Models of every kind of task over one tiny backbone, and images as files."""

from __future__ import annotations

import pytest
import torch
from numerics import shaken
from tiny_kinds import SETTINGS
from tiny_serving import KINDS

from vimlight.plugins import create_plugin
from vimlight.serving import ServedTasks
from vimlight.training.downstream import DownstreamModule
from vimlight.zoo import Zoo


@pytest.fixture(scope="session")
def zoo(vit, tmp_path_factory):
    """Two modules."""
    zoo = Zoo(tmp_path_factory.mktemp("zoo"))
    for number, name in enumerate(("letters", "shapes")):
        zoo.add(name, shaken(create_plugin("convpass", vit, hidden=2), 0.5, number))
    return zoo


@pytest.fixture(scope="session")
def create(vit, zoo):
    """Returns a function from a kind of task to a downstream model with nothing at its start."""

    def create(kind="classification", seed=0, **options):
        names = [f"{kind} {letter}" for letter in "abcdefg"] if kind != "depth" else []
        model = DownstreamModule(vit, zoo=str(zoo.path), kind=kind, task=SETTINGS[kind], class_names=names, **options)
        for part in model.trainable_modules().values():
            shaken(part, 0.5, seed)
        model.aggregator.start_from(torch.tensor([0.5 + seed, 0.0])[: len(model.module_names)])
        return model.eval()

    return create


@pytest.fixture(scope="session")
def models(create):
    """One model of each kind that can be shown."""
    return {kind: create(kind, seed) for seed, kind in enumerate(KINDS)}


@pytest.fixture(scope="session")
def served(models):
    """All of them."""
    return ServedTasks(models)
