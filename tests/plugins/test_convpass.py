"""Convpass against its formulas, written out."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near

from vimlight.backbone import create_backbone
from vimlight.errors import BackboneError, PluginError
from vimlight.plugins import attach, create_plugin


def quick_gelu(x):
    return x / (1 + torch.exp(-1.702 * x))


def by_the_formulas(unit, n, side):
    """ViM's module on `(N, 1 + side * side, d)`, position by position and tap by tap."""
    u = quick_gelu(n @ unit.down.weight.T + unit.down.bias)
    kernel, bias = unit.conv.weight, unit.conv.bias
    v = torch.empty_like(u)
    v[:, 0] = u[:, 0] @ kernel[:, :, 1, 1].T + bias
    for row in range(side):
        for column in range(side):
            total = bias
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    if 0 <= row + i < side and 0 <= column + j < side:
                        neighbour = u[:, 1 + (row + i) * side + column + j]
                        total = total + neighbour @ kernel[:, :, 1 + i, 1 + j].T
            v[:, 1 + row * side + column] = total
    return quick_gelu(v) @ unit.up.weight.T + unit.up.bias


def clip(side):
    arguments = {"img_size": 4 * side, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 2}
    return create_backbone("vit_base_patch16_clip_quickgelu_224", **arguments)


@pytest.mark.parametrize("side", [7, 14])
@torch.no_grad()
def test_a_unit_equals_the_formulas(shake, side):
    backbone = clip(side)
    unit = shake(create_plugin("convpass", backbone, hidden=5), 0.3).unit("blocks.1.mlp")
    n = torch.randn(2, 1 + side * side, 24)
    assert_near(unit(n), by_the_formulas(unit, n, side))


@torch.no_grad()
def test_units_stand_parallel_to_attention_and_mlp_and_read_the_normed_input(shake):
    backbone = clip(7)
    plugin = shake(create_plugin("convpass", backbone), 0.1)
    images = torch.randn(2, 3, 28, 28)
    model = backbone.model
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    for index, block in enumerate(model.blocks):
        n1 = block.norm1(x)
        x = x + block.attn(n1) + by_the_formulas(plugin.unit(f"blocks.{index}.attn"), n1, 7)
        n2 = block.norm2(x)
        x = x + block.mlp(n2) + by_the_formulas(plugin.unit(f"blocks.{index}.mlp"), n2, 7)
    expected = model.forward_head(model.norm(x))
    with attach(backbone, plugin):
        assert_near(backbone(images), expected)


@torch.no_grad()
def test_it_starts_with_the_kernel_an_identity():
    unit = create_plugin("convpass", clip(7), hidden=6).unit("blocks.0.attn")
    u = torch.randn(1, 6, 7, 7)
    assert torch.equal(unit.conv(u), u)
    assert unit.down.weight.any()
    assert not unit.up.weight.any()


@torch.no_grad()
@pytest.mark.parametrize("size", [(32, 64), (32, 16), (24, 24)], ids=["larger", "turned", "square"])
def test_where_tokens_lie_in_images_of_another_size_is_not_guessed(size):
    arguments = {"patch_size": 4, "embed_dim": 24, "depth": 4, "num_heads": 2, "dynamic_img_size": True}
    backbone = create_backbone("vit_tiny_patch16_224", img_size=(16, 32), **arguments)
    images = torch.randn(1, 3, *size)
    for readout in ("last", "layers"):
        assert backbone(images, readout).isfinite().all()
    message = rf"are known to lie in images of 16 x 32 pixels, not of {size[0]} x {size[1]}; .* img_size: \[{size[0]}, "
    for readout in ("grid", "maps"):
        with pytest.raises(BackboneError, match=message):
            backbone(images, readout)
    plugin = create_plugin("convpass", backbone)
    with attach(backbone, plugin), pytest.raises(BackboneError, match=message):
        backbone(images)
    with pytest.raises(PluginError, match="7 patch tokens are no grid of 4 x 8"):
        plugin.unit("blocks.0.attn")(torch.randn(1, 8, 24))


def test_a_width_of_nothing_is_refused(vit):
    with pytest.raises(PluginError, match="hidden must be at least 1, got 0"):
        create_plugin("convpass", vit, hidden=0)
