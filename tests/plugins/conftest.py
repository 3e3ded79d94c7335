"""Small backbones and shaken plug-ins for the tests of plug-ins."""

from __future__ import annotations

import pytest
import torch
from numerics import shaken

from vimlight.backbone import create_backbone

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}


@pytest.fixture(scope="session")
def vit():
    """A vision transformer of 3 blocks, 32 channels, a class token and a 4 x 4 grid."""
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


@pytest.fixture(scope="session")
def cnn():
    """An EfficientNet of 5 blocks."""
    torch.manual_seed(0)
    return create_backbone("test_efficientnet", img_size=32)


@pytest.fixture(scope="session")
def swin():
    """A Swin transformer of 2 blocks whose maps are NHWC."""
    torch.manual_seed(0)
    arguments = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
    return create_backbone("swin_tiny_patch4_window7_224", **arguments)


@pytest.fixture(params=["vit", "cnn", "swin"])
def backbone(request):
    """Each of the three, one after the other."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def images(backbone):
    """Two random images of the backbone's size."""
    return torch.randn(2, 3, *backbone.preprocessing.size)


@pytest.fixture
def shake():
    """Returns the function that moves every parameter of a module away from its start."""
    return shaken
