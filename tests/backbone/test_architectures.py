"""Every plug-in type on every family of timm models, at sizes that run in a moment."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from vimlight.backbone import READOUTS, Backbone, Preprocessing, create_backbone
from vimlight.errors import BackboneError
from vimlight.plugins import attach, create_plugin, list_plugins

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
CONVNEXT = {"img_size": 64, "depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}

# name of the case: model, its arguments, places of its sites, layout, prefix tokens, grid
ARCHITECTURES = {
    "vit": ("vit_tiny_patch16_224", VIT, "branches", "NLC", 1, (4, 4)),
    "vit, rectangular": ("vit_tiny_patch16_224", VIT | {"img_size": (24, 48)}, "branches", "NLC", 1, (3, 6)),
    "vit, other image size": ("vit_tiny_patch16_224", VIT | {"img_size": 56}, "branches", "NLC", 1, (7, 7)),
    "vit, LayerScale": ("vit_tiny_patch16_224", VIT | {"init_values": 0.1}, "branches", "NLC", 1, (4, 4)),
    "vit, class token pooled away": (
        "vit_tiny_patch16_224", VIT | {"class_token": False, "global_pool": "avg"}, "branches", "NLC", 0, (4, 4),
    ),
    "vit, parallel": ("vit_base_patch16_xp_224", VIT, "blocks", "NLC", 1, (4, 4)),
    "vit, wide parallel": ("vit_pwee_patch16_reg1_gap_256", VIT, "blocks", "NLC", 1, (4, 4)),
    "clip": ("vit_base_patch16_clip_224", VIT, "branches", "NLC", 1, (4, 4)),
    "siglip, no prefix": ("vit_base_patch16_siglip_224", VIT, "branches", "NLC", 0, (4, 4)),
    "dinov2, registers": ("vit_base_patch14_reg4_dinov2", VIT, "branches", "NLC", 5, (4, 4)),
    "dinov3, rotary": ("vit_small_patch16_dinov3", VIT, "branches", "NLC", 5, (4, 4)),
    "registers, no class token": ("vit_mediumd_patch16_reg4_gap_256", VIT, "branches", "NLC", 4, (4, 4)),
    "post-norm": ("vit_base_patch16_rpn_224", VIT, "branches", "NLC", 0, (4, 4)),
    "relative positions": ("vit_relpos_base_patch16_clsgap_224", VIT, "branches", "NLC", 1, (4, 4)),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", VIT, "branches", "NLC", 2, (4, 4)),
    "deit3": ("deit3_small_patch16_224", VIT, "branches", "NLC", 1, (4, 4)),
    "beit": ("beit_base_patch16_224", VIT, "branches", "NLC", 1, (4, 4)),
    "eva02, fused qkv": ("eva02_tiny_patch14_224", VIT, "branches", "NLC", 1, (4, 4)),
    "eva02 clip, split qkv": ("eva02_base_patch16_clip_224", VIT, "branches", "NLC", 1, (4, 4)),
    "perception encoder": ("vit_pe_core_tiny_patch16_384", VIT, "branches", "NLC", 1, (4, 4)),
    "cait": ("cait_xxs24_224", VIT, "blocks", "NLC", 0, (4, 4)),
    "xcit": (
        "xcit_nano_12_p16_224", {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2}, "branches", "NLC", 0,
        (2, 2),
    ),
    "twins": ("twins_pcpvt_small", {"img_size": 32, "depths": (1, 1, 1, 1)}, "branches", "NLC", 0, (8, 8)),
    "levit": ("levit_128s", {"img_size": 64}, "branches", "NLC", 0, (4, 4)),
    "mixer": ("mixer_s32_224", {"img_size": 64}, "blocks", "NLC", 0, (2, 2)),
    "gmlp": ("gmlp_ti16_224", {"img_size": 64}, "blocks", "NLC", 0, (4, 4)),
    "swin": ("swin_tiny_patch4_window7_224", SWIN, "blocks", "NHWC", 0, (0, 0)),
    "swin, rectangular": ("swin_tiny_patch4_window7_224", SWIN | {"img_size": (32, 64)}, "blocks", "NHWC", 0, (0, 0)),
    "swinv2": ("swinv2_tiny_window8_256", SWIN, "blocks", "NHWC", 0, (0, 0)),
    "pvt": (
        "pvt_v2_b0",
        {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 2, 3, 4)},
        "branches", "NLC", 0, (16, 16),
    ),
    "sam": (
        "samvit_base_patch16", {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2}, "blocks", "NHWC", 0,
        (0, 0),
    ),
    "maxvit": ("test_maxvit", {"img_size": 64}, "blocks", "NCHW", 0, (0, 0)),
    "resnet": ("test_resnet", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "nfnet": ("test_nfnet", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "byobnet": ("test_byobnet", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "efficientnet": ("test_efficientnet", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "efficientnet, padded as in TensorFlow": ("tf_efficientnet_lite0", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "mobilenet": ("mobilenetv3_small_050", {"img_size": 32}, "blocks", "NCHW", 0, (0, 0)),
    "convnext": ("convnext_atto", CONVNEXT, "blocks", "NCHW", 0, (0, 0)),
    "convnext, rectangular": ("convnext_atto", CONVNEXT | {"img_size": (32, 96)}, "blocks", "NCHW", 0, (0, 0)),
    "convnextv2": ("convnextv2_atto", CONVNEXT, "blocks", "NCHW", 0, (0, 0)),
    "mambaout": ("test_mambaout", {"img_size": 64}, "blocks", "NHWC", 0, (0, 0)),
}  # fmt: skip


def shaken(module: nn.Module) -> nn.Module:
    """Moves every parameter, since many families start with parts that compute nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return module


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def case(request):
    torch.manual_seed(0)
    name, arguments, *expected = ARCHITECTURES[request.param]
    return shaken(create_backbone(name, **arguments)), expected


def images(backbone):
    return torch.randn(2, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(1))


def test_sites_and_layout_are_as_expected(case):
    backbone, (family, kind, prefix, grid) = case
    places = [[site.place for site in backbone.sites if site.depth == depth] for depth in range(len(backbone.blocks))]
    assert places[0] == {"branches": ["attn", "mlp"], "blocks": ["block"]}[family]
    # A block of class attention may have one branch that fits together.
    assert all(each == ["block"] or (each and set(each) <= {"attn", "mlp"}) for each in places)
    layout = backbone.sites[0].layout
    assert (layout.kind, layout.prefix, layout.grid) == (kind, prefix, grid)
    names = [site.name for site in backbone.all_sites]
    assert len(names) == len(set(names))


def test_sites_tell_the_shapes_that_pass_there(case):
    backbone, _ = case
    seen = {}
    modules = dict(backbone.model.named_modules())
    handles = [
        modules[site.output_module].register_forward_hook(
            lambda _, args, output, name=site.name: seen.update({name: output.shape})
        )
        for site in backbone.all_sites
    ]
    backbone(images(backbone))
    for handle in handles:
        handle.remove()
    for site in backbone.all_sites:
        width = seen[site.name][site.layout.channel_dim]
        assert width == site.width or site.part is not None, site
        if site.layout.kind == "NLC" and site.layout.grid != (0, 0):
            assert seen[site.name][1] == site.layout.prefix + site.layout.grid[0] * site.layout.grid[1], site


@pytest.mark.parametrize("kind", list_plugins())
def test_every_plugin_type_moves_the_output_and_leaves_no_trace(case, kind):
    backbone, _ = case
    batch = images(backbone)
    bare = backbone(batch)
    plugin = shaken(create_plugin(kind, backbone)).eval()
    with attach(backbone, plugin), torch.no_grad():
        moved = backbone(batch)
    assert moved.shape == bare.shape
    assert moved.isfinite().all()
    assert not torch.allclose(moved, bare, rtol=1e-4, atol=1e-6)
    assert torch.equal(backbone(batch), bare)


@pytest.mark.parametrize("readout", [name for name in READOUTS if name != "last"])
def test_features_of_all_layers_have_the_announced_width(case, readout):
    backbone, _ = case
    features = backbone(images(backbone), readout=readout)
    assert features.shape == (2, backbone.num_features(readout))
    last = backbone.num_features()
    assert torch.equal(features[:, :last], backbone(images(backbone)))
    assert features.shape[1] > last


@pytest.mark.parametrize("name", ["vit", "beit", "relative positions", "deit3", "clip", "swin", "pvt", "cait"])
def test_the_keys_of_a_fused_layer_are_its_keys(name):
    """A constant added to all keys leaves softmax attention as it is; the same on queries or values does not."""
    model, arguments, *_ = ARCHITECTURES[name]
    backbone = shaken(create_backbone(model, **arguments))
    batch = images(backbone)
    bare = backbone(batch)

    def change(letter):
        sites = [site for site in backbone.all_sites if site.place == letter]
        assert sites
        handles = []
        for site in sites:
            first, last = site.part or (0, site.width)
            shift = torch.zeros(backbone.model.get_submodule(site.output_module).out_features)
            shift[first:last] = 2.0
            layer = backbone.model.get_submodule(site.output_module)
            handles.append(layer.register_forward_hook(lambda _, args, output, shift=shift: output + shift))
        changed = (backbone(batch) - bare).abs().max()
        for handle in handles:
            handle.remove()
        return changed

    assert change("k") < 1e-4 * bare.abs().max()
    assert change("v") > 1e-2 * bare.abs().max()
    assert change("q") > 1e-4 * bare.abs().max()


def test_interleaved_heads_are_not_taken_for_queries_keys_and_values():
    backbone = create_backbone("test_maxvit", img_size=64)
    places = {site.place for site in backbone.all_sites}
    assert "qkv" in places
    assert not places & {"q", "k", "v"}


def test_a_model_without_blocks_is_refused_with_what_was_found():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(BackboneError, match=r"'plain' has no blocks .* its parts are: 0 \(Conv2d\), 1 \(ReLU\), 2"):
        Backbone(model, "plain", Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3))
