"""Tiny backbones, and downstream models with nothing at its initial value."""

from __future__ import annotations

import pytest
import torch
from numerics import shaken

from vimlight.downstream import DownstreamModule
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo

CLASSES = ["ant", "bee", "cat", "dog"]


@pytest.fixture
def images(backbone):
    """Five random images of the backbone's size."""
    return torch.randn(5, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def trained(tmp_path):
    """Returns a function from plug-in types to a downstream model over a zoo of one module of each."""

    def make(backbone, kinds=("convpass", "convpass"), aggregator="ens_moe", **options):
        zoo = Zoo(tmp_path / "zoo")
        for number, kind in enumerate(kinds):
            zoo.add(f"{number}", shaken(create_plugin(kind, backbone), 0.5, number), overwrite=True)
        model = DownstreamModule(
            backbone, zoo=str(zoo.path), aggregator=aggregator, class_names=CLASSES, **{"readout": "last", **options}
        )
        for number, part in enumerate(model.trainable_modules().values()):
            shaken(part, 0.5, number)
        model.aggregator.start_from(torch.arange(len(kinds)) * 0.3)
        return model.eval()

    return make
