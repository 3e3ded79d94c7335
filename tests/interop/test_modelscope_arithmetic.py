"""The released arithmetic: imported checkpoints against a straight-line computation."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near
from straight_line import logits as by_the_formulas
from straight_line import tower
from tiny_release import images, release

from vimlight.errors import DataError, UnknownNameError
from vimlight.interop import modelscope
from vimlight.interop.modelscope.heads import levels

B16 = {"width": 768, "depth": 12, "patch": 16, "grid": 14, "outputs": 512, "mlp": 3072, "fpn": (256, 128)}
SIZES = {
    "odd sizes": ({}, 1, (0, 1, 1, 2)),
    "one module, one hidden unit": ({"modules": 1, "hidden": 1}, 1, (0, 1, 1, 2)),
    "modules of several widths": ({"modules": 3, "hidden": [2, 7, 5]}, 1, (0, 1, 1, 2)),
    "one block, one patch a side more": ({"depth": 1, "grid": 6, "patch": 4}, 1, (0, 0, 0, 0)),
    "two heads of 64, six blocks": ({"width": 128, "depth": 6, "grid": 4}, 2, (1, 2, 3, 5)),
    "seven by seven": ({"patch": 2, "grid": 7, "arch": "vit_b32_224"}, 1, (0, 1, 1, 2)),
}


def check(content, path, side, heads, blocks, tolerance=1e-4):
    torch.save(content, path)
    model, x = modelscope.load(path), images(2, side)
    for task in content["meta_info"]["task_list"]:
        feature, maps = model.features(x, task)
        expected, expected_maps = tower(content, x, task, heads)
        torch.testing.assert_close(feature, expected, rtol=tolerance, atol=tolerance)
        assert len(maps) == len(expected_maps) == len(content["ViM_weights"])
        for found, wanted in zip(maps, expected_maps, strict=True):
            torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        found = model(x, task=task)
        wanted = by_the_formulas(content, x, task, heads, blocks)
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        assert found.std() > 0.05, "numbers that say something"
    return model


@pytest.mark.parametrize("name", SIZES)
@torch.no_grad()
def test_it_agrees_with_the_formulas(tmp_path, name):
    sizes, heads, blocks = SIZES[name]
    content = release(**sizes)
    side = sizes.get("patch", 8) * sizes.get("grid", 5)
    model = check(content, tmp_path / "pytorch_model.pt", side, heads, blocks)
    assert model(images(2, side), "cls-pets").shape == (2, 7)
    assert model(images(2, side), "seg-voc").shape == (2, 4, 4 * sizes.get("grid", 5), 4 * sizes.get("grid", 5))


@pytest.mark.slow
@torch.no_grad()
def test_the_real_size_agrees_and_comes_back(tmp_path):
    content = release(**B16, modules=4, hidden=8, tasks={"seg-voc": 21, "cls-cars": 196})
    model = check(content, tmp_path / "pytorch_model.pt", 224, 12, (3, 5, 7, 11))
    assert model(images(1, 224), "seg-voc").shape == (1, 21, 56, 56)
    modelscope.import_zoo(tmp_path / "pytorch_model.pt", tmp_path / "zoo")
    modelscope.export_zoo(tmp_path / "zoo", tmp_path / "again.pt")
    from tiny_release import same

    assert not same(content, torch.load(tmp_path / "again.pt", weights_only=True))


def test_the_blocks_that_are_segmented_from():
    assert levels(12) == [3, 5, 7, 11]
    assert levels(24) == [7, 11, 15, 23]
    assert levels(1) == [0, 0, 0, 0]


@torch.no_grad()
def test_heads_that_the_layout_does_not_say(tmp_path):
    content = release()
    torch.save(content, tmp_path / "pytorch_model.pt")
    x = images()
    for heads in (1, 3):
        found = modelscope.load(tmp_path / "pytorch_model.pt", heads=heads)(x, "cls-pets")
        assert_near(found, by_the_formulas(content, x, "cls-pets", heads), 1e-4)


@torch.no_grad()
def test_a_module_without_a_share_changes_nothing(tmp_path):
    content = release()
    torch.save(content, tmp_path / "one.pt")
    for layer in content["ViM_weights"]:
        for units in layer.values():
            units.append({name: torch.full_like(tensor, 3.0) for name, tensor in units[0].items()})
    for layers in content["ViM_agg_weights"].values():
        for layer in layers:
            layer.update({key: torch.cat([row, torch.tensor([float("-inf")])]) for key, row in layer.items()})
    torch.save(content, tmp_path / "two.pt")
    one, two = (modelscope.load(tmp_path / name)(images(), "seg-voc") for name in ("one.pt", "two.pt"))
    assert_near(one, two, 1e-4)


@torch.no_grad()
def test_modules_that_are_not_everywhere(tmp_path):
    content = release()
    for layer, gates in ((0, "vim_att"), (2, "vim_mlp")):
        del content["ViM_weights"][layer][f"{gates}_weights"][3:]
        for layers in content["ViM_agg_weights"].values():
            layers[layer][f"{gates}_agg"] = layers[layer][f"{gates}_agg"][:3]
    check(content, tmp_path / "pytorch_model.pt", 40, 1, (0, 1, 1, 2))


@torch.no_grad()
def test_no_module_at_all_is_the_bare_tower(tmp_path):
    content = release(modules=0)
    torch.save(content, tmp_path / "pytorch_model.pt")
    model = modelscope.load(tmp_path / "pytorch_model.pt")
    assert torch.equal(model.features(images(), "cls-pets")[0], model.backbone(images()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@torch.no_grad()
def test_other_precisions_are_computed_in_float32(tmp_path, dtype):
    def cast(value):
        if isinstance(value, dict):
            return {key: cast(item) for key, item in value.items()}
        if isinstance(value, list):
            return [cast(item) for item in value]
        floats = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(dtype) if floats else value

    narrow = cast(release())
    torch.save(narrow, tmp_path / "pytorch_model.pt")
    found = modelscope.load(tmp_path / "pytorch_model.pt")(images(), "seg-voc")
    dtype = torch.float32
    wanted = by_the_formulas(cast(narrow), images(), "seg-voc", 1, (0, 1, 1, 2))
    assert_near(found, wanted, 1e-4)


def test_loading_leaves_randomness_alone(tmp_path, untouched_rng):
    torch.save(release(), tmp_path / "pytorch_model.pt")
    model = modelscope.load(tmp_path / "pytorch_model.pt")
    assert not model.training
    assert model.tasks == ["cls-pets", "seg-voc"]
    assert model.labels["seg-voc"] == ["class 0", "class 1", "class 2", "class 3"]
    looks = model.backbone.preprocessing
    assert (looks.size, looks.mean, looks.std) == ((40, 40), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (looks.interpolation, looks.crop_mode, looks.crop_pct) == ("bilinear", "squash", 1.0)


def test_gates_and_head_learn_and_nothing_else(tmp_path):
    torch.save(release(), tmp_path / "pytorch_model.pt")
    model = modelscope.load(tmp_path / "pytorch_model.pt").train()
    model(images(), "seg-voc").square().mean().backward()
    learning = {name for name, p in model.named_parameters() if p.grad is not None}
    assert learning == {name for name, p in model.named_parameters() if p.requires_grad and "s.1." in name}
    assert any("logits" in name for name in learning)
    assert not any("backbone" in name for name in learning)


def test_what_is_asked_wrongly(tmp_path):
    torch.save(release(), tmp_path / "pytorch_model.pt")
    model = modelscope.load(tmp_path / "pytorch_model.pt")
    with pytest.raises(UnknownNameError, match="unknown task 'seg-vok'; did you mean 'seg-voc'"):
        model(images(), "seg-vok")
    with pytest.raises(DataError, match=r"images must be \(N, 3, 40, 40\), got \(2, 3, 32, 32\)"):
        model(images(side=32), "seg-voc")


@pytest.mark.cuda
@torch.no_grad()
def test_it_follows_to_a_device(tmp_path):
    torch.save(release(), tmp_path / "pytorch_model.pt")
    model = modelscope.load(tmp_path / "pytorch_model.pt")
    expected = model(images(), "seg-voc")
    found = model.to("cuda")(images().to("cuda"), "seg-voc").cpu()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    with torch.autocast("cuda", torch.bfloat16):
        assert model(images().to("cuda"), "cls-pets").isfinite().all()
