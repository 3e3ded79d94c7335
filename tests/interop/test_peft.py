"""Adapters of PEFT's against PEFT itself: read, written, there and back, and every refusal."""

from __future__ import annotations

import copy
import json
import shutil
import warnings

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from vimlight.backbone import create_backbone
from vimlight.errors import CheckpointError, FingerprintError
from vimlight.interop.peft import read, write
from vimlight.plugins import attach, create_plugin
from vimlight.tasks import AffineHead
from vimlight.zoo import Zoo

peft = pytest.importorskip("peft")
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
CONVNEXT = {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32)}


@pytest.fixture(scope="module")
def vit():
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


@pytest.fixture(scope="module")
def cnn():
    torch.manual_seed(0)
    return create_backbone("test_efficientnet", img_size=32)


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def adapted(model, folder, **config):
    """Gives a timm model an adapter with nothing at its start, saves it, and returns the model."""
    adapter = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(**config)).eval()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    adapter.save_pretrained(folder)
    return adapter


def trained(backbone, seed=0, **settings):
    plugin = create_plugin("lora", backbone, **settings)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in plugin.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return plugin.eval()


def close(found, wanted):
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


CONFIGS = {
    "names": {"r": 4, "lora_alpha": 6, "target_modules": ["qkv", "fc1"]},
    "regex": {"r": 2, "target_modules": r"blocks\.1\..*(qkv|proj)"},
    "rank patterns": {"r": 4, "target_modules": ["qkv", "proj"], "rank_pattern": {"qkv": 2, r"blocks.1.attn.proj": 7}},
    "alpha patterns": {"r": 4, "target_modules": ["fc1", "fc2"], "alpha_pattern": {"fc1": 3, "0.mlp.fc2": 11}},
    "rank stabilised": {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["qkv"]},
    "fan in, fan out": {"r": 2, "fan_in_fan_out": True, "target_modules": ["qkv"]},
    "all of them": {"r": 2, "target_modules": "all-linear"},
    "some blocks": {"r": 2, "target_modules": ["qkv"], "layers_to_transform": [1], "layers_pattern": "blocks"},
    "with exceptions": {"r": 2, "target_modules": ["proj"], "exclude_modules": ["patch_embed.proj"]},
    "dropout": {"r": 2, "lora_dropout": 0.3, "target_modules": ["fc2"]},
    "the patch embedding": {"r": 2, "target_modules": ["patch_embed.proj"]},
    "biases of the layers": {"r": 2, "lora_alpha": 6, "bias": "lora_only", "target_modules": ["qkv", "proj"]},
    "biases and scales": {"r": 2, "bias": "lora_only", "target_modules": ["fc1", "qkv"], "alpha_pattern": {"fc1": 3}},
    "biases of factors": {"r": 2, "lora_bias": True, "target_modules": ["qkv", "patch_embed.proj"]},
    "both biases": {"r": 2, "lora_bias": True, "bias": "lora_only", "target_modules": ["fc2"]},
    "one block": {"r": 2, "target_modules": ["qkv"], "layers_to_transform": 1, "layers_pattern": ["layers", "blocks"]},
}


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_what_peft_saved_computes_the_same(vit, images, tmp_path, name):
    adapter = adapted(vit.model, tmp_path / "adapter", **CONFIGS[name])
    plugin, _, head = read(tmp_path / "adapter", vit)
    with attach(vit, plugin):
        close(vit(images), adapter(images))
    assert (adapter(images) - vit(images)).abs().max() > 1e-3
    assert head is None


@pytest.mark.parametrize("targets", [["conv_pw", "conv_pwl"], ["conv_stem", "conv_exp"]])
@torch.no_grad()
def test_convolutions(cnn, images, tmp_path, targets):
    adapter = adapted(cnn.model, tmp_path / "adapter", r=4, lora_alpha=6, target_modules=targets)
    plugin = read(tmp_path / "adapter", cnn).plugin
    with attach(cnn, plugin):
        close(cnn(images), adapter(images))
    Zoo(tmp_path / "zoo").add("convolutions", plugin)
    write(Zoo(tmp_path / "zoo"), "convolutions", tmp_path / "again", cnn)
    close(loaded(cnn, tmp_path / "again")(images), adapter(images))


WHOLE = {
    "the classifier": ("vit_tiny_patch16_224", VIT, ["qkv"], ["head"]),
    "and the last norm": ("vit_tiny_patch16_224", VIT, ["qkv"], ["norm", "head"]),
    "and a norm behind pooling": ("vit_tiny_patch16_224", {**VIT, "global_pool": "avg"}, ["fc1"], ["fc_norm", "head"]),
    "a classifier inside": ("convnext_atto", CONVNEXT, ["fc1"], ["head.fc"]),
    "with its norm around": ("convnext_atto", CONVNEXT, ["fc1"], ["head"]),
}


@pytest.mark.parametrize("case", WHOLE)
@torch.no_grad()
def test_what_was_trained_along_whole_becomes_the_head(images, tmp_path, case):
    name, arguments, targets, saved = WHOLE[case]
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3, **arguments).eval()
    backbone = create_backbone(name, **arguments)
    backbone.model.load_state_dict(model.state_dict(), strict=False)
    adapter = adapted(model, tmp_path / "adapter", r=2, target_modules=targets, modules_to_save=saved)
    plugin, _, tensors = read(tmp_path / "adapter", backbone)
    head = AffineHead(tensors["weight"].shape[1], 3)
    head.load_state_dict(tensors)
    with attach(backbone, plugin):
        close(head(backbone(images)), adapter(images))


def test_a_norm_that_is_not_in_front_of_the_classifier_is_refused(vit, tmp_path):
    model = timm.create_model("vit_tiny_patch16_224", num_classes=3, **VIT).eval()
    for number, saved in enumerate((["0.norm1", "head"], ["norm"])):
        adapted(model, tmp_path / str(number), r=2, target_modules=["qkv"], modules_to_save=saved)
        with pytest.raises(CheckpointError, match=r"norm.?' along whole; a module can keep only the"):
            read(tmp_path / str(number), vit)


def loaded(backbone, folder):
    """Lets PEFT load an adapter; whatever it has to say of the tensors is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return peft.PeftModel.from_pretrained(copy.deepcopy(backbone.model), folder).eval()


MODULES = {
    "queries and values": {"rank": 4},
    "a scale": {"rank": 4, "alpha": 6.0},
    "an odd scale": {"rank": 3, "alpha": 0.7},
    "the whole layer": {"rank": 2, "places": ["qkv"]},
    "all of it": {"rank": 2, "places": ["q", "k", "v"]},
    "of several ranks": {"rank": 2, "alpha": 3.0, "places": ["q", "v", "proj", "fc1", "fc2"]},
    "whole layer and part": {"rank": 2, "places": ["qkv", "k"]},
    "one block": {"rank": 2, "blocks": [1]},
    "biases": {"rank": 2, "alpha": 3.0, "bias": True},
    "biases of whole layers": {"rank": 2, "bias": True, "places": ["qkv", "fc1", "patch_embed"]},
}


@pytest.mark.parametrize("name", MODULES)
@torch.no_grad()
def test_peft_loads_what_a_zoo_wrote(vit, images, tmp_path, name):
    zoo, plugin = Zoo(tmp_path / "zoo"), trained(vit, **MODULES[name])
    card = {"task": "classification", "classes": ["a", "b"], "license": "apache-2.0"}
    zoo.add("mine", plugin, card, head={"weight": torch.ones(2, 2)})
    (fact,) = write(zoo, "mine", tmp_path / "adapter", vit)
    assert "its head stays in the zoo" in fact.text
    with attach(vit, plugin):
        wanted = vit(images)
    close(loaded(vit, tmp_path / "adapter")(images), wanted)
    again, restored, _ = read(tmp_path / "adapter", vit)
    assert {**vars(restored), "head": ""} == {**vars(zoo.card("mine")), "head": ""}
    assert all(torch.equal(again.state_dict()[key], value) for key, value in plugin.state_dict().items())
    assert again.settings == plugin.settings


@torch.no_grad()
def test_from_peft_and_back_is_exact(vit, tmp_path):
    for number, config in enumerate([{"r": 4, "lora_alpha": 6}, {"r": 4, "rank_pattern": {"fc1": 2}, "lora_alpha": 4}]):
        first, second = tmp_path / f"first{number}", tmp_path / f"second{number}"
        adapted(vit.model, first, target_modules=["qkv", "fc1"], **config)
        zoo = Zoo(tmp_path / f"zoo{number}")
        zoo.add("mine", *read(first, vit))
        write(zoo, "mine", second, vit)
        one, other = (load_file(folder / "adapter_model.safetensors") for folder in (first, second))
        assert one.keys() == other.keys()
        alphas = [json.loads((f / "adapter_config.json").read_text())["lora_alpha"] for f in (first, second)]
        for name in one:
            layer = name.split(".lora_")[0]
            down, up = f"{layer}.lora_A.weight", f"{layer}.lora_B.weight"
            # With the scale of each layer, which the second adapter has in its factors where it is not the common one.
            factors = zip((one, other), alphas, strict=True)
            changes = [t[up].double() @ t[down].double() * (alpha / t[down].shape[0]) for t, alpha in factors]
            assert torch.equal(*changes)


def changed(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


REFUSED = {
    "another kind": ({"peft_type": "IA3"}, "is of an adapter of the type 'IA3'; only 'LORA' can be read"),
    "DoRA": ({"use_dora": True}, "sets 'use_dora' to True, which a lora module cannot hold"),
    "biases": ({"bias": "all"}, "sets 'bias' to 'all': biases of layers without factors have no place in a module"),
    "no biases": ({"bias": "lora_only"}, "holds none; to read the adapter without trained biases set 'bias' to 'none'"),
    "biases of factors": ({"lora_bias": True}, "the bias of lora_B of 'blocks.0.attn.qkv' has the shape None, at odds"),
    "parameters": ({"target_parameters": ["qkv.weight"]}, "sets 'target_parameters' to"),
    "no scale": ({"lora_alpha": 0}, "an alpha must be a number other than 0, not 0"),
    "no scale of a layer": ({"alpha_pattern": {"qkv": 0.0}}, "an alpha must be a number other than 0, not 0.0"),
    "numbers of layers": ({"layers_to_transform": ["1"]}, "layers_to_transform must be whole numbers, not .'1'."),
    "other layers": (
        {"layers_to_transform": [1], "layers_pattern": "blocks"},
        "holds factors of 'blocks.0.attn.qkv', which target_modules does not name",
    ),
    "too many layers": ({"target_modules": "all-linear", "modules_to_save": ["head"]}, "that 'head' was trained along"),
    "replication": ({"layer_replication": [[0, 1]]}, "sets 'layer_replication'"),
    "what is not known": ({"future": 3}, "sets 'future' to 3, which a lora module cannot hold"),
    "moved weights": ({"init_lora_weights": "pissa"}, "sets 'init_lora_weights' to 'pissa', which changes the base"),
    "rank": ({"r": 0}, "a rank must be a whole number from 1 on, not 0"),
    "other rank": ({"r": 5}, "lora_A of 'blocks.0.attn.qkv' has the shape .2, 32., but .5, 32. is expected"),
    "pattern": ({"rank_pattern": {"qkv": "two"}}, "a rank must be a whole number from 1 on, not 'two'"),
    "regex of ranks": ({"rank_pattern": {"(": 2}}, "holds a value that makes no sense: missing"),
    "regex": ({"target_modules": "("}, "holds a value that makes no sense"),
    "targets": ({"target_modules": 3}, "layers must be a text or a list of texts, not 3"),
    "fewer targets": ({"target_modules": ["0.attn.qkv"]}, "factors of 'blocks.1.attn.qkv', which target_modules"),
    "more targets": ({"target_modules": ["qkv", "fc1"]}, "lacks the factors of 'blocks.0.mlp.fc1' and of 1 more"),
    "another module": ({"modules_to_save": ["norm"]}, "says that 'norm' was trained along whole, but adapter_model"),
}


@pytest.fixture(scope="module")
def saved(vit, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "adapter"
    adapted(vit.model, folder, r=2, target_modules=["qkv"])
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "adapter")


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_module_cannot_hold_is_refused_by_name(vit, folder, case):
    changes, message = REFUSED[case]
    changed(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        read(folder, vit)


def rewritten(folder, change):
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


FIRST = "base_model.model.blocks.0.attn.qkv.lora_A.weight"
TENSORS = {
    "one factor": (lambda t: {k: v for k, v in t.items() if k != FIRST}, "only one of the two factors of 'blocks.0"),
    "nothing": (lambda t: {"x": torch.ones(1)}, "holds no LoRA factors, such as"),
    "more": (lambda t: {**t, "base_model.model.cls_token": torch.ones(1)}, "holds 'cls_token', which is no part of"),
    "stray bias": (
        lambda t: {**t, FIRST.replace("lora_A.weight", "base_layer.bias"): torch.ones(96)},
        "holds a bias of 'blocks.0.attn.qkv', which adapter_config.json or the layer does not have",
    ),
    "bias of a factor": (
        lambda t: {**t, FIRST.replace("lora_A.weight", "lora_B.bias"): torch.ones(96)},
        r"the bias of lora_B of 'blocks.0.attn.qkv' has the shape \(96,\), at odds with 'lora_bias'",
    ),
    "shape": (lambda t: {**t, FIRST: torch.ones(2, 31)}, r"lora_A of 'blocks.0.attn.qkv' has the shape \(2, 31\)"),
    "whole numbers": (lambda t: {**t, FIRST: torch.ones(2, 32, dtype=torch.int8)}, "holds torch.int8, not floating"),
    "layer": (
        lambda t: {k.replace("qkv", "qkw"): v for k, v in t.items()},
        "unknown layer of 'vit_tiny_patch16_224' 'blocks.0.attn.qkw'; did you mean 'blocks.0.attn.qkv'",
    ),
    "place": (
        lambda t: {k.replace("attn.qkv", "norm1"): v for k, v in t.items()},
        "changes 'blocks.0.norm1', where a lora module of 'vit_tiny_patch16_224' cannot sit",
    ),
    "half of it": (
        lambda t: {k: v for k, v in t.items() if "blocks.0" in k},
        "lacks the factors of 'blocks.1.attn.qkv' and of 0 more that target_modules names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_malformed_tensors_are_refused_by_name(vit, folder, case):
    change, message = TENSORS[case]
    rewritten(folder, change)
    with pytest.raises(CheckpointError, match=message):
        read(folder, vit)


def test_malformed_files_are_refused_by_name(vit, folder):
    config, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    text, content = config.read_text(), weights.read_bytes()
    config.write_text(text[:-9])
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is no JSON"):
        read(folder, vit)
    config.write_text("[1]")
    with pytest.raises(CheckpointError, match="must be a JSON object, not list"):
        read(folder, vit)
    config.write_text(text)
    weights.write_bytes(content[:-9])
    with pytest.raises(CheckpointError, match="is truncated or damaged"):
        read(folder, vit)
    torch.save({}, weights)
    with pytest.raises(CheckpointError, match="is a pickle under a false name"):
        read(folder, vit)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin is a pickle and is not read"):
        read(folder, vit)
    config.unlink()
    with pytest.raises(CheckpointError, match=r"holds no adapter_config\.json"):
        read(folder, vit)
    with pytest.raises(CheckpointError, match=r"is no folder; PEFT's adapters are .*; did you mean 'adapter'"):
        read(folder.with_name("adapte"), vit)


@torch.no_grad()
def test_what_a_zoo_wrote_belongs_to_its_backbone_and_is_not_altered(vit, cnn, tmp_path):
    zoo, folder = Zoo(tmp_path / "zoo"), tmp_path / "adapter"
    zoo.add("mine", trained(vit))
    write(zoo, "mine", folder, vit)
    with pytest.raises(FingerprintError, match="was exported for 'vit_tiny_patch16_224' with the fingerprint"):
        read(folder, cnn)
    file = folder / "adapter_model.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    with pytest.raises(CheckpointError, match="the tensors were altered after they were exported"):
        read(folder, vit)


def test_what_peft_has_no_words_for_is_not_written(vit, tmp_path):
    zoo = Zoo(tmp_path / "zoo")
    zoo.add("mine", create_plugin("convpass", vit))
    zoo.add("lora", create_plugin("lora", vit))
    with pytest.raises(CheckpointError, match="module 'mine' is a convpass; PEFT's LoRA adapters hold lora"):
        write(zoo, "mine", tmp_path / "adapter", vit)
    (tmp_path / "taken").mkdir()
    with pytest.raises(CheckpointError, match="exists; an adapter is written to a new folder"):
        write(zoo, "lora", tmp_path / "taken")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["taken", "zoo"]
