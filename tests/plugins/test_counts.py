"""Parameter counts on ViT-B/16, as the papers' formulas give them."""

from __future__ import annotations

import pytest
import timm
import torch

from vimlight.backbone import Backbone, Preprocessing
from vimlight.plugins import create_plugin
from vimlight.plugins.base import Plugin

COUNTS = [
    ("convpass", {"hidden": 8}, 327_552),
    ("convpass", {"hidden": 16}, 664_320),
    ("convpass", {"hidden": 64}, 3_265_536),
    ("adaptformer", {"hidden": 8}, 156_768),
    ("adaptformer", {"hidden": 64}, 1_189_632),
    ("houlsby", {"hidden": 8}, 313_536),
    ("adapter_plus", {"hidden": 8}, 165_984),
    ("lora", {"rank": 8}, 294_912),
    ("ssf", {}, 205_824),
    ("repadapter", {"hidden": 8}, 239_808),
]


@pytest.fixture(scope="module")
def vit_base():
    with torch.device("meta"):
        model = timm.create_model("vit_base_patch16_224", num_classes=0)
        backbone = Backbone(model, "vit_base_patch16_224", Preprocessing.of(model))
    backbone.fingerprint = "of no weights"
    return backbone


@pytest.mark.parametrize(("kind", "settings", "expected"), COUNTS)
def test_the_size_of_a_plugin_on_vit_base(vit_base, kind, settings, expected):
    plugin = create_plugin(kind, vit_base, **settings)
    assert sum(parameter.numel() for parameter in plugin.parameters()) == expected
    assert all(parameter.requires_grad for parameter in plugin.parameters())


def test_the_size_at_one_site_is_vims_formula(vit):
    plugin = create_plugin("convpass", vit, hidden=5)
    assert isinstance(plugin, Plugin)
    for site in vit.sites:
        count = sum(parameter.numel() for parameter in plugin.unit(site).parameters())
        assert count == 2 * 32 * 5 + 9 * 5**2 + 2 * 5 + 32
