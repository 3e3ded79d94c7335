"""Folding linear types into the backbone and taking them out again."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near

from vimlight.backbone import create_backbone
from vimlight.errors import FingerprintError, PluginError
from vimlight.plugins import attach, create_plugin
from vimlight.plugins.merging import merge

MERGED = pytest.mark.parametrize("kind", ["lora", "ssf", "repadapter"])


@MERGED
@torch.no_grad()
def test_merged_outputs_equal_the_attached_and_unmerging_restores_every_bit(backbone, images, shake, kind):
    plugin = shake(create_plugin(kind, backbone)).eval()
    before, bare = backbone.compute_fingerprint(), backbone(images)
    with attach(backbone, plugin):
        attached = backbone(images)
    with merge(backbone, plugin):
        merged = backbone(images)
        assert backbone.compute_fingerprint() != before
        assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert_near(merged, attached)
    assert not torch.allclose(merged, bare, rtol=1e-3, atol=1e-3)
    assert backbone.compute_fingerprint() == before
    assert torch.equal(backbone(images), bare)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("lora", {"places": ["q", "k", "v", "proj", "fc1", "fc2"], "alpha": 4.0, "rank": 2}),
        ("lora", {"places": ["qkv"]}),
        ("lora", {"places": ["q", "v", "fc1"], "alpha": 3.0, "bias": True}),
        ("ssf", {"blocks": "last:1"}),
        ("repadapter", {"scale": 0.5, "groups": 1}),
        ("repadapter", {"hidden": 12, "groups": 4, "places": ["fc2"]}),
    ],
)
@torch.no_grad()
def test_settings_survive_the_merge(vit, shake, kind, settings):
    plugin = shake(create_plugin(kind, vit, **settings)).eval()
    images = torch.randn(2, 3, 32, 32)
    with attach(vit, plugin):
        attached = vit(images)
    with merge(vit, plugin):
        assert_near(vit(images), attached)


@MERGED
@torch.no_grad()
def test_layers_without_a_bias_get_one_for_a_while(shake, kind):
    torch.manual_seed(3)
    arguments = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
    backbone = create_backbone("beit_base_patch16_224", **arguments)
    plugin = shake(create_plugin(kind, backbone)).eval()
    images = torch.randn(2, 3, 32, 32)
    names = list(backbone.state_dict())
    with attach(backbone, plugin):
        attached = backbone(images)
    with merge(backbone, plugin):
        assert_near(backbone(images), attached)
    assert list(backbone.state_dict()) == names


def test_merges_come_out_in_reverse_order(vit, shake):
    before = vit.compute_fingerprint()
    first, second = (merge(vit, shake(create_plugin("lora", vit))) for _ in range(2))
    with pytest.raises(PluginError, match="another plug-in was merged later into the same layers"):
        first.unmerge()
    second.unmerge()
    second.unmerge()
    first.unmerge()
    assert vit.compute_fingerprint() == before


def test_a_merge_that_fails_leaves_nothing_changed(vit, shake, monkeypatch):
    plugin = shake(create_plugin("ssf", vit))
    before = vit.compute_fingerprint()

    def fail(layer):
        raise MemoryError

    monkeypatch.setattr(plugin.unit(plugin.sites[-1]), "fold", fail)
    with pytest.raises(MemoryError):
        merge(vit, plugin)
    assert vit.compute_fingerprint() == before


@pytest.mark.parametrize("kind", ["convpass", "adaptformer", "houlsby", "adapter_plus"])
def test_other_types_say_that_they_do_not_merge(vit, kind):
    with pytest.raises(PluginError, match=f"'{kind}' is not linear and cannot be merged"):
        merge(vit, create_plugin(kind, vit))


def test_a_plugin_of_another_backbone_is_refused(vit):
    torch.manual_seed(1)
    other = create_backbone("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2)
    with pytest.raises(FingerprintError):
        merge(vit, create_plugin("lora", other))
