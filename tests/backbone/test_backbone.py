"""The frozen backbone: creation, freezing, identity, read-outs and mistakes."""

from __future__ import annotations

import copy
import json
import pickle
from contextlib import nullcontext

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from vimlight.backbone import Backbone, Layout, Preprocessing, create_backbone
from vimlight.backbone.readout import pool
from vimlight.errors import BackboneError, ConfigError, UnknownNameError, VimlightError
from vimlight.files import hub
from vimlight.plugins import attach, create_plugin

TINY = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny(seed=0, **arguments):
    torch.manual_seed(seed)
    return create_backbone("vit_tiny_patch16_224", **(TINY | arguments))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "test_resnet", "test_efficientnet"])
def test_it_is_frozen_for_ever(name):
    backbone = create_backbone(name, img_size=32)
    before = backbone.compute_fingerprint()
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert backbone.train() is backbone
    assert not any(module.training for module in backbone.modules())
    torch.nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    backbone(torch.randn(4, 3, 32, 32))
    assert backbone.compute_fingerprint() == before
    with pytest.raises(BackboneError, match="frozen for ever"):
        backbone.requires_grad_()
    assert backbone.requires_grad_(False) is backbone


def test_gradients_pass_through_it():
    images = torch.randn(1, 3, 32, 32, requires_grad=True)
    tiny()(images)[:, 0].sum().backward()
    assert images.grad.abs().sum() > 0


def test_the_fingerprint_names_weights_and_preprocessing():
    backbone = tiny()
    assert backbone.fingerprint == tiny().fingerprint == copy.deepcopy(backbone).compute_fingerprint()
    assert backbone.fingerprint == pickle.loads(pickle.dumps(backbone)).compute_fingerprint()
    assert len(backbone.fingerprint) == 64
    changed = copy.deepcopy(backbone)
    with torch.no_grad():
        changed.model.blocks[1].mlp.fc2.bias[0] += 1e-6
    other_mean = Preprocessing(**backbone.preprocessing.as_dict() | {"mean": (0.4, 0.5, 0.5)})
    fingerprints = [
        backbone.fingerprint,
        tiny(seed=1).fingerprint,
        changed.compute_fingerprint(),
        Backbone(copy.deepcopy(backbone.model), backbone.name, other_mean).fingerprint,
        Backbone(copy.deepcopy(backbone.model).half(), backbone.name, backbone.preprocessing).fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_batch_statistics_are_part_of_the_fingerprint():
    backbone = create_backbone("test_resnet", img_size=32)
    before = backbone.compute_fingerprint()
    next(module for module in backbone.modules() if hasattr(module, "running_mean")).running_mean[0] += 1.0
    assert backbone.compute_fingerprint() != before


def test_creation_leaves_the_random_state_to_the_model_alone():
    torch.manual_seed(5)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=0, **TINY)
    state = torch.get_rng_state()
    assert torch.equal(tiny(5).model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_computes_what_timm_computes():
    for name, arguments in (("vit_tiny_patch16_224", TINY), ("beit_base_patch16_224", TINY)):
        torch.manual_seed(0)
        model = timm.create_model(name, num_classes=0, **arguments).eval()
        torch.manual_seed(0)
        images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(create_backbone(name, **arguments)(images), model(images), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("size", "expected"), [(48, (48, 48)), ((24, 48), (24, 48))])
def test_preprocessing_follows_the_image_size(size, expected):
    assert tiny(img_size=size).preprocessing.size == expected
    assert create_backbone("test_resnet", img_size=size).preprocessing.size == expected


def test_preprocessing_is_the_models_own():
    backbone = create_backbone("vit_base_patch16_clip_224", **TINY)
    assert backbone.preprocessing.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert backbone.preprocessing.interpolation == "bicubic"
    assert json.dumps(backbone.preprocessing.as_dict())


def test_readouts():
    backbone = tiny()
    images = torch.randn(2, 3, 32, 32)
    features = backbone(images, readout="layers")
    assert features.shape == (2, 32 + 2 * 2 * 32)
    assert backbone.num_features() == 32
    assert backbone.num_features("layers") == features.shape[1]
    tokens = backbone.model.forward_features(images)
    first = backbone.model.blocks[0](backbone.model.norm_pre(backbone.model._pos_embed(
        backbone.model.patch_embed(images))))  # fmt: skip
    torch.testing.assert_close(features[:, :32], tokens[:, 0])
    torch.testing.assert_close(features[:, 32:96], torch.cat([first[:, 0], first[:, 1:].mean(1)], dim=1))
    with pytest.raises(UnknownNameError, match="unknown readout 'layer'; did you mean 'layers'"):
        backbone(images, readout="layer")


def test_the_grid_readout_averages_each_quarter_apart():
    backbone = tiny()
    images = torch.randn(2, 3, 32, 32)
    layers, grid = backbone(images, readout="layers"), backbone(images, readout="grid")
    assert grid.shape == (2, 32 + 2 * (32 + 4 * 32)) == (2, backbone.num_features("grid"))
    token, quarters = grid[:, 32:64], grid[:, 64:192].unflatten(1, (32, 2, 2))
    torch.testing.assert_close(token, layers[:, 32:64])
    torch.testing.assert_close(quarters.mean(dim=(2, 3)), layers[:, 64:96])
    patches = backbone.model.blocks[0](backbone.model.norm_pre(backbone.model._pos_embed(
        backbone.model.patch_embed(images))))[:, 1:].unflatten(1, (4, 4))  # fmt: skip
    torch.testing.assert_close(quarters[:, :, 0, 1], patches[:, :2, 2:].mean(dim=(1, 2)))


@pytest.mark.parametrize("shape", [(2, 7, 7, 3), (2, 4, 5, 3)], ids=["odd grid", "rectangle"])
@pytest.mark.parametrize("kind", ["NHWC", "NCHW", "NLC"])
def test_pooling_reads_every_layout_alike(shape, kind):
    maps = torch.randn(shape)
    output = {"NHWC": maps, "NCHW": maps.permute(0, 3, 1, 2), "NLC": maps.flatten(1, 2)}[kind]
    layout = Layout(kind, grid=shape[1:3] if kind == "NLC" else (0, 0))
    rows, columns = -(-shape[1] // 2), -(-shape[2] // 2)
    cells = pool(output, layout, 2).unflatten(1, (3, 2, 2))
    torch.testing.assert_close(cells[:, :, 0, 0], maps[:, :rows, :columns].mean(dim=(1, 2)))
    torch.testing.assert_close(cells[:, :, 1, 0], maps[:, -rows:, :columns].mean(dim=(1, 2)))
    torch.testing.assert_close(pool(output, layout), maps.mean(dim=(1, 2)))


@pytest.mark.parametrize(
    ("shape", "layout"),
    [((2, 1, 6, 3), Layout("NHWC")), ((2, 5, 3), Layout("NLC", 1, (0, 0))), ((2, 3), Layout("NC"))],
    ids=["too few rows", "no grid", "vectors"],
)
def test_what_has_no_quarters_is_averaged_as_a_whole(shape, layout):
    output = torch.randn(shape)
    assert torch.equal(pool(output, layout, 2), pool(output, layout))


def test_a_misspelt_model_is_answered_with_the_nearest():
    with pytest.raises(
        UnknownNameError, match=r"unknown backbone 'vit_tiny_patch16_244'; did you mean 'vit_tiny_patch"
    ):
        create_backbone("vit_tiny_patch16_244")


def test_a_misspelt_timm_argument_is_named():
    with pytest.raises(BackboneError, match=r"timm refuses the arguments of 'vit_tiny_patch16_224'.*embed_dmi"):
        create_backbone("vit_tiny_patch16_224", embed_dmi=32)


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("pvt_v2_b0", {"embed_dims": (8, 16, 24, 32)}, "'pvt_v2_b0' could not be created: dim 24 should be divided"),
        ("vit_tiny_patch16_224", {"in_chans": 1}, r"does not run on images \(3, 224, 224\): .*1 channels"),
        ("inception_v3", {"img_size": 16}, r"'inception_v3' does not run on images \(3, 16, 16\): "),
    ],
)
def test_arguments_that_do_not_go_together_are_one_clear_error(name, arguments, message):
    with pytest.raises(BackboneError, match=message) as caught:
        create_backbone(name, **arguments)
    assert len(str(caught.value).splitlines()) == 1


ENCODERS = {
    "qwen3_vit_88m_enc": {"img_size": 64, "embed_dim": 32, "depth": 2, "num_heads": 2},
    "deepseek_vit_412m_enc": {"img_size": 48, "embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 8},
    "vit_tiny_patch16_224": TINY | {"global_pool": ""},
    "test_resnet": {"img_size": 32, "global_pool": ""},
}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_model_that_gives_no_vector_is_refused(name):
    with pytest.raises(BackboneError, match=rf"'{name}' gives \(\d+, .*\) for an image, not one vector"):
        create_backbone(name, **ENCODERS[name])


@pytest.mark.parametrize("classes", [1, 1000])
def test_a_classifier_is_refused(classes):
    with pytest.raises(BackboneError, match=f"num_classes={classes}: a backbone gives features and has no classifier"):
        tiny(num_classes=classes)
    assert tiny(num_classes=0).num_features() == 32


def test_the_projection_of_a_clip_tower_is_no_classifier():
    backbone = create_backbone("vit_base_patch16_clip_224", num_classes=12, **TINY)
    assert backbone.num_features() == 12


def test_registers_and_attention_pooling_go_together():
    backbone = create_backbone("vit_so150m_patch16_reg4_map_256", **TINY)
    assert (backbone.blocks[0].layout.prefix, backbone.blocks[0].layout.grid) == (4, (4, 4))
    assert backbone(torch.randn(2, 3, 32, 32), "grid").shape == (2, backbone.num_features("grid"))


def local_directory(folder, model_name="test_vit", **changes):
    """Writes a directory as `timm`'s `save_for_hf` lays it out."""
    torch.manual_seed(7)
    model = timm.create_model(model_name, num_classes=5)
    save_file(model.state_dict(), folder / "model.safetensors")
    keys = ("input_size", "mean", "std", "interpolation", "crop_pct", "first_conv", "classifier", "pool_size")
    config = {key: model.pretrained_cfg[key] for key in keys} | changes
    (folder / "config.json").write_text(
        json.dumps({"architecture": model_name, "num_classes": 5, "pretrained_cfg": config})
    )
    return model.eval()


def test_a_local_directory_is_a_backbone(tmp_path):
    model = local_directory(tmp_path, mean=(0.1, 0.2, 0.3))
    backbone = create_backbone(f"local-dir:{tmp_path}", pretrained=True)
    assert backbone.preprocessing.mean == (0.1, 0.2, 0.3)
    assert torch.equal(backbone.model.blocks[0].attn.qkv.weight, model.blocks[0].attn.qkv.weight)
    assert backbone(torch.randn(1, 3, *backbone.preprocessing.size)).shape == (1, 64)


def test_a_local_directory_that_is_missing_or_empty_is_refused(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BackboneError, match="could not be created"):
            create_backbone(f"local-dir:{folder}", pretrained=True)


def test_the_hub_without_a_network_is_one_clear_error():
    for name in ("hf-hub:timm/no_such_model", "hf_hub:timm/no_such_model"):
        with pytest.raises(BackboneError, match="could not be created") as caught:
            create_backbone(name, pretrained=True)
        assert len(str(caught.value).splitlines()) == 1


def test_pretrained_weights_that_cannot_be_had_are_one_clear_error():
    said = r"'test_vit' could not be created: huggingface.co is not reached and .* not on this disk; give checkp"
    with pytest.raises(BackboneError, match=said) as caught:
        create_backbone("test_vit", pretrained=True)
    assert len(str(caught.value).splitlines()) == 1


def test_a_hub_that_does_not_answer_is_not_asked_again_and_again(monkeypatch, caplog):
    asked = []

    def connect(address, timeout):
        asked.append(address)
        raise OSError("no network in this test")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(hub.socket, "create_connection", connect)
    monkeypatch.setattr(hub, "_PAUSE", 0.0)
    with pytest.raises(BackboneError, match=r"huggingface.co is not reached .* set HF_HUB_OFFLINE=1$"):
        create_backbone("test_vit", pretrained=True)
    assert asked == 2 * [("huggingface.co", 443)]
    assert "Retrying" not in caplog.text
    assert constants.HF_HUB_OFFLINE is False
    # What is not of the hub does not ask for it.
    create_backbone("vit_scenes_small", pretrained=True)
    create_backbone("test_vit")
    assert len(asked) == 2


@pytest.mark.parametrize("by", ["proxy", "answer"])
def test_a_hub_that_answers_is_asked_as_ever(monkeypatch, by):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", lambda: {"https": "http://proxy"} if by == "proxy" else {})
    monkeypatch.setattr(hub.socket, "create_connection", lambda *_, **__: nullcontext())
    with hub.hub_or_disk():
        assert constants.HF_HUB_OFFLINE is False


def test_maps_are_the_outputs_of_four_blocks():
    backbone = create_backbone("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=12, num_heads=2)
    assert [site.name for site in backbone.taps()] == ["blocks.2", "blocks.5", "blocks.8", "blocks.11"]
    images = torch.randn(2, 3, 32, 32)
    maps = backbone(images, "maps")
    assert [tuple(x.shape) for x in maps] == [(2, 32, 4, 4)] * 4
    assert backbone.feature_shapes("maps") == [(32, 4, 4)] * 4
    expected = backbone.model.forward_intermediates(images, indices=[2, 5, 8, 11], intermediates_only=True)
    for found, wanted in zip(maps, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    chosen = backbone(images, "maps:3,5,7,11")
    assert torch.equal(chosen[1], maps[1])
    assert torch.equal(chosen[3], maps[3])
    assert not torch.equal(chosen[0], maps[0])


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "swin_tiny_patch4_window7_224"])
def test_maps_of_stages_fall_in_resolution(name):
    options = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 1, 1), "window_size": 2}
    size = 64
    backbone = create_backbone(name, img_size=size, **(options if name.startswith("swin") else {}))
    maps = backbone(torch.randn(2, 3, size, size), "maps")
    sizes = [x.shape[2] for x in maps]
    assert 2 <= len(maps) <= 4
    assert sizes == sorted(set(sizes), reverse=True)
    assert [tuple(x.shape[1:]) for x in maps] == backbone.feature_shapes("maps")


def test_maps_see_attached_plugins():
    backbone, images = tiny(), torch.randn(2, 3, 32, 32)
    bare = backbone(images, "maps")
    plugin = create_plugin("convpass", backbone, hidden=2)
    with torch.no_grad():
        for parameter in plugin.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape))
    with attach(backbone, plugin):
        changed = backbone(images, "maps")
    assert not any(torch.equal(first, second) for first, second in zip(bare, changed, strict=True))
    assert all(torch.equal(first, second) for first, second in zip(bare, backbone(images, "maps"), strict=True))


@pytest.mark.parametrize(
    ("readout", "text"),
    [
        ("map", "unknown readout 'map'; did you mean 'maps'"),
        ("maps:2,x", r"'maps:2,x': expected numbers of blocks behind the colon"),
        ("maps:7", r"'maps:7': there are \d+ blocks, counted from 0"),
    ],
)
def test_unknown_maps(readout, text):
    backbone = tiny()
    with pytest.raises(VimlightError, match=text):
        backbone(torch.randn(2, 3, 32, 32), readout)
    with pytest.raises(ConfigError, match="'maps' gives maps, which have no single width"):
        backbone.num_features("maps")
