"""A type that somebody adds in a file of their own works wherever the built-in ones do."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from vimlight.errors import ConfigError, PluginError
from vimlight.plugins import PLUGINS, attach, create_plugin, list_plugins, widen
from vimlight.plugins.merging import merge

SOURCE = '''
"""A scaled copy of each branch's input."""
import torch
from torch import nn
from vimlight.plugins import PLUGINS, Unit

@PLUGINS.register("echo")
class Echo(Unit):
    places = (("mlp",), ("block",))

    def __init__(self, site, strength: float = 0.0):
        super().__init__(site)
        self.strength = nn.Parameter(torch.tensor(strength))

    def forward(self, x):
        return self.strength * torch.tanh(x)
'''


@pytest.fixture
def echo(tmp_path):
    path = tmp_path / "my_echo.py"
    path.write_text(SOURCE)
    spec = importlib.util.spec_from_file_location("my_echo", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules["my_echo"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["my_echo"]
    del PLUGINS._entries["echo"]


def test_it_is_listed_created_attached_and_trained(echo, backbone, images):
    assert "echo" in list_plugins()
    plugin = create_plugin("echo", backbone, strength=0.5)
    assert plugin.unit_type is echo.Echo
    assert plugin.settings == {"strength": 0.5}
    bare = backbone(images)
    with attach(backbone, plugin):
        moved = backbone(images)
        moved.sum().backward()
    assert not torch.equal(moved, bare)
    assert torch.equal(backbone(images), bare)
    assert all(parameter.grad is not None for parameter in plugin.parameters())


@torch.no_grad()
def test_it_widens_by_the_plain_loop(echo, vit):
    plugins = [create_plugin("echo", vit, strength=strength) for strength in (0.5, -2.0)]
    site = plugins[0].sites[1]
    x = torch.randn(2, 17, 32)
    expected = (0.3 * 0.5 + 0.7 * -2.0) * torch.tanh(x)
    torch.testing.assert_close(widen(plugins, torch.tensor([0.3, 0.7]), site)(x), expected)
    gates = torch.tensor([[0.3, 0.7], [1.0, 0.0]])
    wide = echo.Echo.widen([plugin.unit(site) for plugin in plugins])
    torch.testing.assert_close(wide(x, gates)[1], 0.5 * torch.tanh(x[1]))


def test_it_says_that_it_does_not_merge(echo, vit):
    before = vit.compute_fingerprint()
    with pytest.raises(PluginError, match="'echo' is not linear and cannot be merged"):
        merge(vit, create_plugin("echo", vit))
    with pytest.raises(PluginError, match="Echo is not linear and cannot be merged"):
        merge(vit, create_plugin("echo", vit, places=["fc1"]))
    assert vit.compute_fingerprint() == before


def test_a_taken_name_is_refused(echo):
    with pytest.raises(ConfigError, match="plug-in 'convpass' is registered already"):
        PLUGINS.register("convpass")(echo.Echo)
