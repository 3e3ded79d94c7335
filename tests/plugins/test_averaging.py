"""The mean of plug-ins, of every type in the registry."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near, shaken

from vimlight.errors import PluginError
from vimlight.plugins import create_plugin, list_plugins
from vimlight.plugins.averaging import average


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("kind", list_plugins())
def test_the_mean_of_a_module_with_itself_is_the_module_to_the_bit(vit, kind, count, untouched_rng):
    with torch.random.fork_rng():
        plugin = shaken(create_plugin(kind, vit))
    mean = average([plugin] * count, ["itself"] * count)
    assert mean.settings == plugin.settings
    assert mean.identity() == plugin.identity()


@pytest.mark.parametrize("kind", list_plugins())
def test_the_mean_of_two_is_neither_of_them(vit, kind):
    one, two = (shaken(create_plugin(kind, vit)) for _ in range(2))
    mean = average([one, two], ["one", "two"])
    assert len({each.identity() for each in (one, two, mean)}) == 3
    assert not any(parameter.requires_grad for parameter in mean.parameters())


@pytest.mark.parametrize("settings", [{}, {"alpha": 3.0}, {"alpha": 3.0, "bias": True}], ids=str)
@pytest.mark.parametrize("shared", ["", "down", "up"])
@pytest.mark.parametrize("name", ["vit", "cnn"])
def test_the_mean_of_loras_changes_their_layers_by_the_mean(request, name, shared, settings):
    backbone = request.getfixturevalue(name)
    plugins = [shaken(create_plugin("lora", backbone, rank=2, **settings)) for _ in range(3)]
    for plugin in plugins[1:] if shared else ():
        for site in plugin.sites:
            plugin.unit(site).get_parameter(shared).data.copy_(plugins[0].unit(site).get_parameter(shared))
    mean = average(plugins, "abc")
    assert mean.settings["rank"] == (2 if shared else 6)
    with torch.no_grad():
        for site in mean.sites:
            expected = torch.stack([_change(plugin.unit(site)) for plugin in plugins]).mean(dim=0)
            assert_near(_change(mean.unit(site)), expected, 1e-6)


def _change(unit):
    """Returns by what a unit changes weight and bias of its layer."""
    weight = unit.scale * unit.up @ unit.down.flatten(1)
    return weight if unit.bias is None else torch.cat([weight, unit.scale * unit.bias[:, None]], dim=1)


def test_the_mean_of_scales_and_shifts_adds_the_mean(vit):
    one, two = (shaken(create_plugin("ssf", vit)) for _ in range(2))
    site = next(site for site in one.sites if site.place == "norm1")
    x = torch.randn(2, 17, site.width)
    with torch.no_grad():
        mean = average([one, two], "ab").unit(site)(x)
        assert_near(mean, (one.unit(site)(x) + two.unit(site)(x)) / 2, 1e-6)


def test_unlike_modules_have_no_mean(vit):
    wide, narrow = (create_plugin("convpass", vit, hidden=hidden) for hidden in (8, 4))
    with pytest.raises(PluginError, match=r"an average needs modules of one type.*'wide' is convpass.*'narrow'"):
        average([wide, narrow], ["wide", "narrow"])
