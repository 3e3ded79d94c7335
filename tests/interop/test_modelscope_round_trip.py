"""To a zoo and back, bit for bit; zoos that grow, and zoos that were never imported."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import timm
import torch
from numerics import assert_near
from straight_line import logits as by_the_formulas
from tiny_release import images, release, same

from vimlight.aggregation import aggregate
from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.errors import CheckpointError, ConfigError, FingerprintError, ZooError
from vimlight.interop import modelscope
from vimlight.plugins import create_plugin
from vimlight.tasks import AffineHead
from vimlight.tasks.semantic_fpn import SemanticFPN
from vimlight.zoo import Zoo

BLOCKS = (0, 1, 1, 2)
CLIP = "vit_base_patch16_clip_quickgelu_224"


def halved(content, half):
    """Some tensors in another precision, as a tower of CLIP may come."""
    for name in ("proj", "conv1.weight", "transformer.resblocks.1.mlp.c_fc.weight"):
        content["backbone_weights"][name] = content["backbone_weights"][name].to(half)
    unit = content["ViM_weights"][1]["vim_att_weights"][2]
    for name in ("adapter_down.weight", "adapter_conv.weight"):
        unit[name] = unit[name].to(half)
    gates = content["ViM_agg_weights"]["seg-voc"][0]
    gates["vim_att_agg"] = gates["vim_att_agg"].to(half)
    content["head_weights"]["cls-pets"]["classifier.bias"] = torch.ones(7, dtype=half) / 3
    return content


def numbered(content):
    content["meta_info"]["label_map"] = {"seg-voc": {3: "cat", 0: "background"}}
    return content


def uneven(content):
    """Modules whose numbers of hidden units differ from place to place, and places without some of them."""
    other = release(hidden=9, seed=5)
    content["ViM_weights"][2]["vim_mlp_weights"][1] = other["ViM_weights"][2]["vim_mlp_weights"][1]
    content["ViM_weights"][0]["vim_att_weights"] = content["ViM_weights"][0]["vim_att_weights"][:2]
    for layers in content["ViM_agg_weights"].values():
        layers[0]["vim_att_agg"] = layers[0]["vim_att_agg"][:2]
    return content


def plain_gates(content):
    content["ViM_agg_weights"]["seg-voc"][1]["vim_mlp_agg"] = torch.tensor([0.0, float("-inf"), -300.0, 5.0, 1e-30])
    return content


CONTENTS = {
    "plain": lambda: release(),
    "half": lambda: halved(release(), torch.float16),
    "bfloat": lambda: halved(release(), torch.bfloat16),
    "double": lambda: halved(release(), torch.float64),
    "numbered labels": lambda: numbered(release()),
    "uneven": lambda: uneven(release()),
    "gates of minus infinity": lambda: plain_gates(release()),
    "several widths": lambda: release(modules=3, hidden=[2, 7, 5]),
    "twelve modules, tasks out of order": lambda: release(
        modules=12, hidden=2, tasks={"seg-z": 3, "cls-b.v2/x": 4, "seg-a ü": 2, "cls": 2}
    ),
    "no modules": lambda: release(modules=0),
    "no tasks": lambda: release(tasks={}),
    "odd MLP": lambda: release(width=49, mlp=29),
}


def imported(content, folder, **arguments):
    torch.save(content, folder / "pytorch_model.pt")
    modelscope.import_zoo(folder / "pytorch_model.pt", folder / "zoo", **arguments)
    return folder / "zoo"


def read(path):
    return torch.load(path, weights_only=True)


@pytest.fixture(scope="module")
def imported_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("imported")
    imported(release(), folder)
    return folder


@pytest.fixture
def zoo(imported_once, tmp_path):
    """A copy of an imported zoo, which the test may change, beside the file that it came from."""
    shutil.copytree(imported_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "zoo"


@pytest.mark.parametrize("name", CONTENTS)
def test_a_round_trip_is_exact(tmp_path, name, untouched_rng):
    content = CONTENTS[name]()
    zoo = imported(copy.deepcopy(content), tmp_path)
    modelscope.export_zoo(zoo, tmp_path / "again.pt")
    again = read(tmp_path / "again.pt")
    assert not same(content, again)
    assert list(again["meta_info"]["task_list"]) == content["meta_info"]["task_list"]
    assert Zoo(zoo).verify() == []


@pytest.mark.parametrize("name", ["plain", "uneven", "gates of minus infinity", "no modules"])
@torch.no_grad()
def test_a_zoo_and_a_saved_model_compute_the_same(tmp_path, name):
    zoo = imported(CONTENTS[name](), tmp_path)
    model = modelscope.load(tmp_path / "pytorch_model.pt")
    modelscope.save(model, tmp_path / "saved.pt")
    for other in map(modelscope.load, (zoo, tmp_path / "saved.pt")):
        for task in model.tasks:
            assert torch.equal(other(images(), task), model(images(), task))


def test_a_model_in_float32_is_saved_as_it_was(tmp_path):
    torch.save(release(), tmp_path / "pytorch_model.pt")
    modelscope.save(modelscope.load(tmp_path / "pytorch_model.pt"), tmp_path / "again.pt")
    assert not same(release(), read(tmp_path / "again.pt"))


def test_heads_and_preprocessing_come_back_where_the_layout_has_no_place_for_them(tmp_path):
    content = release()
    looks = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic", "crop_pct": 0.9}
    content["meta_info"]["vimlight"] = {"preprocessing": looks}
    zoo = imported(content, tmp_path, heads=3)
    modelscope.export_zoo(zoo, tmp_path / "again.pt")
    own = read(tmp_path / "again.pt")["meta_info"]["vimlight"]
    assert own["heads"] == 3
    backbone = modelscope.load(tmp_path / "again.pt").backbone
    assert backbone.model.blocks[0].attn.num_heads == 3
    assert backbone.preprocessing.mean == (0.5, 0.4, 0.3)
    assert backbone.fingerprint == modelscope.backbone_of(zoo).fingerprint


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_crop_modes_come_back(tmp_path, crop_mode):
    content = release()
    looks = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2], "interpolation": "bicubic", "crop_pct": 0.9}
    # The notes of earlier versions have no crop mode: images were cropped.
    looks |= {} if crop_mode == "center" else {"crop_mode": crop_mode}
    content["meta_info"]["vimlight"] = {"preprocessing": looks}
    zoo = imported(content, tmp_path)
    modelscope.export_zoo(zoo, tmp_path / "again.pt")
    for backbone in (modelscope.load(tmp_path / "again.pt").backbone, modelscope.backbone_of(zoo)):
        assert (backbone.preprocessing.crop_mode, backbone.preprocessing.crop_pct) == (crop_mode, 0.9)


@torch.no_grad()
def test_timm_itself_loads_the_backbone(zoo):
    arguments = {"img_size": 40, "patch_size": 8, "embed_dim": 48, "depth": 3, "num_heads": 1, "mlp_ratio": 100 / 48}
    file = str(zoo / "backbone" / "backbone.safetensors")
    model = timm.create_model(CLIP, checkpoint_path=file, num_classes=20, **arguments).eval()
    torch.testing.assert_close(model(images()), modelscope.backbone_of(zoo)(images()))
    bare = create_backbone(CLIP, checkpoint=file, **arguments)
    assert bare(images()).shape == (2, 48), "without the projection too"


def test_modules_have_cards(zoo):
    assert Zoo(zoo).names() == ["vim-1", "vim-2", "vim-3", "vim-4", "vim-5"]
    card = Zoo(zoo).card("vim-2")
    assert card.kind == "convpass"
    assert card.settings["hidden"] == 6
    assert card.fingerprint == modelscope.backbone_of(zoo).fingerprint
    assert card.text == "module 2 of 5 in pytorch_model.pt; the released layout says no more of it"
    assert len(card.sites) == 6


def extend(zoo, name="cls-more"):
    """Adds a module, trains gates over the grown zoo and a head, and keeps the task."""
    backbone = modelscope.backbone_of(zoo)
    fresh = create_plugin("convpass", backbone, hidden=4)
    for parameter in fresh.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    Zoo(zoo).add("another", fresh)
    names = Zoo(zoo).names()
    modules = [Zoo(zoo).load(module, backbone) for module in names]
    model = aggregate(backbone, modules, "ens_moe", names=names, strength="one")
    head = torch.nn.Linear(20, 3)
    optimizer = torch.optim.SGD([*model.gating.parameters(), *head.parameters()], lr=0.5)
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(model(images(6))), torch.arange(6) % 3).backward()
        optimizer.step()
    assert model.gates.detach().std() > 0, "the gates have learnt"
    modelscope.add_task(zoo, name, model.eval(), head, ["a", "b", "c"])
    return model, head


def test_an_imported_zoo_grows(tmp_path, zoo):
    model, head = extend(zoo)
    modelscope.export_zoo(zoo, tmp_path / "grown.pt")
    grown, content = read(tmp_path / "grown.pt"), release()
    assert grown["meta_info"]["task_list"] == ["cls-pets", "seg-voc", "cls-more"]
    with torch.no_grad():
        expected = head(model(images()))
        torch.testing.assert_close(modelscope.load(tmp_path / "grown.pt")(images(), "cls-more"), expected)
        wanted = by_the_formulas(grown, images(), "cls-more", 1)
        assert_near(expected, wanted, 1e-4)
        # What was there computes what it did, in the released arithmetic too.
        before = by_the_formulas(content, images(), "seg-voc", 1, BLOCKS)
        torch.testing.assert_close(by_the_formulas(grown, images(), "seg-voc", 1, BLOCKS), before)
    for layer, old in zip(grown["ViM_weights"], content["ViM_weights"], strict=True):
        for key, units in layer.items():
            assert len(units) == 6
            assert not same(units[:5], old[key]), "the modules keep their numbers"
    assert grown["ViM_agg_weights"]["seg-voc"][0]["vim_att_agg"][5] == float("-inf")


def test_modules_are_chosen(tmp_path, zoo):
    extend(zoo)
    (zoo / "tasks" / "cls-more.safetensors").unlink()
    old = ["vim-1", "vim-2", "vim-3", "vim-4", "vim-5"]
    modelscope.export_zoo(zoo, tmp_path / "old.pt", old)
    assert not same(release(), read(tmp_path / "old.pt"))
    with pytest.raises(CheckpointError, match="task 'cls-pets' uses module 'vim-5', which is not among those"):
        modelscope.export_zoo(zoo, tmp_path / "fewer.pt", old[:4])
    with pytest.raises(ZooError, match="'vim-6'; did you mean"):
        modelscope.export_zoo(zoo, tmp_path / "fewer.pt", ["vim-6"])
    assert not (tmp_path / "fewer.pt").exists()


@pytest.mark.parametrize("readout", ["last", pytest.param("layers", marks=pytest.mark.slow)])
def test_the_zoo_is_trained_on_from_the_command_line(tmp_path, zoo, monkeypatch, readout):
    monkeypatch.chdir(tmp_path)
    config = Path(__file__).parents[2] / "configs" / "downstream" / "digits.yaml"
    arguments = ["--model.aggregator={how: ens_moe, strength: one}", "--trainer.max_epochs=1", "--data.shots=2"]
    fast = ["--data.test_limit=8", "--trainer.enable_progress_bar=false", f"--model.readout={readout}"]
    backbone = ["--config", str(zoo / "backbone" / "config.yaml"), "--model.zoo", str(zoo)]
    main(["fit", "--config", str(config), *backbone, *arguments, *fast])
    assert list(tmp_path.glob("runs/fit/version_0/checkpoints/last.ckpt"))


def clip_zoo(folder, **arguments):
    """A zoo made here, on a CLIP tower of timm, with a module of another scale."""
    sizes = {"img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2}
    backbone = create_backbone(CLIP, **{**sizes, **arguments})
    for seed, settings in enumerate([{"hidden": 3}, {"hidden": 5, "scale": 0.5}]):
        plugin = create_plugin("convpass", backbone, **settings)
        for parameter in plugin.parameters():
            torch.nn.init.normal_(parameter, std=0.2, generator=torch.Generator().manual_seed(seed))
        Zoo(folder).add(f"m{seed}", plugin)
    return backbone


PROJECTED = {"num_classes": 10}


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ({}, {}), ({}, {"tie": "layers"}), (PROJECTED, {"top_k": 1}),
        *(pytest.param(*both, marks=pytest.mark.slow) for both in (
            (PROJECTED, {}), (PROJECTED, {"tie": "layers"}), ({}, {"top_k": 1}),
        )),
    ],
)  # fmt: skip
@torch.no_grad()
def test_a_zoo_that_was_never_imported(tmp_path, arguments, settings):
    backbone = clip_zoo(tmp_path / "zoo", **arguments)
    modules = [Zoo(tmp_path / "zoo").load(name, backbone) for name in ("m0", "m1")]
    model = aggregate(backbone, modules, "ens_moe", names=["m0", "m1"], strength="one", **settings)
    torch.nn.init.normal_(model.logits)
    head = AffineHead(model.num_features(), 3)
    for tensor in (head.weight, head.bias, head.mean, head.scale.add_(2)):
        tensor.add_(torch.rand(tensor.shape))
    maps = SemanticFPN([24] * 4, 4, width=5, head_width=3, map_strides=16).eval()
    modelscope.add_task(tmp_path / "zoo", "cls-mine", model, head)
    modelscope.add_task(tmp_path / "zoo", "seg-mine", model, maps, {1: "b"})
    modelscope.export_zoo(tmp_path / "zoo", tmp_path / "mine.pt")
    content, x = read(tmp_path / "mine.pt"), images(side=24)
    expected = head(model(x))
    assert_near(by_the_formulas(content, x, "cls-mine", 2), expected, 1e-4)
    loaded = modelscope.load(tmp_path / "mine.pt")
    assert_near(loaded(x, "cls-mine"), expected, 1e-4)
    wanted = by_the_formulas(content, x, "seg-mine", 2, BLOCKS)
    assert_near(loaded(x, "seg-mine"), wanted, 1e-4)
    assert loaded.backbone.preprocessing == backbone.preprocessing
    assert loaded.labels == {"seg-mine": {1: "b"}}


def test_the_released_loader_finds_its_name_for_the_real_size(tmp_path):
    from vimlight.interop.modelscope.tower import Tower

    sizes = {"width": 768, "depth": 12, "grid": 14, "hidden": 3072, "outputs": 512, "heads": 12}
    assert Tower({}, patch=16, **sizes).arch == "vit_b16_224"
    assert Tower({}, patch=16, **{**sizes, "depth": 6}).arch == "vit_w768_l6_p16_224"


def test_what_the_layout_cannot_hold(tmp_path):
    backbone = clip_zoo(tmp_path / "zoo")
    zoo = Zoo(tmp_path / "zoo")
    modules, names = [zoo.load(name, backbone) for name in ("m0", "m1")], ["m0", "m1"]
    head = torch.nn.Linear(24, 3)

    def refused(message, *arguments, how="ens_moe", error=CheckpointError, task="cls-x", **settings):
        settings = {"strength": "one", **settings} if how == "ens_moe" else settings
        model = aggregate(backbone, modules, how, names=names, **settings)
        if settings.get("strength") == "learned":
            model.scale_to(0.5)
        with pytest.raises(error, match=message) as caught:
            modelscope.add_task(zoo.path, task, model, *(arguments or (head,)))
        assert len(str(caught.value).splitlines()) <= 2

    refused("task 'cls-x': the released layout holds ens_moe alone, not Router", how="router")
    refused("gates sum to 1 at every place; aggregate with strength='one'", strength="learned")
    fresh = create_plugin("convpass", backbone)
    refused("a fresh module beside the zoo has no gate", extra_module=fresh)
    refused("the name begins with 'cls' or 'seg', and 'last' is read, not 'last'", task="pets")
    refused("'last' is read, not 'grid'", readout="grid")
    refused(r"'classifier.weight' is \(3, 20\), expected \(3, 24\)", torch.nn.Linear(20, 3))
    refused("Sequential is no head of the released layout", torch.nn.Sequential())
    refused("lacks 'fpn_head.conv_seg.bias', so it is not a Semantic-FPN", head, task="seg-x")
    names[1] = "m2"
    refused("unknown module of zoo .*'m2'", error=ZooError)
    assert not (zoo.path / "tasks").exists()
    assert not (zoo.path / "backbone").exists()


def test_modules_that_the_layout_cannot_hold(tmp_path, zoo):
    backbone = modelscope.backbone_of(zoo)
    Zoo(zoo).add("low-rank", create_plugin("lora", backbone))
    with pytest.raises(CheckpointError, match="module 'low-rank' is of type 'lora'; the released layout holds 'convp"):
        modelscope.export_zoo(zoo, tmp_path / "x.pt")
    Zoo(zoo).remove("low-rank")
    Zoo(zoo).add("whole", create_plugin("convpass", backbone, places=["block"]))
    with pytest.raises(CheckpointError, match=r"module 'whole' sits at 'blocks.0', where the released layout has no"):
        modelscope.export_zoo(zoo, tmp_path / "x.pt")
    Zoo(zoo).remove("whole")
    other = create_backbone(CLIP, img_size=24, patch_size=8, embed_dim=24, depth=1, num_heads=2)
    Zoo(zoo).add("foreign", create_plugin("convpass", other))
    with pytest.raises(FingerprintError, match="module 'foreign' was trained on"):
        modelscope.export_zoo(zoo, tmp_path / "x.pt")
    assert not (tmp_path / "x.pt").exists()


def test_a_task_that_would_be_without_modules_somewhere(tmp_path):
    content = release(modules=1)
    for layers in (content["ViM_weights"], *content["ViM_agg_weights"].values()):
        for key, value in layers[0].items():
            layers[0][key] = value[:0]
    zoo = imported(content, tmp_path)
    modelscope.export_zoo(zoo, tmp_path / "again.pt")
    assert not same(content, read(tmp_path / "again.pt"))
    Zoo(zoo).add("everywhere", create_plugin("convpass", modelscope.backbone_of(zoo)))
    with pytest.raises(CheckpointError, match=r"uses no module at 'blocks.0.attn', where 'everywhere' is"):
        modelscope.export_zoo(zoo, tmp_path / "more.pt")


@pytest.mark.parametrize("name", ["test_vit", "vit_base_patch16_clip_224", "resnet18", "vit_base_patch16_224"])
def test_backbones_that_are_no_clip_tower(tmp_path, name):
    sizes = {"img_size": 32} if name in ("test_vit", "resnet18") else {
        "img_size": 24, "patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 2
    }  # fmt: skip
    backbone = create_backbone(name, **sizes)
    plugin = create_plugin("convpass", backbone, hidden=2)
    Zoo(tmp_path).add("one", plugin)
    model = aggregate(backbone, [plugin], "ens_moe", names=["one"], strength="one")
    with pytest.raises(CheckpointError, match=f"'{name}' is no CLIP image tower with QuickGELU"):
        modelscope.add_task(tmp_path, "cls-x", model, torch.nn.Linear(model.num_features(), 2))


def test_a_task_on_another_backbone_than_the_zoo_keeps(zoo):
    other = clip_zoo(zoo)
    model = aggregate(other, [Zoo(zoo).load("m0", other)], "ens_moe", names=["m0"], strength="one")
    with pytest.raises(FingerprintError, match=r"keeps the backbone with fingerprint .*, but task 'cls-x' was trained"):
        modelscope.add_task(zoo, "cls-x", model, torch.nn.Linear(24, 2))


def test_names_that_are_taken(tmp_path, zoo):
    with pytest.raises(ZooError, match="exists; an import makes a new zoo"):
        modelscope.import_zoo(tmp_path / "pytorch_model.pt", zoo)
    with pytest.raises(ConfigError, match="exists"):
        modelscope.export_zoo(zoo, tmp_path / "pytorch_model.pt")
    with pytest.raises(ConfigError, match=r"'model.bin': the released layout is a .pt file, such as pytorch_model.pt"):
        modelscope.export_zoo(zoo, tmp_path / "model.bin")
    model, head = extend(zoo)
    with pytest.raises(ConfigError, match=r"cls-more.safetensors' exists"):
        modelscope.add_task(zoo, "cls-more", model, head)
    modelscope.add_task(zoo, "cls-more", model, torch.nn.Linear(20, 2), overwrite=True)
    assert modelscope.load(zoo)(images(), "cls-more").shape == (2, 2)


def test_the_config_of_the_backbone_says_all(zoo):
    import yaml

    arguments = yaml.safe_load((zoo / "backbone" / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    assert create_backbone(**arguments).fingerprint == Zoo(zoo).card("vim-1").fingerprint
    assert json.dumps(arguments)
