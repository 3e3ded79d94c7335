"""PETL-ViT's Convpass and AdaptFormer files against their formulas, and every refusal."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near
from safetensors.torch import save_file
from torch.nn import functional as F

from vimlight.backbone import create_backbone
from vimlight.errors import BackboneError, CheckpointError
from vimlight.interop.petl import read
from vimlight.plugins import attach
from vimlight.tasks import AffineHead

WIDTH, HIDDEN, GRID = 32, 4, 4
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


def convpass(places=("attn", "mlp")):
    """The tensors of a Convpass as they are saved, with a classifier of three classes."""
    torch.manual_seed(1)
    found = {"head.weight": torch.randn(3, WIDTH), "head.bias": torch.randn(3)}
    for block in range(2):
        for place in places:
            name = f"blocks.{block}.adapter_{place}.adapter"
            found |= {
                f"{name}_conv.weight": 0.2 * torch.randn(HIDDEN, HIDDEN, 3, 3),
                f"{name}_conv.bias": torch.randn(HIDDEN),
                f"{name}_down.weight": 0.2 * torch.randn(HIDDEN, WIDTH), f"{name}_down.bias": torch.randn(HIDDEN),
                f"{name}_up.weight": 0.2 * torch.randn(WIDTH, HIDDEN), f"{name}_up.bias": torch.randn(WIDTH),
            }  # fmt: skip
    return found


def adaptformer():
    return {name: tensor for name, tensor in convpass(["mlp"]).items() if "conv" not in name and "adapter_" in name
            and not name.endswith("bias")}  # fmt: skip


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def convpass_of(tensors, block, place, x):
    """`s`-less Convpass of normed tokens: the class token is convolved alone, as an image of one pixel."""
    if f"blocks.{block}.adapter_{place}.adapter_down.weight" not in tensors:
        return 0.0
    part = {n: tensors[f"blocks.{block}.adapter_{place}.adapter_{n}"] for n in
            ("conv.weight", "conv.bias", "down.weight", "down.bias", "up.weight", "up.bias")}  # fmt: skip
    hidden = quick_gelu(F.linear(x, part["down.weight"], part["down.bias"]))
    patches = hidden[:, 1:].transpose(1, 2).reshape(-1, HIDDEN, GRID, GRID)
    patches = F.conv2d(patches, part["conv.weight"], part["conv.bias"], padding=1).flatten(2).transpose(1, 2)
    first = F.conv2d(hidden[:, :1].transpose(1, 2)[..., None], part["conv.weight"], part["conv.bias"], padding=1)
    hidden = quick_gelu(torch.cat([first.flatten(2).transpose(1, 2), patches], dim=1))
    return F.linear(hidden, part["up.weight"], part["up.bias"])


def straight(model, images, attn, mlp):
    """The last feature of a timm vision transformer whose branches have additions, block by block."""
    x = model.norm_pre(model._pos_embed(model.patch_embed(images)))
    for number, block in enumerate(model.blocks):
        normed = block.norm1(x)
        x = x + block.attn(normed) + attn(number, normed)
        normed = block.norm2(x)
        x = x + block.mlp(normed) + mlp(number, normed, x)
    return model.forward_head(model.norm(x), pre_logits=True)


@pytest.mark.parametrize("places", [["attn", "mlp"], ["attn"]])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@torch.no_grad()
def test_convpass(vit, tmp_path, places, suffix):
    tensors, file, images = convpass(places), tmp_path / f"cifar{suffix}", torch.randn(3, 3, 32, 32)
    (save_file if suffix == ".safetensors" else torch.save)(tensors, file)
    plugin, card, head = read(file, vit, scale=0.1)
    wanted = straight(
        vit.model, images,
        lambda block, x: 0.1 * convpass_of(tensors, block, "attn", x),
        lambda block, x, _: 0.1 * convpass_of(tensors, block, "mlp", x),
    )  # fmt: skip
    with attach(vit, plugin):
        features = vit(images)
    assert_near(features, wanted, 1e-4)
    assert (wanted - vit(images)).abs().max() > 1e-2
    assert (plugin.kind, plugin.settings["hidden"], plugin.settings["scale"]) == ("convpass", HIDDEN, 0.1)
    assert card == {"text": f"imported from PETL-ViT's cifar{suffix}"}
    classifier = AffineHead(WIDTH, 3)
    classifier.load_state_dict(head)
    logits = F.linear(wanted, tensors["head.weight"], tensors["head.bias"])
    assert_near(classifier(features), logits, 1e-4)


@torch.no_grad()
def test_adaptformer(vit, tmp_path):
    tensors, file, images = adaptformer(), tmp_path / "clevr.pt", torch.randn(3, 3, 32, 32)
    torch.save(tensors, file)
    plugin, _, head = read(file, vit, scale=10.0, bits=32)

    def mlp(block, _, x):
        name = f"blocks.{block}.adapter_mlp.adapter"
        return 10.0 * F.linear(F.relu(F.linear(x, tensors[f"{name}_down.weight"])), tensors[f"{name}_up.weight"])

    with attach(vit, plugin):
        assert_near(vit(images), straight(vit.model, images, lambda *_: 0.0, mlp), 1e-4)
    assert head is None


DOWN = "blocks.1.adapter_mlp.adapter_down.weight"
REFUSED = {
    "bits": (adaptformer, None, "do not say whether they are quantised, which a module cannot be; if they are of full"),
    "quantised": (adaptformer, 1, "do not say whether they are quantised"),
    "no adapters": (lambda: {"head.weight": torch.ones(1)}, None, "holds no adapters, such as 'blocks.0.adapter_mlp"),
    "something else": (lambda: {**convpass(), "cls_token": torch.ones(1)}, None, "holds 'cls_token', which is no part"),
    "part": (
        lambda: {k: v for k, v in convpass().items() if k != DOWN}, None,
        "the adapter at 'blocks.1.mlp' lacks 'down.weight'",
    ),
    "biases": (
        lambda: {**adaptformer(), DOWN.replace("weight", "bias"): torch.ones(HIDDEN)}, 32,
        "the adapter at 'blocks.1.mlp' has 'down.bias', which PETL-ViT's adaptformer has not",
    ),
    "place": (
        lambda: {k.replace("_mlp", "_attn"): v for k, v in adaptformer().items()}, 32,
        "adapters without a convolution at the attention are no AdaptFormer's",
    ),
    "shape": (
        lambda: {**convpass(), DOWN: torch.ones(HIDDEN, 768)}, None,
        r"'down.weight' of the adapter at 'blocks.1.mlp' has the shape \(4, 768\), but \(4, 32\) is expected",
    ),
    "block": (
        lambda: {k.replace("blocks.1", "blocks.7"): v for k, v in convpass().items()}, None,
        "unknown branch of 'vit_tiny_patch16_224' 'blocks.7.attn'; did you mean 'blocks.[01].attn'",
    ),
    "classifier": (
        lambda: {**convpass(), "head.weight": torch.ones(3, 768)}, None,
        "the classifier is no linear layer of 32 features",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_of_the_layout_is_refused_by_name(vit, tmp_path, case):
    make, bits, message = REFUSED[case]
    torch.save(make(), tmp_path / "file.pt")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "file.pt", vit, 1.0, bits)


def test_damaged_and_unsafe_files_are_refused(vit, tmp_path):
    file = tmp_path / "file.pt"
    file.write_bytes(b"nothing")
    with pytest.raises(BackboneError, match=r"file\.pt is damaged or no weight file"):
        read(file, vit, 1.0)
    torch.save({"a": pytest.raises}, file)
    with pytest.raises(BackboneError, match="holds more than plain tensors and is not read"):
        read(file, vit, 1.0)
    with pytest.raises(BackboneError, match=r"does not exist; did you mean 'file\.pt'"):
        read(tmp_path / "fil.pt", vit, 1.0)
