"""The fused form of several plug-ins against the plain loop."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near

from vimlight.errors import PluginError
from vimlight.plugins import PLUGINS, create_plugin, list_plugins, widen
from vimlight.plugins.base import LoopedUnits

EVERY_TYPE = pytest.mark.parametrize("kind", list_plugins())
WIDTHS = {"lora": "rank", "ssf": None}


def three(kind, backbone, shake, widths=(4, 8, 2)):
    name = WIDTHS.get(kind, "hidden")
    settings = [{name: width} if name else {} for width in widths]
    return [shake(create_plugin(kind, backbone, **setting), 0.2).eval() for setting in settings]


def what_is_read(unit_type, site):
    """A random tensor as the units of a type read at a site."""
    width = site.input_width if unit_type.reads == "input" and site.place != "block" else site.width
    layout = site.layout
    if layout.kind == "NLC":
        return torch.randn(3, layout.prefix + max(layout.grid[0] * layout.grid[1], 4), width)
    return torch.randn(3, width, 6, 6) if layout.kind == "NCHW" else torch.randn(3, 6, 6, width)


@EVERY_TYPE
@pytest.mark.parametrize("shape", [(3,), (3, 3)], ids=["one gate a plug-in", "one gate an image and plug-in"])
def test_the_fused_form_equals_the_loop_and_so_do_its_gradients(backbone, shake, kind, shape):
    plugins = three(kind, backbone, shake)
    for site in plugins[0].sites:
        units = [plugin.unit(site) for plugin in plugins]
        x = what_is_read(PLUGINS[kind], site)
        direction = None
        results = []
        for wide in (PLUGINS[kind].widen(units), LoopedUnits(units)):
            gates = torch.linspace(-0.5, 1.5, 3).expand(shape).clone().requires_grad_()
            inputs = x.clone().requires_grad_()
            output = wide(inputs, gates)
            direction = torch.randn_like(output) if direction is None else direction
            results.append((output.detach(), *torch.autograd.grad((output * direction).mean(), [gates, inputs])))
            assert wide.count == 3
        for fused, looped in zip(*results, strict=True):
            assert_near(fused, looped)


@pytest.mark.parametrize("biases", [(True, True), (False, True)])
@torch.no_grad()
def test_low_rank_changes_with_biases_widen_with_and_without_others(backbone, shake, biases):
    plugins = [shake(create_plugin("lora", backbone, rank=2, alpha=3.0, bias=bias), 0.2).eval() for bias in biases]
    for site in plugins[0].sites:
        units, x = [plugin.unit(site) for plugin in plugins], what_is_read(PLUGINS["lora"], site)
        for gates in (torch.tensor([0.5, -2.0]), torch.randn(3, 2)):
            fused, looped = PLUGINS["lora"].widen(units)(x, gates), LoopedUnits(units)(x, gates)
            torch.testing.assert_close(fused, looped, rtol=1e-5, atol=1e-5)


@EVERY_TYPE
@torch.no_grad()
def test_gates_of_zero_and_one_single_out_a_plugin(backbone, shake, kind):
    plugins = three(kind, backbone, shake)
    site = plugins[0].sites[0]
    x = what_is_read(PLUGINS[kind], site)
    only = widen(plugins, torch.tensor([0.0, 1.0, 0.0]), site)
    assert_near(only(x), plugins[1].unit(site)(x))
    none = widen(plugins, torch.zeros(3), site.name)
    assert not none(x).any()


@EVERY_TYPE
@torch.no_grad()
def test_a_fused_form_holds_no_trainable_parameter_and_follows_its_module(backbone, shake, kind):
    plugins = three(kind, backbone, shake)
    site = plugins[0].sites[0]
    wide = widen(plugins, torch.ones(3), site).double()
    assert not list(wide.parameters())
    assert wide(what_is_read(PLUGINS[kind], site).double()).dtype == torch.float64


@torch.no_grad()
@pytest.mark.parametrize("norms", [(True, True), (True, False)])
def test_adaptformers_own_norm_is_kept(vit, shake, norms):
    settings = zip((3, 5), norms, strict=True)
    plugins = [shake(create_plugin("adaptformer", vit, hidden=h, norm=n), 0.2).eval() for h, n in settings]
    site, gates = plugins[0].sites[0], torch.tensor([0.3, 0.7])
    x = torch.randn(2, 17, 32)
    expected = sum(gate * plugin.unit(site)(x) for gate, plugin in zip(gates, plugins, strict=True))
    assert_near(widen(plugins, gates, site)(x), expected)


def test_types_do_not_mix(vit):
    plugins = [create_plugin("convpass", vit), create_plugin("houlsby", vit)]
    with pytest.raises(PluginError, match=r"only plug-ins of one type widen into one; found \['convpass', 'houlsby'\]"):
        widen(plugins, torch.ones(2), "blocks.0.attn")


def test_the_number_of_gates_must_be_the_number_of_plugins(vit):
    plugins = [create_plugin("convpass", vit)] * 2
    with pytest.raises(PluginError, match=r"2 plug-ins need as many gates and at least one; got \(3,\)"):
        widen(plugins, torch.ones(3), "blocks.0.attn")


def test_nothing_cannot_be_widened():
    with pytest.raises(PluginError, match="0 plug-ins need as many gates and at least one"):
        widen([], torch.ones(0), "blocks.0.attn")
