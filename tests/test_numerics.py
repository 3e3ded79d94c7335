"""Weights drawn for tests leave values where no rounding decides, and the bar for numbers is of the largest value."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near, shaken

from vimlight.plugins import attach, create_plugin, list_plugins


@pytest.mark.parametrize("amount", [0.2, 0.5])
@pytest.mark.parametrize("kind", list_plugins())
@torch.no_grad()
def test_shaken_plugins_change_features_and_leave_them_near_1(backbone, kind, amount):
    images = torch.randn(5, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))
    bare = backbone(images)
    with attach(backbone, shaken(create_plugin(kind, backbone), amount, seed=0)):
        moved = backbone(images)
    assert (moved - bare).abs().max() > 1e-3 * bare.abs().max()
    assert moved.abs().max() < 10


def test_the_bar_is_a_share_of_the_largest_value():
    expected = torch.tensor([14000.0, 1e-3])
    assert_near(expected + torch.tensor([0.1, 0.1]), expected)
    with pytest.raises(AssertionError):
        assert_near(expected + torch.tensor([0.0, 0.2]), expected)
    with pytest.raises(AssertionError):
        assert_near(torch.tensor([1e-4]), torch.tensor([0.0]))
    with pytest.raises(AssertionError):
        assert_near(torch.full((2,), float("nan")), expected)
