"""Tiny backbones, and downstream models with nothing at its initial value."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from numerics import shaken

from vimlight.backbone import create_backbone
from vimlight.deployment import deploy
from vimlight.plugins import create_plugin
from vimlight.training.downstream import DownstreamModule
from vimlight.zoo import Zoo

CLASSES = ["ant", "bee", "cat", "dog"]
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}


@pytest.fixture(scope="session")
def vit():
    """One block, since a graph takes as long as it has nodes; the convolutional backbone has several."""
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


@pytest.fixture
def images(backbone):
    """Five random images of the backbone's size."""
    return torch.randn(5, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))


def train(folder, backbone, kinds=("convpass", "convpass"), aggregator="ens_moe", **options):
    zoo = Zoo(folder / "zoo")
    for number, kind in enumerate(kinds):
        zoo.add(f"{number}", shaken(create_plugin(kind, backbone), 0.5, number), overwrite=True)
    model = DownstreamModule(
        backbone, zoo=str(zoo.path), aggregator=aggregator, class_names=CLASSES, **{"readout": "last", **options}
    )
    for number, part in enumerate(model.trainable_modules().values()):
        shaken(part, 0.5, number)
    model.aggregator.start_from(torch.arange(len(kinds)) * 0.3)
    return model.eval()


@pytest.fixture
def trained(tmp_path):
    """Returns a function from plug-in types to a downstream model over a zoo of one module of each."""
    return partial(train, tmp_path)


@pytest.fixture(scope="session")
def every_deployed(tmp_path_factory):
    """Returns a function from backbone, aggregator and plug-in type to a model, what is deployed of it, its answers.

    The answers are those to some images before that. Tests only read what they share.
    """
    made = {}

    def once(backbone, images, how, kind):
        if (how, kind) == ("adapter_fusion", "lora"):
            pytest.skip("adapter_fusion needs bottlenecks")
        key = backbone.name, how, kind
        if key not in made:
            model = train(tmp_path_factory.mktemp("every"), backbone, [kind, kind], how, readout="grid")
            with torch.no_grad():
                wanted = model(images)
            made[key] = model, deploy(model), wanted
        return made[key]

    return once


@pytest.fixture(scope="session")
def model(vit, tmp_path_factory):
    """A sum of two modules, for tests that only read it."""
    return train(tmp_path_factory.mktemp("model"), vit)


@pytest.fixture(scope="session")
def deployed(model):
    """What is deployed of that, for tests that only read it."""
    return deploy(model)


@pytest.fixture(scope="session")
def routed(vit, tmp_path_factory):
    """A deployed router, whose gates depend on the image, for tests that only read it."""
    return deploy(train(tmp_path_factory.mktemp("routed"), vit, ["convpass", "lora"], "router"))


@pytest.fixture(scope="session")
def linear(vit, tmp_path_factory):
    """A deployed sum of two linear modules, which fold into the backbone, for tests that only read it."""
    return deploy(train(tmp_path_factory.mktemp("linear"), vit, ["lora", "lora"]))
