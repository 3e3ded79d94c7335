"""What holds for every aggregator."""

from __future__ import annotations

import copy

import pytest
import torch
from numerics import assert_near

from vimlight.aggregation import aggregate, list_aggregators
from vimlight.backbone import READOUTS, create_backbone
from vimlight.errors import ConfigError, FingerprintError, PluginError, UnknownNameError
from vimlight.plugins import attach, create_plugin

EVERY = pytest.mark.parametrize("how", list_aggregators())
WITH_ZOO = pytest.mark.parametrize("how", [how for how in list_aggregators() if how != "none"])
UNLIKE = pytest.mark.parametrize("how", [how for how in list_aggregators() if how not in ("none", "merge")])
# Those that mix outputs within one pass.
GATED = pytest.mark.parametrize("how", ["adapter_fusion", "ens_moe", "router", "uniform"])


def learned(model):
    return [parameter for module in model.trainable_modules().values() for parameter in module.parameters()]


def bytes_of(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def all_equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@EVERY
@pytest.mark.parametrize("readout", READOUTS)
@torch.no_grad()
def test_features_and_gates_have_the_promised_shapes(backbone, images, three, how, readout):
    model = aggregate(backbone, three, how, readout=readout, names=["a", "b", "c"]).eval()
    features = model(images)
    assert features.flatten(1).shape == (4, model.num_features())
    assert torch.isfinite(features).all()
    assert model.gates.shape == (len(model.places), 3)
    assert model.names == ["a", "b", "c"]
    if how != "none":
        torch.testing.assert_close(model.gates.sum(dim=1), torch.ones(len(model.places)))


@EVERY
@torch.no_grad()
def test_maps_have_the_promised_shapes(backbone, images, three, how):
    model = aggregate(backbone, three, how, readout="maps").eval()
    maps, shapes = model(images), model.feature_shapes()
    streams = (3,) if how == "logit_ensemble" else ()
    assert [tuple(x.shape) for x in maps] == [(4, *streams, *shape) for shape in shapes]
    assert all(torch.isfinite(x).all() for x in maps)


@pytest.mark.parametrize("how", ["ens_moe", "router", "uniform", "best_single", "k_streams", "logit_ensemble"])
@torch.no_grad()
def test_maps_of_one_module_are_those_with_it_attached(backbone, images, three, how):
    maps = aggregate(backbone, three[:1], how, readout="maps").eval()(images)
    with attach(backbone, three[0]):
        expected = backbone(images, "maps")
    for found, wanted in zip(maps, expected, strict=True):
        assert_near(found.reshape(wanted.shape), wanted, 1e-4)


@UNLIKE
@torch.no_grad()
def test_modules_of_unlike_types_widths_and_sites(backbone, images, mixed, how):
    model = aggregate(backbone, mixed, how, readout="layers").eval()
    assert torch.isfinite(model(images)).all()
    torch.testing.assert_close(model.gates.sum(dim=1), torch.ones(len(model.places)))
    assert not torch.allclose(model(images).flatten(1)[:, :4], backbone(images, "layers")[:, :4])


@WITH_ZOO
@torch.no_grad()
def test_one_module_is_that_module(backbone, images, three, how):
    model = aggregate(backbone, three[:1], how).eval()
    assert torch.equal(model.gates, torch.ones(len(model.places), 1))
    with attach(backbone, three[0]):
        expected = backbone(images)
    assert_near(model(images).flatten(1), expected)


@GATED
@torch.no_grad()
def test_every_gated_sum_starts_as_the_mean(backbone, images, mixed, how):
    model = aggregate(backbone, mixed, how).eval()
    mean = aggregate(backbone, mixed, "uniform")
    features = model(images)
    assert_near(features, mean(images), 1e-4)
    torch.testing.assert_close(model.gates, mean.gates)


@WITH_ZOO
def test_nothing_to_aggregate_is_refused(vit, how):
    with pytest.raises(PluginError, match="nothing to aggregate"):
        aggregate(vit, [], how)


@EVERY
@torch.no_grad()
def test_the_context_leaves_nothing_behind(backbone, images, three, how):
    before = backbone(images)
    aggregate(backbone, three, how)(images)
    assert torch.equal(backbone(images), before)


@EVERY
def test_training_moves_all_that_is_declared_and_nothing_else(backbone, images, three, how):
    extra = create_plugin("convpass", backbone, hidden=2, blocks="last:1")
    model = aggregate(backbone, three, how, readout="layers", extra_module=extra).train()
    frozen = bytes_of(backbone), [bytes_of(module) for module in three], [bytes_of(m) for m in model.modules_in_zoo]
    start = copy.deepcopy(model.trainable_modules())
    optimizer = torch.optim.SGD(learned(model), lr=0.05)
    for step in range(3):
        optimizer.zero_grad()
        direction = torch.randn(model.num_features(), generator=torch.Generator().manual_seed(step))
        loss = (model(images).flatten(1) @ direction).square().mean()
        if how == "logit_ensemble":
            loss = loss + (model(images).sum(dim=2) @ model.gates[0]).square().mean()
        loss.backward()
        optimizer.step()
    for name, module in model.trainable_modules().items():
        for (key, now), then in zip(module.named_parameters(), start[name].parameters(), strict=True):
            assert not torch.equal(now, then), f"{name}.{key} did not move"
    assert all_equal(frozen[0], bytes_of(backbone))
    assert all(all_equal(*pair) for pair in zip(frozen[1], map(bytes_of, three), strict=True))
    assert all(all_equal(*pair) for pair in zip(frozen[2], map(bytes_of, model.modules_in_zoo), strict=True))


@EVERY
def test_only_what_is_declared_requires_a_gradient(backbone, three, how):
    extra = create_plugin("convpass", backbone, hidden=2)
    model = aggregate(backbone, three, how, extra_module=extra)
    declared = {id(parameter) for parameter in learned(model)}
    assert {id(parameter) for parameter in model.parameters() if parameter.requires_grad} == declared
    assert {id(parameter) for parameter in extra.parameters()} <= declared


@WITH_ZOO
def test_the_given_modules_are_neither_frozen_nor_followed(vit, how):
    modules = [create_plugin("convpass", vit, dropout=0.5) for _ in range(2)]
    images = torch.randn(2, 3, 32, 32)
    model = aggregate(vit, modules, how).train()
    before = model(images).detach()
    assert all(parameter.requires_grad for module in modules for parameter in module.parameters())
    assert all(module.training for module in modules)
    with torch.no_grad():
        for module in modules:
            for parameter in module.parameters():
                parameter.add_(1.0)
    assert torch.equal(model(images).detach(), before), "the zoo's dropout is awake, or the zoo is not a copy"


@EVERY
@torch.no_grad()
def test_a_fresh_module_counts_in_full(backbone, images, three, trained, how):
    extra = trained(backbone, "convpass", seed=9, hidden=3)
    with_extra = aggregate(backbone, three, how, extra_module=extra).eval()(images)
    assert not torch.allclose(with_extra, aggregate(backbone, three, how).eval()(images))
    assert "extra" in aggregate(backbone, three, how, extra_module=extra).trainable_modules()


@EVERY
def test_modules_of_another_backbone_are_refused(vit, trained, how):
    torch.manual_seed(5)
    other = create_backbone("vit_tiny_patch16_224", img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2)
    own, stranger = trained(vit), trained(other)
    with pytest.raises(FingerprintError, match="fits only the one it was trained on"):
        aggregate(vit, [own, stranger], how)
    with pytest.raises(FingerprintError, match="fits only the one it was trained on"):
        aggregate(vit, [own], how, extra_module=stranger)


def test_mistyped_names_are_answered_with_the_nearest(vit, trained):
    modules = [trained(vit)]
    with pytest.raises(UnknownNameError, match="aggregator 'ens_mo'; did you mean 'ens_moe'"):
        aggregate(vit, modules, "ens_mo")
    with pytest.raises(UnknownNameError, match="setting of aggregator 'ens_moe' 'topk'; did you mean 'top_k'"):
        aggregate(vit, modules, topk=1)
    with pytest.raises(UnknownNameError, match="readout 'layer'; did you mean 'layers'"):
        aggregate(vit, modules, readout="layer")
    with pytest.raises(UnknownNameError, match="tie 'layer'; did you mean 'layers'"):
        aggregate(vit, modules, tie="layer")
    with pytest.raises(ConfigError, match="1 modules need as many names, got 2"):
        aggregate(vit, modules, names=["a", "b"])


@pytest.mark.parametrize("how", ["ens_moe", "router"])
@pytest.mark.parametrize("top_k", [0, 2])
def test_top_k_out_of_range_is_refused(vit, trained, how, top_k):
    with pytest.raises(ConfigError, match="between 1 and the number of modules, 1; got"):
        aggregate(vit, [trained(vit)], how, top_k=top_k)


def test_an_aggregator_from_outside_the_package(vit, trained):
    from vimlight.aggregation import AGGREGATORS, StaticGates

    @AGGREGATORS.register("first_only")
    class FirstOnly(StaticGates):
        """The first module alone, at a chosen strength."""

        def __init__(self, backbone, modules, *, strength: float = 1.0, **common):
            super().__init__(backbone, modules, **common)
            self.strength = strength

        @property
        def gates(self):
            gates = torch.zeros(self.present.shape)
            gates[:, 0] = self.strength
            return gates

    try:
        assert "first_only" in list_aggregators()
        modules, images = [trained(vit, seed=seed) for seed in (0, 1)], torch.randn(2, 3, 32, 32)
        with torch.no_grad(), attach(vit, modules[0]):
            expected = vit(images)
        with torch.no_grad():
            assert_near(aggregate(vit, modules, "first_only")(images), expected)
            assert torch.equal(aggregate(vit, modules, "first_only", strength=0.0)(images), vit(images))
        with pytest.raises(UnknownNameError, match="did you mean 'strength'"):
            aggregate(vit, modules, "first_only", strenght=0.0)
    finally:
        del AGGREGATORS._entries["first_only"]
