"""Exported adapters on fresh timm models, for every class of timm's attention that has a fused layer."""

from __future__ import annotations

import copy
import inspect
import re
from pathlib import Path

import pytest
import timm
import timm.models.vision_transformer as vision_transformer
import torch

from vimlight.backbone import Backbone, Preprocessing, create_backbone
from vimlight.errors import CheckpointError
from vimlight.interop.peft import read, write
from vimlight.plugins import Plugin, attach, create_plugin
from vimlight.plugins.lora import Lora
from vimlight.zoo import Zoo

peft = pytest.importorskip("peft")

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 1, "num_heads": 2}
SWIN = {"img_size": 64, "window_size": 4, "embed_dim": 16, "depths": (1, 1), "num_heads": (2, 2)}
SIZE = {"img_size": 64}
# Models of any size, which they are not told.
ANY_SIZE = (
    "davit_tiny", "edgenext_xx_small", "efficientvit_b0", "pvt_v2_b0", "fastvit_sa12", "sam2_hiera_tiny", "shvit_s1",
)  # fmt: skip
ONE = {"img_size": 64, "depths": (1, 1, 1, 1)}
DAVIT = {"img_size": 64, "depths": (1, 1, 1, 1), "embed_dims": (16, 32, 64, 64), "num_heads": (1, 2, 4, 4)}
ASSIGNED = r"self\.(qkv|kv|qk|qkv_proj|in_proj) ?= ?[\w.]+\("


def parallel(block):
    return {**VIT, "block_fn": getattr(vision_transformer, block)}


# A model with each class; those that take more than a moment are slow.
QUICK = {
    "attention.Attention": ("vit_tiny_patch16_224", VIT),
    "attention.AttentionRope": ("vit_small_patch16_rope_224", VIT),
    "attention_pool.AttentionPoolLatent": ("vit_base_patch16_siglip_224", VIT),
    "beit.Attention": ("beit_base_patch16_224", VIT),
    "cait.TalkingHeadAttn": ("cait_xxs24_224", VIT),
    "convit.GPSA": ("convit_tiny", VIT),
    "convit.MHSA": ("convit_tiny", {**VIT, "local_up_to_layer": 0}),
    "davit.ChannelAttention": ("davit_tiny", DAVIT),
    "davit.WindowAttention": ("davit_tiny", DAVIT),
    "diff_attention.DiffAttention": ("vit_tiny_patch16_224", {**VIT, "attn_layer": "diff"}),
    "edgenext.CrossCovarianceAttn": ("edgenext_xx_small", SIZE),
    "efficientvit_mit.LiteMLA": ("efficientvit_b0", SIZE),
    "eva.EvaAttention": ("eva02_tiny_patch14_224", VIT),
    "eva.EvaAttention of DINOv3": ("vit_small_patch16_dinov3", VIT),
    "eva.EvaAttention of DINOv3 with biases": ("vit_small_patch16_dinov3_qkvb", VIT),
    "eva.EvaAttention of EVA": ("eva_giant_patch14_224", VIT),
    "hiera.MaskUnitAttention": ("hiera_tiny_224", {"img_size": 64, "stages": (1, 1, 1, 1), "embed_dim": 16}),
    "pvt_v2.Attention": ("pvt_v2_b0", ONE),
    "swin_transformer.WindowAttention": ("swin_tiny_patch4_window7_224", SWIN),
    "swin_transformer_v2.WindowAttention": ("swinv2_tiny_window8_256", SWIN),
    "swin_transformer_v2_cr.WindowMultiHeadAttention": ("swinv2_cr_tiny_224", SWIN),
    "vision_transformer.DiffParallelScalingBlock": ("vit_tiny_patch16_224", parallel("DiffParallelScalingBlock")),
    "vision_transformer.ParallelScalingBlock": ("vit_tiny_patch16_224", parallel("ParallelScalingBlock")),
    "vision_transformer_relpos.RelPosAttention": ("vit_relpos_small_patch16_224", VIT),
    "vision_transformer_sam.Attention": ("samvit_base_patch16", {**VIT, "global_attn_indexes": ()}),
    "xcit.XCA": ("xcit_nano_12_p16_224", {**VIT, "patch_size": 16, "cls_attn_layers": 1}),
}
SLOW = {
    "bottleneck_attn.BottleneckAttn": ("botnet26t_256", SIZE),
    "coat.FactorAttnConvRelPosEnc": ("coat_lite_tiny", SIZE),
    "efficientformer.Attention": ("efficientformer_l1", {}),
    "fastvit.Attention": ("fastvit_sa12", SIZE),
    "gcvit.WindowAttentionGlobal": ("gcvit_xxtiny", SIZE),
    "halo_attn.HaloAttn": ("halonet26t", {}),
    "hieradet_sam2.MultiScaleAttention": ("sam2_hiera_tiny", SIZE),
    "lambda_layer.LambdaLayer": ("lambda_resnet26t", SIZE),
    "levit.Attention": ("levit_128s", SIZE),
    "levit.AttentionDownsample": ("levit_128s", SIZE),
    "maxxvit.Attention2d": ("coatnet_nano_rw_224", SIZE),
    "maxxvit.AttentionCl": ("maxvit_nano_rw_256", SIZE),
    "metaformer.Attention": ("caformer_s18", {}),
    "mobilevit.LinearSelfAttention": ("mobilevitv2_050", SIZE),
    "nest.Attention": ("nest_tiny", SIZE),
    "shvit.SHSA": ("shvit_s1", SIZE),
    "tiny_vit.Attention": ("tiny_vit_5m_224", {}),
    "twins.GlobalSubSampleAttn": ("twins_pcpvt_small", ONE),
    "twins.LocallyGroupedAttn": ("twins_svt_small", ONE),
    "visformer.Attention": ("visformer_tiny", {**SIZE, "depth": (1, 1, 1)}),
    "volo.Attention": ("volo_d1_224", SIZE),
    "volo.ClassAttention": ("volo_d1_224", SIZE),
}
# Classes at whose layers no model takes a `lora` module: it has no blocks here, or the layer is none to adapt.
BEYOND = {
    "attention2d.Attention2d", "attention_pool2d.AttentionPool2d", "attention_pool2d.RotAttentionPool2d",
    "csatv2.SpatialTransformerBlock", "davit.ChannelAttentionV2", "mvitv2.MultiScaleAttention", "tnt.Attention",
}  # fmt: skip
CASES = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
# The fused layers that these models use past PEFT's adapters.
UNCALLED = {
    "beit.Attention", "swin_transformer_v2.WindowAttention", "eva.EvaAttention",
    "eva.EvaAttention of DINOv3 with biases", "eva.EvaAttention of EVA",
}  # fmt: skip


def attention_classes():
    """Every class of timm with a layer for queries, keys and values at once, as `file.Class`."""
    found = set()
    for folder in ("models", "layers"):
        for file in (Path(timm.__file__).parent / folder).glob("*.py"):
            for text in file.read_text().split("\nclass ")[1:]:
                if re.search(ASSIGNED, text):
                    found.add(f"{file.stem}.{text[: text.index('(')]}")
    return found


def made(name, arguments):
    """A timm model with weights that all have an effect, and the backbone of a copy."""
    generator = torch.Generator().manual_seed(0)
    arguments, size = dict(arguments), arguments.get("img_size")
    if name in ANY_SIZE:
        del arguments["img_size"]
    model = timm.create_model(name, num_classes=0, **arguments).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model, Backbone(copy.deepcopy(model), name, Preprocessing.of(model, size))


def filled(plugin):
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in plugin.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return plugin.eval()


def exported(backbone, plugin, folder):
    Zoo(folder / "zoo").add("mine", plugin)
    write(Zoo(folder / "zoo"), "mine", folder / "adapter", backbone)
    return folder / "adapter"


def images(backbone):
    return torch.randn(2, 3, *backbone.preprocessing.size, generator=torch.Generator().manual_seed(2))


def test_every_class_with_a_fused_layer_has_a_model():
    assert {name.partition(" of ")[0] for name in (*QUICK, *SLOW)} | BEYOND == attention_classes()


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_an_adapter_of_the_fused_layers_works_on_a_fresh_model_or_is_refused(tmp_path, case):
    model, backbone = made(*{**QUICK, **SLOW}[case])
    kind = case.partition(" of ")[0]
    fused = {
        f"{name}.{found[1]}"
        for name, part in model.named_modules()
        if f"{type(part).__module__.rpartition('.')[2]}.{type(part).__name__}" == kind
        for found in [re.search(ASSIGNED, inspect.getsource(type(part)))]
    }
    sites = [
        site for site in backbone.all_sites.layers
        if site.part is None and Lora.supports(site) and any(f"{site.name}.".startswith(f"{name}.") for name in fused)
    ]  # fmt: skip
    assert sites
    plugin = filled(Plugin("lora", sites, {"rank": 2}, backbone.fingerprint, backbone.name, backbone.preprocessing))
    if case in UNCALLED:
        with pytest.raises(CheckpointError, match=r"qkv', whose weights timm's .* uses without calling it, so PEFT's"):
            exported(backbone, plugin, tmp_path)
        assert not (tmp_path / "adapter").exists()
        return
    adapter = peft.PeftModel.from_pretrained(model, exported(backbone, plugin, tmp_path)).eval()
    with attach(backbone, plugin):
        wanted = backbone(images(backbone))
    bound = 1e-3 * wanted.abs().max()
    assert (wanted - backbone(images(backbone))).abs().max() > 5 * bound
    assert (adapter(images(backbone)) - wanted).abs().max() < bound


@pytest.mark.parametrize("case", ["beit.Attention", "eva.EvaAttention", "swin_transformer_v2.WindowAttention"])
@torch.no_grad()
def test_other_layers_of_such_models_work(tmp_path, case):
    model, backbone = made(*QUICK[case])
    plugin = filled(create_plugin("lora", backbone, rank=2, places=["proj", "fc1", "fc2"]))
    adapter = peft.PeftModel.from_pretrained(model, exported(backbone, plugin, tmp_path)).eval()
    with attach(backbone, plugin):
        torch.testing.assert_close(adapter(images(backbone)), backbone(images(backbone)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", ["beit.Attention", "eva.EvaAttention", "swin_transformer_v2.WindowAttention"])
def test_an_adapter_that_was_trained_on_a_plain_model_is_read_as_it_works_there(tmp_path, case):
    model, backbone = made(*QUICK[case])
    adapter = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["qkv", "proj"]))
    optimizer = torch.optim.SGD([p for p in adapter.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        optimizer.zero_grad()
        adapter(images(backbone)).square().mean().backward()
        optimizer.step()
    adapter.eval().save_pretrained(tmp_path / "trained")
    plugin, card, _ = read(tmp_path / "trained", backbone)
    assert all("qkv" not in site for site in plugin.site_names)
    assert "which timm's model never calls, was zero" in card["text"]
    with torch.no_grad(), attach(backbone, plugin):
        torch.testing.assert_close(backbone(images(backbone)), adapter(images(backbone)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "start", "message"),
    [
        (["qkv", "proj"], False, "'beit_base_patch16_224' never calls, so it does nothing there in PEFT; train an"),
        (["qkv"], True, "'beit_base_patch16_224' never calls, so it does nothing in PEFT; train an adapter of other"),
    ],
)
def test_what_would_work_here_but_not_in_peft_is_not_read(tmp_path, targets, start, message):
    model, backbone = made(*QUICK["beit.Attention"])
    config = peft.LoraConfig(r=2, target_modules=targets, init_lora_weights=start)
    peft.get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "adapter", backbone)


def test_a_dilated_convolution_is_not_exported(tmp_path):
    backbone = create_backbone("test_resnet", img_size=32, output_stride=8)
    plugin = filled(create_plugin("lora", backbone, rank=2, places=["conv"]))
    with pytest.raises(CheckpointError, match="is a dilated convolution, whose change PEFT computes otherwise"):
        exported(backbone, plugin, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_the_plain_model_is_lent_only():
    model, backbone = made(*QUICK["beit.Attention"])
    attention = backbone.model.blocks[0].attn
    with backbone.plain() as plain:
        assert not attention.qkv_bias_separate
        torch.testing.assert_close(plain(images(backbone)), model(images(backbone)))
    assert attention.qkv_bias_separate
    with pytest.raises(AttributeError), backbone.plain() as plain:
        plain(None)
    assert attention.qkv_bias_separate
