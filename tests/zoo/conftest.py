"""A tiny backbone, a module with nothing at its initial value, and a zoo that holds it."""

from __future__ import annotations

import pytest
import torch

from vimlight.backbone import create_backbone
from vimlight.plugins import create_plugin
from vimlight.zoo import Zoo


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
def snapshot():
    """Returns a function from a directory to the bytes and modification time of each file in it."""

    def look(folder):
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}

    return look


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(5))
