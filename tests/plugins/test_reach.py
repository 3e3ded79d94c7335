"""Which blocks a plug-in reaches: the places are chosen block by block, and what is missed is said."""

from __future__ import annotations

import dataclasses
import warnings

import pytest

from vimlight.backbone import create_backbone
from vimlight.errors import PluginError, ZooError
from vimlight.plugins import Plugin, create_plugin
from vimlight.zoo import Zoo

EDGENEXT = {"img_size": 64, "dims": (16, 24, 32, 48), "depths": (2, 2, 2, 2), "heads": (4, 4, 4, 4)}
CAIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
VGG = {"img_size": 32, "mlp_ratio": 0.01}


@pytest.mark.parametrize("kind", ["lora", "ssf", "repadapter", "adaptformer"])
def test_each_block_gets_the_first_places_that_it_offers(kind):
    backbone = create_backbone("edgenext_xx_small", **EDGENEXT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin = create_plugin(kind, backbone)
    assert plugin.blocks_reached == tuple(range(8))
    assert plugin.reach == "8 of 8"
    assert "blocks='8 of 8'" in repr(plugin)
    if kind == "lora":
        assert {site.place for site in plugin.sites} == {"q", "v", "fc1", "fc2"}


def test_a_plugin_that_misses_blocks_says_so(tmp_path):
    backbone = create_backbone("cait_xxs24_224", **CAIT)
    text = r"plug-in 'convpass' reaches 2 of 4 blocks of 'cait_xxs24_224'; it finds no place in 'blocks_token_only.0'"
    with pytest.warns(UserWarning, match=text):
        plugin = create_plugin("convpass", backbone, hidden=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_plugin("convpass", backbone, hidden=2, blocks="first:2")
    zoo = Zoo(tmp_path)
    zoo.add("module", plugin)
    assert zoo.card("module").blocks == "2 of 4"
    assert zoo.load("module", backbone).reach == "2 of 4"


def test_a_plugin_without_any_place_is_refused_when_it_is_made():
    backbone = create_backbone("cait_xxs24_224", **CAIT)
    with pytest.raises(PluginError, match="plug-in 'convpass' finds no site in blocks 'last:2' of 'cait_xxs24_224'"):
        create_plugin("convpass", backbone, blocks="last:2")


def test_in_front_of_a_padding_convolution_there_is_no_bias():
    backbone = create_backbone("vgg11", **VGG)
    with pytest.warns(UserWarning, match="reaches 7 of 8 blocks"):
        plugin = create_plugin("repadapter", backbone)
    unit = plugin.unit("features.3")
    assert unit.down.bias is None
    assert unit.up.bias is None


def test_a_module_at_a_place_that_is_no_longer_one_is_refused_by_its_name(tmp_path):
    backbone = create_backbone("test_coatnet", img_size=64)
    stage = dataclasses.replace(backbone.blocks[0], name="stages.0")
    zoo = Zoo(tmp_path)
    zoo.add("module", Plugin("adapter_plus", [stage], {}, backbone.fingerprint, backbone.name))
    with pytest.raises(ZooError, match=r"module 'module': unknown site of 'test_coatnet' 'stages.0'; did you mean 'st"):
        zoo.load("module", backbone)
