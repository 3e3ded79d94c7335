"""A tiny backbone, a module with nothing at its initial value, and a zoo that holds it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from vimlight.backbone import create_backbone
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo
from vimlight.zoo.files import pack_module, read_head, read_module, sha256_of


@pytest.fixture(scope="session")
def backbone():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return create_backbone("test_vit", img_size=32)


@pytest.fixture(scope="session")
def other_backbone():
    with torch.random.fork_rng():
        torch.manual_seed(2)
        return create_backbone("test_vit", img_size=32)


@pytest.fixture
def make_module(backbone):
    """Returns a function that makes a module with random parameters."""

    def make(kind="convpass", seed=0, **settings):
        module = create_plugin(kind, backbone, **settings)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
        return module.eval()

    return make


@pytest.fixture
def zoo(tmp_path, make_module):
    """A zoo with the module `letters` and its head."""
    zoo = Zoo(tmp_path / "zoo")
    head = {"weight": torch.arange(12.0).view(3, 4), "bias": torch.ones(3)}
    card = {
        "task": "classification", "dataset": "drawn letters", "classes": ["a", "b", "c"], "samples": {"train": 120},
        "metrics": {"val": {"accuracy": 0.9375}}, "seed": 3, "license": "apache-2.0", "extra": {"font": "serif"},
    }  # fmt: skip
    zoo.add("letters", make_module(hidden=4), card=card, head=head)
    return zoo


@pytest.fixture
def mine(tmp_path):
    """Another zoo, which is empty."""
    return Zoo(tmp_path / "mine")


@pytest.fixture
def pair(zoo):
    """Returns a function that splits a module and its head into the two files that earlier versions wrote."""

    def split(name, head=None):
        path = zoo.path / f"{name}.safetensors"
        if head is not None:
            plugin = create_plugin("convpass", create_backbone("test_vit", img_size=32))
            zoo.add(name, plugin, head=head, overwrite=True)
        head = read_head(path)
        card, tensors = read_module(path)
        path.write_bytes(pack_module(dataclasses.replace(card, format_version=1), tensors))
        beside = zoo.path / f"{name}.head.safetensors"
        save_file(head, beside, {"head_sha256": sha256_of(head)})
        return path, beside

    return split


@pytest.fixture
def snapshot():
    """Returns a function from a directory to the bytes and modification time of each file in it."""

    def look(folder):
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    return look


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
