"""Settings that every test shares: nothing reaches the network, nothing opens a window, no test uses all the cores."""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", MPLBACKEND="Agg", WANDB_MODE="offline", WANDB_SILENT="true", DO_NOT_TRACK="true")

import pytest
import torch

torch.set_num_threads(1)
# The first backward pass starts a thread for every device that torch knows of, and a process with such threads cannot
# fork. Tracing makes devices known that are not there, so the first one comes before it.
torch.ones(1, requires_grad=True).sum().backward()


@pytest.fixture(autouse=True)
def _seeded():
    """Gives every test the same global random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture
def untouched_rng():
    """Fails the test if it moves the global random state of torch, numpy or Python."""
    import random

    import numpy as np

    before = (torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate())
    yield
    assert torch.equal(before[0], torch.get_rng_state()), "torch's global random state moved"
    assert (before[1] == np.random.get_state()[1]).all(), "numpy's global random state moved"
    assert before[2] == random.getstate(), "Python's global random state moved"


@pytest.fixture(scope="session")
def vit():
    """A vision transformer of 2 blocks, 32 channels, a class token and a 4 x 4 grid."""
    torch.manual_seed(0)
    from vimlight.backbone import create_backbone

    return create_backbone("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)


@pytest.fixture(scope="session")
def cnn():
    """An EfficientNet of 5 blocks, whose last maps are smaller than a grid of quarters."""
    torch.manual_seed(0)
    from vimlight.backbone import create_backbone

    return create_backbone("test_efficientnet", img_size=32)


@pytest.fixture(params=["vit", "cnn"])
def backbone(request):
    """Both, one after the other."""
    return request.getfixturevalue(request.param)


def pytest_collection_modifyitems(items):
    """Skips the tests marked `cuda` where there is no CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))
