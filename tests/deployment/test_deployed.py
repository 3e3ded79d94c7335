"""Every aggregator over every kind of module is one plain graph that answers as the model does."""

from __future__ import annotations

import copy

import pytest
import torch
from numerics import assert_near, shaken

from vimlight.aggregation import aggregate, list_aggregators
from vimlight.deployment import deploy
from vimlight.deployment.fixing import Fixed, fix
from vimlight.errors import ExportError, UnknownNameError
from vimlight.files.exported import deviation
from vimlight.plugins import PLUGINS, create_plugin, list_plugins
from vimlight.plugins.base import Unit
from vimlight.plugins.merging import merge
from vimlight.tasks import list_tasks

EVERY = pytest.mark.parametrize("how", list_aggregators())
TYPES = pytest.mark.parametrize("kind", list_plugins())
FIXED = pytest.mark.parametrize("how", ["best_single", "ens_moe", "merge", "none", "uniform"])
FOLDABLE = [name for name in list_plugins() if PLUGINS[name].fold is not Unit.fold]
FOLDS = pytest.mark.parametrize("kind", FOLDABLE)


def expected(model, images):
    with torch.no_grad():
        return model(images)


@pytest.mark.slow
@EVERY
@pytest.mark.parametrize("kind", ["convpass", "lora"])
def test_every_aggregator_is_one_graph_without_hooks(backbone, images, every_deployed, how, kind):
    model, deployed, wanted = every_deployed(backbone, images, how, kind)
    for count in (1, 2, 5):
        assert_near(deployed(images[:count]), expected(model, images[:count]))
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in deployed.modules())
    assert torch.equal(expected(model, images), wanted), "the trained model is not changed"


@FIXED
@TYPES
@torch.no_grad()
def test_fixed_gates_fold_or_fuse_for_every_type(backbone, images, trained, how, kind):
    model = trained(backbone, [kind, kind], how)
    wanted = model(images)
    own = copy.deepcopy(model)
    own.aggregator = fix(own.aggregator)
    assert isinstance(own.aggregator, Fixed)
    assert_near(own(images), wanted)
    assert bool(own.aggregator.slots) == (how != "none" and kind not in FOLDABLE)
    assert (wanted - model.head(model.backbone(images))).abs().max() > 1e-3 or how == "none"


@torch.no_grad()
def test_linear_modules_cost_nothing_any_more(vit, linear):
    bare = sum(parameter.numel() for parameter in vit.parameters())
    tensors = linear.program.state_dict
    head = sum(tensor.numel() for name, tensor in tensors.items() if name.startswith("head."))
    assert sum(tensor.numel() for tensor in tensors.values()) == bare + head


def test_a_fused_sum_is_kept_once(vit, model, deployed):
    wide = sum(buffer.numel() for buffer in model.aggregator.wides.buffers())
    bare = sum(parameter.numel() for parameter in [*vit.parameters(), *model.head.parameters(), *model.head.buffers()])
    kept = sum(tensor.numel() for tensor in deployed.program.state_dict.values())
    assert bare < kept <= bare + wide


@pytest.mark.parametrize("kinds", [["lora", "ssf"], ["ssf", "repadapter"], ["lora", "repadapter"], ["convpass", "ssf"]])
@torch.no_grad()
def test_unlike_types_at_one_layer(backbone, images, trained, kinds):
    for order in (kinds, kinds[::-1]):
        model = trained(backbone, order)
        wanted = model(images)
        model.aggregator = fix(copy.deepcopy(model.aggregator))
        assert_near(model(images), wanted)
        # Which of the two sees what the other left depends on their order; the layer is left alone.
        assert any(slot.site.foldable for slot in model.aggregator.slots) == (set(kinds) == {"lora", "repadapter"})


@pytest.mark.parametrize("kind", ["convpass", "lora"])
@FIXED
@torch.no_grad()
def test_a_fresh_module_beside_the_zoo(backbone, images, trained, kind, how):
    model = trained(backbone, ["convpass"], how, extra_module={"kind": kind})
    wanted = model(images)
    model.aggregator = fix(copy.deepcopy(model.aggregator))
    assert_near(model(images), wanted)


@torch.no_grad()
def test_pruned_gates_stay_pruned(vit, trained):
    model = trained(vit, ["convpass", "convpass"], {"how": "ens_moe", "strength": "one"})
    model.aggregator.prune(0.6)
    images = torch.randn(2, 3, 32, 32)
    wanted = model(images)
    model.aggregator = fix(copy.deepcopy(model.aggregator))
    assert_near(model(images), wanted)


@pytest.mark.parametrize("kind", [pytest.param("classification", marks=pytest.mark.slow), "multilabel"])
@torch.no_grad()
def test_predictions(vit, trained, kind):
    images = torch.randn(3, 3, 32, 32)
    model = trained(vit, kind=kind)
    assert_near(deploy(model, "predictions")(images), model.task.predictions(model(images)))


def test_outputs_that_there_are_not(model):
    with pytest.raises(UnknownNameError, match="unknown outputs 'prediction'; did you mean 'predictions'"):
        deploy(model, "prediction")


def test_the_card_says_what_is_needed(vit, routed):
    card = routed.card
    assert card["classes"] == ["ant", "bee", "cat", "dog"]
    assert card["preprocessing"] == {
        "size": [32, 32], "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "crop_pct": 0.9,
        "crop_mode": "center",
    }  # fmt: skip
    assert (card["task"], card["outputs"], card["aggregator"]) == ("classification", "logits", "router")
    assert card["modules"] == ["0", "1"]
    assert card["fingerprint"] == vit.fingerprint


def test_it_has_one_mode_and_may_be_a_part_of_others(deployed):
    whole = torch.nn.Sequential(deployed, torch.nn.Softmax(dim=1)).train()
    assert not deployed.training
    images = torch.randn(2, 3, 32, 32)
    assert_near(whole(images), deployed(images).softmax(dim=1))


@pytest.mark.slow
@pytest.mark.parametrize("task", list_tasks())
@torch.no_grad()
def test_every_task(backbone, images, trained, task):
    model = trained(backbone, kind=task, readout=None)
    assert deviation(deploy(model)(images), model(images)) < 1e-4


@pytest.mark.slow
def test_boxes_are_of_another_number_for_every_image(vit, trained):
    model = trained(vit, kind="detection", readout=None)
    with pytest.raises(ExportError, match=r"cannot be traced by torch\.export: .*; deploy its logits instead"):
        deploy(model, "predictions")


@pytest.mark.parametrize(("outputs", "hint"), [("logits", ""), ("predictions", "; deploy its logits instead")])
def test_a_model_that_cannot_be_traced_is_refused(vit, trained, monkeypatch, capsys, outputs, hint):
    model = trained(vit)
    monkeypatch.setattr(type(model), "forward", lambda self, x: x[:, 0, 0] * float(x.sum()))
    with pytest.raises(ExportError, match=rf"cannot be traced by torch\.export: [^;]*{hint}$"):
        deploy(model, outputs)
    assert capsys.readouterr() == ("", ""), "torch keeps what it could trace to itself"


def test_a_graph_that_answers_otherwise_is_refused(deployed):
    with pytest.raises(ExportError, match=r"the answers of the copy differ from the trained model's by \d"):
        deployed.check(lambda images: deployed(images) + 0.1, "the copy")
    with pytest.raises(ExportError, match="by nan"):
        deployed.check(lambda images: deployed(images) * float("nan"), "the copy")


@torch.no_grad()
def test_a_module_whose_training_goes_on_is_not_reached(vit, trained):
    model = trained(vit, ["convpass"], "none", extra_module={"kind": "lora"})
    images = torch.randn(2, 3, 32, 32)
    deployed = deploy(model)
    before = deployed(images).clone()
    for part in model.trainable_modules().values():
        shaken(part)
    assert torch.equal(deployed(images), before)


@pytest.mark.cuda
@torch.no_grad()
def test_it_runs_on_a_gpu(vit, trained):
    model = trained(vit, ["convpass", "lora"], "router")
    images = torch.randn(2, 3, 32, 32)
    assert_near(deploy(copy.deepcopy(model).cuda()).cuda()(images.cuda()).cpu(), model(images))


def test_the_plugin_types_that_fold_are_known():
    assert FOLDABLE == ["lora", "repadapter", "ssf"]


@FOLDS
@torch.no_grad()
def test_a_fold_is_that_of_the_single_module(backbone, images, kind):
    plugin = shaken(create_plugin(kind, backbone))
    with merge(backbone, plugin):
        wanted = backbone(images)
    assert_near(fix(copy.deepcopy(aggregate(backbone, [plugin], "best_single")))(images), wanted)
