"""The single aggregators against their formulas."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest
import torch
from numerics import assert_near
from torch.utils.flop_counter import FlopCounterMode

from vimlight.aggregation import aggregate
from vimlight.aggregation.gated import masked_softmax
from vimlight.errors import PluginError, UnknownNameError
from vimlight.plugins import Attachment, Plugin, Slot, attach


def randomise(model, seed=0, amount=1.0):
    """Moves the gating away from its start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.gating.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def gated_loop(backbone, modules, gates, places, images):
    """The plain sum, module by module: correct for types that do not read what others write to, the output."""
    with ExitStack() as stack:
        for k, module in enumerate(modules):
            rows = [gates[places.index(site.name), k] for site in module.sites]
            units = [module.unit(site) for site in module.sites]
            slots = [
                Slot(site, unit.reads, "output", lambda x, unit=unit, row=row: row * unit(x))
                for site, unit, row in zip(module.sites, units, rows, strict=True)
            ]
            stack.enter_context(Attachment(backbone, slots))
        return backbone(images)


@pytest.mark.parametrize("how", ["ens_moe", "uniform"])
@torch.no_grad()
def test_the_fused_pass_equals_a_loop_of_gated_modules(vit, trained, how):
    modules = [
        trained(vit, "convpass", 0, hidden=4),
        trained(vit, "adaptformer", 1, hidden=2, blocks="last:1"),
        trained(vit, "convpass", 2, hidden=6, blocks="last:1"),
        trained(vit, "lora", 3, rank=2, places=["fc1", "proj"]),
    ]
    images = torch.randn(3, 3, 32, 32)
    model = randomise(aggregate(vit, modules, how))
    expected = gated_loop(vit, modules, model.gates, model.places, images)
    assert_near(model(images), expected)


@pytest.mark.parametrize("kind", ["houlsby", "repadapter", "ssf", "adapter_plus"])
@torch.no_grad()
def test_types_that_read_or_write_elsewhere(vit, trained, kind):
    modules = [trained(vit, kind, seed, amount=0.1) for seed in range(2)]
    images = torch.randn(3, 3, 32, 32)
    model = randomise(aggregate(vit, modules))
    unit_type, gates = modules[0].unit_type, model.gates
    slots = [
        Slot(
            site, unit_type.reads, unit_type.writes,
            lambda x, row=row, site=site: sum(row[k] * module.unit(site)(x) for k, module in enumerate(modules)),
        )
        for row, site in zip(gates, modules[0].sites, strict=True)
    ]  # fmt: skip
    with Attachment(vit, slots):
        expected = vit(images)
    assert_near(model(images), expected)


@torch.no_grad()
def test_best_single_is_bit_for_bit_the_attached_module(backbone, images, mixed):
    with attach(backbone, mixed[1]):
        alone = backbone(images, "layers")
    for zoo, index in ((mixed, 1), ([mixed[1]], 0), ([mixed[2], mixed[0], mixed[1]], 2)):
        model = aggregate(backbone, zoo, "best_single", readout="layers")
        model.start_from(torch.arange(len(zoo)).eq(index).float())
        assert torch.equal(model(images), alone)
        assert model.gates[0, index] == 1
        copy = aggregate(backbone, zoo, "best_single", readout="layers")
        copy.gating.load_state_dict(model.gating.state_dict())
        assert copy.chosen == index


@torch.no_grad()
def test_streams_are_the_attached_modules_side_by_side(backbone, images, mixed):
    alone = []
    for module in mixed:
        with attach(backbone, module):
            alone.append(backbone(images))
    assert torch.equal(aggregate(backbone, mixed, "k_streams")(images), torch.cat(alone, dim=1))
    ensemble = aggregate(backbone, mixed, "logit_ensemble")
    assert torch.equal(ensemble(images), torch.stack(alone, dim=1))
    ensemble.start_from(torch.tensor([0.0, 1.0, 2.0]))
    torch.testing.assert_close(ensemble.gates, torch.tensor([[0.0, 1.0, 2.0]]).softmax(dim=1))


@torch.no_grad()
def test_merge_is_the_module_with_averaged_weights(backbone, images, three):
    model = aggregate(backbone, three, "merge")
    scores = torch.tensor([0.5, -0.3, 0.2])
    model.start_from(scores)
    first, shares = three[0], scores.softmax(dim=0)
    average = Plugin(first.kind, first.sites, first.settings, first.fingerprint).eval()
    tensors = [module.state_dict() for module in three]
    average.load_state_dict({
        name: sum(share * state[name] for share, state in zip(shares, tensors, strict=True)) for name in tensors[0]
    })  # fmt: skip
    with attach(backbone, average):
        expected = backbone(images)
    assert_near(model(images), expected)


def test_merge_refuses_unlike_modules(vit, trained):
    first = trained(vit, hidden=4)
    for other in (
        trained(vit, hidden=8),
        trained(vit, "adaptformer", hidden=4),
        trained(vit, hidden=4, blocks="last:1"),
    ):
        with pytest.raises(PluginError, match="one type, setting and set of sites: 'a' is convpass"):
            aggregate(vit, [first, other], "merge", names=["a", "b"])


@torch.no_grad()
def test_adapter_fusion_equals_the_unfolded_formula(vit, trained):
    modules = [trained(vit, "convpass", seed, hidden=width) for seed, width in enumerate((4, 2, 6))]
    model = randomise(aggregate(vit, modules, "adapter_fusion", rank=3), amount=0.5)
    images = torch.randn(2, 3, 32, 32)

    def unfolded(fusion, units):
        def function(x):
            outputs = torch.stack([unit(x) for unit in units])
            scores = (fusion.query(x) * fusion.key(outputs)).sum(dim=-1)
            mixed = (scores.softmax(dim=0)[..., None] * outputs).sum(dim=0)
            return mixed + fusion.value_up(fusion.value_down(mixed))

        return function

    sites = modules[0].sites
    slots = [
        Slot(site, "input", "output", unfolded(fusion, [module.unit(site) for module in modules]))
        for site, fusion in zip(sites, model.gating.fusions, strict=True)
    ]
    with Attachment(vit, slots):
        expected = vit(images)
    features = model(images)
    assert_near(features, expected)
    torch.testing.assert_close(model.gates.sum(dim=1), torch.ones(len(sites)))
    assert model.gates.std(dim=1).min() > 0


def test_adapter_fusion_needs_bottlenecks(vit, trained):
    with pytest.raises(PluginError, match="needs bottleneck modules; Lora is none"):
        aggregate(vit, [trained(vit, "lora")], "adapter_fusion")


@torch.no_grad()
def test_a_router_without_weights_is_ens_moe(backbone, images, mixed):
    scores = torch.tensor([1.0, -1.0, 0.5])
    router, static = aggregate(backbone, mixed, "router"), aggregate(backbone, mixed, "ens_moe")
    for model in (router, static):
        model.start_from(scores)
    torch.testing.assert_close(router.gates, static.gates)
    assert_near(router(images), static(images))


@pytest.mark.parametrize("top_k", [None, 1])
@torch.no_grad()
def test_a_router_sees_each_image_for_itself(backbone, images, three, top_k):
    router = randomise(aggregate(backbone, three, "router", top_k=top_k), amount=2.0)
    together = router(images)
    assert_near(torch.cat([router(image[None]) for image in images]), together, 1e-4)
    static = aggregate(backbone, three, "ens_moe")
    static.gating.logits.copy_(router.gates.clamp_min(1e-30).log())
    assert not torch.allclose(static(images), together, atol=1e-3)


def test_a_routers_penalty_is_the_mean_square_of_its_weights(vit, trained):
    router = aggregate(vit, [trained(vit, seed=seed) for seed in (0, 1)], "router", shrinkage=0.5)
    assert router.penalty() == 0
    with torch.no_grad():
        for route in router.routes:
            route.weight.fill_(2.0)
    torch.testing.assert_close(router.penalty(), torch.tensor(0.5 * 4.0))


@pytest.mark.parametrize(("tie", "rows"), [("none", 4), ("layers", 2), ("all", 1)])
def test_tied_places_share_their_logits(vit, trained, tie, rows):
    model = randomise(aggregate(vit, [trained(vit, seed=seed) for seed in (0, 1)], tie=tie))
    assert model.gating.logits.shape == (rows, 2)
    assert len({tuple(row) for row in model.gates.detach().tolist()}) == rows
    if tie == "layers":
        assert torch.equal(model.gates[0], model.gates[2])
        assert not torch.equal(model.gates[0], model.gates[1])


def test_shrinkage_pulls_towards_the_start(vit, trained):
    model = aggregate(vit, [trained(vit, seed=seed) for seed in (0, 1)], shrinkage=2.0)
    model.start_from(torch.tensor([1.0, 3.0]))
    assert model.penalty() == 0
    with torch.no_grad():
        model.gating.logits += 3.0
    torch.testing.assert_close(model.penalty(), torch.tensor(2.0 * 9.0))
    model.penalty().backward()
    assert (model.gating.logits.grad > 0).all()


def test_the_k_largest_share_the_gates():
    logits = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 5.0, 4.0, 3.0]])
    present = torch.tensor([[True] * 4, [True] * 4, [True, False, True, True]])
    gates = masked_softmax(logits, present, top_k=2)
    share = 1 / (1 + math.exp(-1))
    torch.testing.assert_close(gates[0], torch.tensor([share, 0.0, 1 - share, 0.0]))
    assert torch.equal(gates[1], torch.full((4,), 0.25)), "equal logits start equal"
    assert (gates[2] > 0).tolist() == [False, False, True, True]
    torch.testing.assert_close(masked_softmax(logits, present).sum(dim=1), torch.ones(3))


def flops(model, images):
    with FlopCounterMode(display=False) as counter:
        model(images)
    return counter.get_total_flops()


@torch.no_grad()
def test_a_learned_strength_switches_the_zoo_off_and_beyond_one_module(backbone, images, three):
    model, published = aggregate(backbone, three), aggregate(backbone, three, strength="one")
    assert torch.equal(model.gates, published.gates)
    assert torch.equal(model(images), published(images))
    model.scale_to(0.0)
    assert_near(model(images), backbone(images))
    model.scale_to(1.5)
    torch.testing.assert_close(model.gates, 1.5 * published.gates)
    published.scale_to(1.5)
    torch.testing.assert_close(published.gates.sum(dim=1), torch.ones(len(published.places)))
    assert published.strengths == (1.0,)
    assert "strength" not in published.gating.state_dict()
    with pytest.raises(UnknownNameError, match="strength 'on'; did you mean 'one'"):
        aggregate(backbone, three, strength="on")


@torch.no_grad()
def test_pruning_saves_cost_and_keeps_the_output_near(backbone, images, three):
    model = aggregate(backbone, three, "ens_moe")
    model.start_from(torch.tensor([4.0, 4.2, -2.0]))
    before, cost, gates = model(images), flops(model, images), model.gates
    dropped = model.prune(0.05)
    torch.testing.assert_close(torch.tensor(dropped), gates[:, 2].max(), rtol=1e-4, atol=1e-7)
    assert not model.gates[:, 2].any()
    torch.testing.assert_close(model.gates.sum(dim=1), torch.ones(len(model.places)))
    change = (model(images) - before).norm() / (before - backbone(images)).norm()
    assert 0 < change < 10 * dropped
    assert flops(model, images) < cost
    assert model.prune(0.05) == 0, "nothing is left to prune"


@torch.no_grad()
def test_pruning_never_empties_a_place(vit, trained):
    modules = [trained(vit, seed=seed) for seed in range(3)]
    model = randomise(aggregate(vit, modules))
    largest = model.gates.abs().argmax(dim=1)
    strengths = model.gates.sum(dim=1, keepdim=True)
    model.prune(10.0)
    torch.testing.assert_close(model.gates, torch.nn.functional.one_hot(largest, 3) * strengths)


@torch.no_grad()
def test_a_module_appended_with_no_weight_changes_nothing(backbone, images, three, trained):
    model = randomise(aggregate(backbone, three[:2], "ens_moe"))
    for other in (three[2], trained(backbone, "adaptformer", seed=7, hidden=8)):
        grown = aggregate(backbone, [*three[:2], other], "ens_moe")
        grown.gating.logits[:, :2] = model.gating.logits
        grown.gating.logits[:, 2] = float("-inf")
        grown.gating.strength.copy_(model.gating.strength)
        assert torch.equal(grown.gates[:, :2], model.gates)
        assert_near(grown(images), model(images))


@torch.no_grad()
def test_select_starts_from_nothing_the_best_module_or_all(backbone, images, three):
    model = aggregate(backbone, three, "select").eval()
    nothing, best, everything = model.starts(torch.tensor([0.2, 1.0, -1.0]))
    model.start_from(nothing)
    assert torch.equal(model(images), backbone(images))
    assert model.mixtures() == []
    model.start_from(best)
    with attach(backbone, three[1]):
        expected = backbone(images)
    assert_near(model(images), expected)
    assert {len(mixture.units) for mixture in model.mixtures()} == {1}
    # What was left out comes back.
    model.start_from(everything)
    assert_near(model(images), aggregate(backbone, three, "uniform").eval()(images))


@torch.no_grad()
def test_what_was_selected_is_saved_with_what_is_learned(backbone, images, three):
    model, fresh = (aggregate(backbone, three, "select").eval() for _ in range(2))
    model.start_from(torch.tensor([-torch.inf, 0.0, -torch.inf]))
    fresh.gating.load_state_dict(model.gating.state_dict())
    assert torch.equal(fresh(images), model(images))
    assert torch.equal(fresh.gates, model.gates)
