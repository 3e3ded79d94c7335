"""Several tasks in one pass give what each gives alone."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near, shaken
from torch import nn

import vimlight as vl
from vimlight.aggregation import aggregate, list_aggregators
from vimlight.backbone import create_backbone
from vimlight.deployment.multitask import MultiTask
from vimlight.errors import ConfigError, FingerprintError, PluginError, UnknownNameError
from vimlight.plugins import create_plugin
from vimlight.tasks import AffineHead

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
TAKEN = ("best_single", "ens_moe", "none", "select", "uniform")


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **VIT)


def module(backbone, kind, seed, **options):
    return shaken(create_plugin(kind, backbone, **options), seed=seed)


@pytest.fixture(scope="module")
def zoo(backbone):
    """Modules of three types, with other widths and blocks."""
    return [
        module(backbone, "convpass", 0, hidden=2),
        module(backbone, "convpass", 1, hidden=3, blocks="last:2"),
        module(backbone, "adaptformer", 2, hidden=4),
        module(backbone, "lora", 3, rank=2),
    ]


def task(backbone, modules, how="ens_moe", classes=3, seed=0, **options):
    """An aggregator with random gates, and a random head."""
    model = aggregate(backbone, modules, how, **options)
    head = AffineHead(model.num_features(), classes)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in [*model.gating.parameters(), *head.parameters(), head.mean]:
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        if how == "best_single":
            model.start_from(torch.randn(len(modules), generator=generator))
    return model.eval(), head


@pytest.fixture
def tasks(backbone, zoo):
    """Tasks that share some modules, or none, with other numbers of classes."""
    extra = module(backbone, "convpass", 9, hidden=2, blocks="last:1")
    return {
        "a": task(backbone, zoo, seed=1, classes=5),
        "b": task(backbone, zoo[1:3], seed=2, classes=2),
        "c.d": task(backbone, [zoo[0], zoo[3]], "uniform", seed=3),
        "e": task(backbone, zoo[:3], "best_single", seed=4),
        "f": task(backbone, [], "none", seed=5),
        "g": task(backbone, zoo[:1], seed=6, extra_module=extra),
        "h": task(backbone, zoo[:2], {"how": "ens_moe"}["how"], seed=7, top_k=1, tie="all"),
    }


MIXED = ["a", "c.d", "b", "a", "e", "f", "h", "g", "b"]


def alone(tasks, name, image):
    model, head = tasks[name]
    return head(model(image[None]))[0]


def test_each_image_gets_the_outputs_of_its_own_task(tasks):
    images = torch.randn(len(MIXED), 3, 32, 32)
    with torch.no_grad():
        expected = [alone(tasks, name, image) for image, name in zip(images, MIXED, strict=True)]
        model = MultiTask(tasks)
        for output, wanted in zip(model(images, MIXED), expected, strict=True):
            assert_near(output, wanted, 1e-4)
        # What was given is as it was.
        for image, name, wanted in zip(images, MIXED, expected, strict=True):
            assert torch.equal(alone(tasks, name, image), wanted)
    assert tasks["g"][0].extra is not None
    assert not model.backbone.occupied


@pytest.mark.parametrize("how", TAKEN)
@pytest.mark.parametrize("readout", ["last", "layers", "grid"])
def test_every_readout_and_kind_of_gates(backbone, zoo, how, readout):
    tasks = {str(n): task(backbone, zoo[:2], how, seed=n, readout=readout) for n in range(2)}
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        for image, name, output in zip(images, "011", MultiTask(tasks)(images, "011"), strict=True):
            assert_near(output, alone(tasks, name, image), 1e-4)


def test_a_head_of_the_last_feature_goes_beside_one_of_all_layers(backbone, zoo):
    tasks = {"a": task(backbone, zoo, seed=0), "b": task(backbone, zoo, seed=1, readout="grid")}
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for image, name, output in zip(images, "ab", MultiTask(tasks)(images, "ab"), strict=True):
            assert_near(output, alone(tasks, name, image), 1e-4)


def test_maps_are_served_too(backbone, zoo):
    class Mean(nn.Module):
        def forward(self, maps):
            return [level.mean(dim=1) for level in maps]

    tasks = {str(n): (task(backbone, zoo, seed=n)[0], Mean()) for n in range(2)}
    for model, _ in tasks.values():
        model.readout = "maps"
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        for row, (name, outputs) in enumerate(zip("10", MultiTask(tasks)(images, "10"), strict=True)):
            expected = tasks[name][1](tasks[name][0](images[row : row + 1]))
            assert len(outputs) == 4
            for level, wanted in zip(outputs, expected, strict=True):
                assert_near(level, wanted[0], 1e-4)


def learned(tasks):
    return [p for model, head in tasks.values() for p in [*model.gating.parameters(), *head.parameters()]]


def test_gradients_are_those_of_each_task_alone(tasks):
    images = torch.randn(len(MIXED), 3, 32, 32)
    for model, head in tasks.values():
        model.zero_grad()
        head.zero_grad()
    sum(alone(tasks, name, image).square().sum() for image, name in zip(images, MIXED, strict=True)).backward()
    expected = [p.grad.clone() for p in learned(tasks)]
    for parameter in learned(tasks):
        parameter.grad = None
    model = MultiTask(tasks).train()
    shares = model.by_task(images, MIXED)
    assert {name: share.rows.tolist() for name, share in shares.items()} == {
        name: [row for row, other in enumerate(MIXED) if other == name] for name in tasks
    }
    sum(share.outputs.square().sum() for share in shares.values()).backward()
    for parameter, wanted in zip(learned(tasks), expected, strict=True):
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-3, atol=1e-4)
    trainable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trainable == {id(parameter) for parameter in learned(tasks)}


def test_what_is_learned_is_learned_in_the_models_given(tasks):
    model = MultiTask(tasks)
    images = torch.randn(2, 3, 32, 32)
    before = model(images, ["a", "b"])
    with torch.no_grad():
        tasks["a"][0].gating.logits.normal_()
        tasks["a"][1].bias.add_(1)
    after = model(images, ["a", "b"])
    assert not torch.equal(before[0], after[0])
    assert_near(after[0], alone(tasks, "a", images[0]), 1e-4)
    torch.testing.assert_close(before[1], after[1])


def test_the_backbone_runs_once_and_each_module_is_held_once(tasks, zoo):
    model = MultiTask(tasks)
    calls = []
    handle = model.backbone.model.register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(len(MIXED), 3, 32, 32), MIXED)
    handle.remove()
    assert len(calls) == 1
    assert len(model._zoo.names) == len(zoo)
    # Nothing of a task but its gates and head is kept besides.
    assert all("wides" not in name for name, _ in model._gates.named_buffers())
    assert not list(model._gates["a"].source.wides)


def test_tokens_stand_for_images(backbone):
    late = [module(backbone, "convpass", n, hidden=2, blocks="last:1") for n in range(2)]
    tasks = {str(n): task(backbone, late, seed=n) for n in range(2)}
    images = torch.randn(2, 3, 32, 32)
    model = MultiTask(tasks)
    with torch.no_grad():
        for one, other in zip(model(images, "01"), model(backbone.prefix(images, 2), "01"), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def calls_of(model, block):
    """Returns the rows of every pass through a block from now on."""
    seen = []
    model.backbone.model.blocks[block].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    return seen


def test_one_image_is_answered_by_all_tasks_at_once(tasks):
    image = torch.randn(3, 32, 32)
    with torch.no_grad():
        expected = {name: alone(tasks, name, image) for name in tasks}
        model = MultiTask(tasks)
        for name, outputs in model.together(image[None]).items():
            assert_near(outputs[0], expected.pop(name), 1e-4)
    assert not expected


def test_every_task_has_its_own_view(tasks):
    views = torch.randn(2, 3, 32, 32)
    choice = {name: number % 2 for number, name in enumerate(tasks)}
    with torch.no_grad():
        for name, outputs in MultiTask(tasks).together(views, choice).items():
            assert_near(outputs[0], alone(tasks, name, views[choice[name]]), 1e-4)


@pytest.mark.parametrize("readout", ["last", "layers", "grid"])
@pytest.mark.parametrize("how", ["ens_moe", "none"])
def test_what_tasks_have_in_common_runs_once(backbone, how, readout):
    late = [module(backbone, "convpass", n, hidden=2, blocks="last:1") for n in range(2)]
    tasks = {str(n): task(backbone, late, how, seed=n, readout=readout) for n in range(3)}
    tasks["again"] = (tasks["0"][0], task(backbone, late, how, seed=9, readout=readout)[1])
    image = torch.randn(3, 32, 32)
    model = MultiTask(tasks)
    with torch.no_grad():
        expected = {name: alone(tasks, name, image) for name in tasks}
        model.together(image[None])  # finds the way from block to block
        first, last = calls_of(model, 0), calls_of(model, 2)
        for name, outputs in model.together(image[None]).items():
            assert_near(outputs[0], expected[name], 1e-4)
    assert (first, last) == ([1], [3 if how == "ens_moe" else 1])


def test_modes_leave_zoo_and_fresh_modules_in_eval(tasks):
    model = MultiTask(tasks).train()
    assert model.heads["a"].training
    assert not any(module.training for module in [*model._zoo.modules(), *model._extras.modules()])


def test_pruned_gates_stay_pruned(backbone, zoo):
    tasks = {"a": task(backbone, zoo, seed=3), "b": task(backbone, zoo, seed=4)}
    tasks["a"][0].prune(0.3)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            MultiTask(tasks)(images, ["a", "b"])[0], alone(tasks, "a", images[0]), rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("how", sorted(set(list_aggregators()) - set(TAKEN)))
def test_other_aggregators_are_refused(backbone, zoo, how):
    modules = [module(backbone, "convpass", n, hidden=2) for n in range(2)]
    with pytest.raises(PluginError, match=r"task 'x' is aggregated by .*MultiTask takes ens_moe, uniform"):
        MultiTask({"a": task(backbone, modules), "x": (aggregate(backbone, modules, how), nn.Identity())})


def test_mistakes_are_named(backbone, zoo, tasks):
    model, images = MultiTask(tasks), torch.randn(2, 3, 32, 32)
    with pytest.raises(UnknownNameError, match=r"unknown task 'c\.b'; did you mean 'c.d'"):
        model(images, ["a", "c.b"])
    with pytest.raises(ConfigError, match="2 images need as many task names, got 3"):
        model(images, ["a", "b", "a"])
    with pytest.raises(ConfigError, match="needs at least one task"):
        MultiTask({})
    with pytest.raises(ConfigError, match=r"read different things, .*'last' alone goes with another one"):
        MultiTask({"a": task(backbone, zoo, readout="grid"), "b": task(backbone, zoo, readout="layers")})
    with pytest.raises(PluginError, match=r"task 'b' adds plug-ins in the order \['lora', 'convpass'\]"):
        MultiTask({"a": task(backbone, [zoo[0], zoo[3]]), "b": task(backbone, [zoo[3], zoo[0]])})
    torch.manual_seed(1)
    other = create_backbone("vit_tiny_patch16_224", **VIT)
    with pytest.raises(FingerprintError, match=r"task 'b' has the backbone with fingerprint .* task 'a' that with"):
        MultiTask({"a": task(backbone, zoo), "b": task(other, [], "none")})


def test_it_is_public():
    assert vl.MultiTask is MultiTask
