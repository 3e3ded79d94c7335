"""Small backbones and zoos for the tests of aggregators."""

from __future__ import annotations

import pytest
import torch
from numerics import shaken

from vimlight.plugins import create_plugin


@pytest.fixture
def images(backbone):
    """Four random images of the backbone's size."""
    return torch.randn(4, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def trained():
    """Returns a function that creates a plug-in with nothing at its initial value."""

    def make(backbone, kind="convpass", seed=0, amount=0.2, **settings):
        return shaken(create_plugin(kind, backbone, **settings), amount, seed).eval().requires_grad_(False)

    return make


@pytest.fixture
def three(trained, backbone):
    """Three modules of one type and setting."""
    return [trained(backbone, seed=seed, hidden=4) for seed in range(3)]


@pytest.fixture
def mixed(trained, backbone):
    """Three modules of unlike types, widths and sites that meet at some of the sites."""
    return [
        trained(backbone, "convpass", 0, hidden=4),
        trained(backbone, "adaptformer", 1, hidden=2, blocks="last:1"),
        trained(backbone, "convpass", 2, hidden=6, blocks="last:1"),
    ]
