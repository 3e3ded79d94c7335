"""What is fast against what is plain: linear maps as convolutions, sums in place, fused forms inside a whole model."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from numerics import assert_near
from torch.nn import functional as F

from vimlight.plugins import Attachment, Slot, create_plugin
from vimlight.plugins.base import LoopedUnits
from vimlight.plugins.bottleneck import linear


@pytest.mark.parametrize("shape", [(3, 17, 8), (1, 17, 8), (3, 1, 8), (1, 1, 8), (0, 17, 8), (17, 8), (2, 3, 4, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_map_is_a_linear_map_whatever_runs_it(shape, dtype, bias):
    x, weight = torch.randn(shape, dtype=dtype), torch.randn(5, 8, dtype=dtype)
    shift = torch.randn(5, dtype=dtype) if bias else None
    found = linear(x, weight, shift)
    assert_near(found, F.linear(x, weight, shift))
    assert found.is_contiguous()


def test_so_are_its_gradients():
    direction, results = torch.randn(3, 17, 5), []
    x, weight, bias = torch.randn(3, 17, 8), torch.randn(5, 8), torch.randn(5)
    for function in (linear, F.linear):
        leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
        results.append(torch.autograd.grad((function(*leaves) * direction).sum(), leaves))
    for found, expected in zip(*results, strict=True):
        assert_near(found, expected)


def test_a_frozen_map_keeps_nothing_but_its_weight():
    weight, bias, x = torch.randn(5, 8), torch.randn(5), torch.randn(3, 17, 8, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        output = linear(x, weight, bias)
    direction = torch.randn(3, 17, 5)
    found, expected = (torch.autograd.grad((y * direction).sum(), x)[0] for y in (output, F.linear(x, weight, bias)))
    assert_near(found, expected)
    assert [tensor.data_ptr() for tensor in kept] == [weight.data_ptr()]


def test_under_mixed_precision_it_is_what_the_plain_map_is():
    weight, x = torch.randn(5, 8), torch.randn(3, 17, 8, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = linear(x, weight), F.linear(x, weight)
    assert found.dtype == expected.dtype == torch.bfloat16
    assert_near(found, expected)
    found.float().sum().backward()
    assert x.grad is not None


def slots(plugins, gates, widen, own):
    kind = plugins[0].unit_type
    for site in plugins[0].sites:
        wide = widen([plugin.unit(site) for plugin in plugins])
        yield Slot(site, kind.reads, kind.writes, partial(wide, gates=gates), own)


@pytest.mark.parametrize("kind", ["convpass", "adaptformer", "houlsby", "lora", "ssf"])
def test_sums_in_place_are_sums(backbone, images, shake, kind):
    plugins = [shake(create_plugin(kind, backbone), 0.2).eval() for _ in range(3)]
    gates = torch.tensor([0.2, -0.5, 1.0], requires_grad=True)
    results = []
    for widen, own in ((plugins[0].unit_type.widen, True), (LoopedUnits, False)):
        with Attachment(backbone, list(slots(plugins, gates, widen, own))):
            features = backbone(images)
        results.append((features.detach(), *torch.autograd.grad(features.square().mean(), gates)))
    for fast, plain in zip(*results, strict=True):
        assert_near(fast, plain, 1e-4)


def test_what_a_unit_has_read_is_not_written_to(vit):
    # The unit's gradient needs what it read: its part of a fused layer's output.
    site = next(site for site in vit.all_sites if site.part is not None)
    scale = torch.full((site.width,), 0.5, requires_grad=True)
    images = torch.randn(2, 3, 32, 32)
    with Attachment(vit, [Slot(site, "output", "output", lambda x: x * scale)]):
        features = vit(images)
    (slope,) = torch.autograd.grad(features.sum(), scale)
    with Attachment(vit, [Slot(site, "output", "output", lambda x: x * (scale.detach() + 1e-3))]):
        moved = vit(images)
    torch.testing.assert_close((moved - features).sum(), slope.sum() * 1e-3, rtol=0.05, atol=1e-4)


def test_what_is_not_its_own_is_not_written_to(vit):
    site, seen = vit.sites[0], []

    def shown(x):
        seen.append((x, x.clone()))
        return x

    with Attachment(vit, [Slot(site, "input", "output", shown)]), torch.no_grad():
        vit(torch.randn(2, 3, 32, 32))
    ((tensor, before),) = seen
    assert torch.equal(tensor, before)


def test_what_the_backward_pass_can_compute_again_is_not_kept(vit, shake):
    plugins = [shake(create_plugin("convpass", vit, hidden=4), 0.2).requires_grad_(False) for _ in range(3)]
    units = [plugin.unit(plugins[0].sites[0]) for plugin in plugins]
    x, gates = torch.randn(2, 17, 32, requires_grad=True), torch.ones(3, requires_grad=True)
    kept: dict[int, tuple[int, ...]] = {}

    def keep(tensor):
        kept[tensor.data_ptr()] = tuple(tensor.shape)
        return tensor

    wide = units[0].widen(units)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        wide(x, gates)
    # Of the 12 hidden units of each token only what the down projection makes of it.
    assert [shape for shape in kept.values() if shape[:2] == (2, 17)] == [(2, 17, 12)]
