"""Attaching and detaching, choosing sites, and the mistakes one can make there."""

from __future__ import annotations

import dataclasses
import gc
import weakref

import pytest
import torch
from numerics import assert_near

from vimlight.backbone import create_backbone
from vimlight.errors import FingerprintError, PluginError, UnknownNameError
from vimlight.plugins import Attachment, Slot, attach, create_plugin
from vimlight.plugins.base import Plugin

LORA_PLACES = ["q", "k", "v", "qkv", "proj", "fc1", "fc2"]


@torch.no_grad()
def test_two_plugins_add_up_at_one_site(vit, shake):
    first, second = (shake(create_plugin("convpass", vit, blocks=[2], places=["mlp"]), 0.3) for _ in range(2))
    seen = {}
    block = vit.model.blocks[2]
    handles = [
        block.mlp.register_forward_pre_hook(lambda _, args: seen.update(x=args[0])),
        block.register_forward_hook(lambda _, args, output: seen.update(y=output)),
    ]
    images = torch.randn(2, 3, 32, 32)
    vit(images)
    bare = seen["y"]
    with attach(vit, first), attach(vit, second):
        vit(images)
    expected = bare + first.unit("blocks.2.mlp")(seen["x"]) + second.unit("blocks.2.mlp")(seen["x"])
    torch.testing.assert_close(seen["y"], expected)
    for handle in handles:
        handle.remove()


@torch.no_grad()
def test_two_attachments_may_be_detached_in_any_order(backbone, images, shake):
    first, second = shake(create_plugin("convpass", backbone)), shake(create_plugin("lora", backbone))
    bare = backbone(images)
    with attach(backbone, second):
        only_second = backbone(images)
    attachments = attach(backbone, first), attach(backbone, second)
    attachments[0].detach()
    attachments[0].detach()
    assert torch.equal(backbone(images), only_second)
    attachments[1].detach()
    assert torch.equal(backbone(images), bare)


def test_gradients_reach_a_plugin_that_was_attached_without_them(vit, shake):
    plugin = shake(create_plugin("convpass", vit))
    with torch.no_grad():
        attachment = attach(vit, plugin)
    vit(torch.randn(2, 3, 32, 32)).sum().backward()
    attachment.detach()
    assert all(parameter.grad is not None for parameter in plugin.parameters())


def test_an_error_inside_a_forward_pass_leaves_nothing_behind(vit):
    plugin = create_plugin("convpass", vit)
    images = torch.randn(2, 3, 32, 32)
    bare = vit(images)
    kept = []

    def fail(module, args):
        kept.append(weakref.ref(args[0]))
        raise RuntimeError("out of memory")

    with attach(vit, plugin):
        handle = vit.model.blocks[1].attn.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="out of memory"):
            vit(images)
        handle.remove()
        gc.collect()
        assert kept[0]() is None
        assert torch.equal(vit(images), bare)


def test_a_context_detaches_when_its_body_fails(vit, shake):
    images = torch.randn(2, 3, 32, 32)
    bare = vit(images)
    with pytest.raises(ZeroDivisionError), attach(vit, shake(create_plugin("ssf", vit))):
        raise ZeroDivisionError
    assert torch.equal(vit(images), bare)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in vit.modules())


def test_a_slot_that_does_not_fit_leaves_no_hook(vit, cnn, shake):
    sites = (vit.sites[0], cnn.sites[0])
    slots = [Slot(site, "input", "output", lambda x: x) for site in sites]
    images = torch.randn(2, 3, 32, 32)
    bare = vit(images)
    with pytest.raises(AttributeError):
        Attachment(vit, slots)
    assert torch.equal(vit(images), bare)


def test_another_backbone_is_refused(vit):
    torch.manual_seed(1)
    other = create_backbone("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2)
    plugin = create_plugin("convpass", other)
    expected = f"{other.fingerprint[:12]}.*{vit.fingerprint[:12]}"
    with pytest.raises(FingerprintError, match=expected):
        attach(vit, plugin)


def test_a_missing_site_is_named(vit):
    plugin = create_plugin("convpass", vit)
    site = dataclasses.replace(vit.sites[0], name="blocks.9.attn")
    stray = Plugin("convpass", [site], plugin.settings, plugin.fingerprint)
    with pytest.raises(PluginError, match=r"has no site 'blocks.9.attn'"):
        attach(vit, stray)


@pytest.mark.parametrize(
    ("blocks", "depths"),
    [("all", {0, 1, 2}), ("last:1", {2}), ("last:3", {0, 1, 2}), ("first:2", {0, 1}), ([0, 2], {0, 2}), ((1,), {1})],
)
def test_choice_of_blocks(vit, blocks, depths):
    for kind in ("convpass", "ssf", "lora"):
        plugin = create_plugin(kind, vit, blocks=blocks)
        inside = {site.depth for site in plugin.sites if 0 <= site.depth < 3}
        assert inside == depths
        assert {site.depth for site in plugin.sites} - inside <= ({-1, 3} if blocks == "all" else set())


@pytest.mark.parametrize("blocks", ["last:0", "last:4", "last:x", "middle:1", "last", "", "last:-1"])
def test_a_misspelt_choice_of_blocks_is_explained(vit, blocks):
    with pytest.raises(PluginError, match="expected 'all', 'first:n' or 'last:n' with n from 1 to 3"):
        create_plugin("convpass", vit, blocks=blocks)


@pytest.mark.parametrize("blocks", [[3], [-1], [0, 7]])
def test_a_block_that_does_not_exist_is_named(vit, blocks):
    with pytest.raises(PluginError, match=r"block -?\d does not exist; the backbone's blocks are 0 to 2"):
        create_plugin("convpass", vit, blocks=blocks)


def test_no_block_at_all_is_refused(vit):
    with pytest.raises(PluginError, match="finds no site"):
        create_plugin("convpass", vit, blocks=[])


def test_choice_of_places(vit, shake):
    plugin = create_plugin("convpass", vit, places=["attn"])
    assert plugin.site_names == ("blocks.0.attn", "blocks.1.attn", "blocks.2.attn")
    images = torch.randn(2, 3, 32, 32)
    bare = vit(images)
    for place in LORA_PLACES:
        chosen = shake(create_plugin("lora", vit, places=[place]))
        assert {site.place for site in chosen.sites} == {place}
        with attach(vit, chosen), torch.no_grad():
            assert not torch.equal(vit(images), bare)


def test_misspelt_names_are_answered_with_the_nearest(vit):
    with pytest.raises(UnknownNameError, match="unknown plug-in 'convpas'; did you mean 'convpass'"):
        create_plugin("convpas", vit)
    with pytest.raises(UnknownNameError, match="unknown setting of plug-in 'convpass' 'hiden'; did you mean 'hidden'"):
        create_plugin("convpass", vit, hiden=4)
    with pytest.raises(UnknownNameError, match="unknown place of 'lora' in 'vit_tiny_patch16_224' 'fc3'; did you mean"):
        create_plugin("lora", vit, places=["fc3"])
    with pytest.raises(UnknownNameError, match=r"unknown site 'blocks.0.atn'; did you mean 'blocks.0.attn'"):
        create_plugin("convpass", vit).unit("blocks.0.atn")


def test_a_setting_of_the_wrong_type_or_range_is_refused(vit):
    with pytest.raises(PluginError, match="rank must be at least 1"):
        create_plugin("lora", vit, rank=0)
    with pytest.raises(PluginError, match="multiples of groups=3"):
        create_plugin("repadapter", vit, groups=3)


@torch.no_grad()
def test_lora_on_the_parts_changes_those_channels_alone(vit, shake):
    plugin = shake(create_plugin("lora", vit, places=["v"], blocks=[0]))
    seen = []
    handle = vit.model.blocks[0].attn.qkv.register_forward_hook(lambda _, args, output: seen.append(output))
    images = torch.randn(2, 3, 32, 32)
    vit(images)
    handle.remove()
    with attach(vit, plugin):
        handle = vit.model.blocks[0].attn.qkv.register_forward_hook(lambda _, args, output: seen.append(output))
        vit(images)
        handle.remove()
    assert torch.equal(seen[0][..., :64], seen[1][..., :64])
    assert not torch.equal(seen[0][..., 64:], seen[1][..., 64:])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["convpass", "lora"])
def test_an_attached_backbone_compiles(vit, shake, kind):
    plugin = shake(create_plugin(kind, vit)).eval()
    images = torch.randn(2, 3, 32, 32)
    with attach(vit, plugin), torch.no_grad():
        expected = vit(images)
        compiled = torch.compile(vit, backend="aot_eager")
        assert_near(compiled(images), expected)
        assert_near(compiled(images), expected)
