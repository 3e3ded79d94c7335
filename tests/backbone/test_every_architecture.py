"""Every module of timm: features, readouts, maps at their places, and every type of plug-in."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import pytest
import timm
import torch
from torch import Tensor

from benchmarks.architecture_table import ARCHITECTURES
from benchmarks.architectures import FILE, row, small_backbone
from vimlight.backbone import READOUTS, Backbone
from vimlight.backbone.readout import map_levels
from vimlight.plugins import Attachment, Slot, attach, create_plugin, list_plugins
from vimlight.plugins.base import LoopedUnits

# Each has something that no other one has: the rest are slow together.
QUICK = {"cait", "coat", "densenet", "efficientvim", "hiera", "pit", "pvt_v2", "tnt", "xcit"}
# Blocks of one depthwise convolution, and first layers of three or of an odd number of channels.
UNREACHED = {
    ("dpn", "repadapter"): 1,
    ("iformer", "lora"): 5,
    ("iformer", "repadapter"): 5,
    ("inception_v4", "repadapter"): 1,
    ("rexnet", "repadapter"): 1,
    ("vgg", "repadapter"): 1,
}
MODULES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ARCHITECTURES]
# The first size is that of the backbone which the other tests share.
OTHER_SIZES = [
    pytest.param(name, size, marks=() if name in QUICK else pytest.mark.slow)
    for name, (_, _, sizes) in ARCHITECTURES.items()
    for size in sizes[1:]
]


def shaken(module, amount=0.02):
    """Moves every parameter, since many families start with parts that compute nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(amount * torch.randn(parameter.shape, generator=generator))
    return module


def backbone_of(module, size=None):
    torch.manual_seed(0)
    backbone = shaken(small_backbone(module, size))
    # Some attentions keep what they made of their biases until the model trains.
    backbone.model.train().eval()
    return backbone


def images_of(size):
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


class Case(NamedTuple):
    """A backbone of a module of timm, with images and features."""

    module: str
    backbone: Backbone
    images: Tensor
    last: Tensor


@pytest.fixture(scope="module", params=MODULES)
def case(request):
    """One of every module; because of the scope, all tests of one run one after the other and share it."""
    backbone = backbone_of(request.param)
    images = images_of(backbone.preprocessing.size)
    return Case(request.param, backbone, images, backbone(images))


def plugin_of(kind, backbone, seed=5):
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return shaken(create_plugin(kind, backbone), 0.05).eval()


@pytest.fixture(scope="module", params=list_plugins())
def plugin(request, case):
    """One of every type on that backbone; tests do not move it."""
    return plugin_of(request.param, case.backbone)


def close(found, wanted, rounding=1e-4):
    return float((found - wanted).abs().max()) <= rounding * float(wanted.abs().max())


def test_every_module_of_timm_is_in_the_table():
    # The image towers of this package are registered with timm too.
    modules = [name for name in timm.list_modules() if hasattr(timm.models, name)]
    assert sorted(ARCHITECTURES) == sorted(modules)


def test_the_written_table_is_current(case):
    assert row(case.module, case.backbone) in FILE.read_text().splitlines()


@pytest.mark.parametrize("line", FILE.read_text().splitlines()[-len(ARCHITECTURES) :], ids=lambda line: line.split()[1])
def test_every_type_reaches_every_block_but_those_that_are_explained(line):
    module, _, blocks, _, _, grid, maps, *reached = line.strip("| ").split(" | ")
    assert len(set(maps.split("/"))) == 1
    for kind, found in zip(list_plugins(), reached, strict=True):
        wanted = grid if kind == "convpass" else str(int(blocks) - UNREACHED.get((module, kind), 0))
        assert found == wanted, kind


def test_the_place_of_a_layer_is_none_of_a_branch(case):
    assert not {site.place for site in case.backbone.all_sites.layers} & {"attn", "mlp", "block"}


def test_readouts_begin_with_the_features_of_timm(case):
    _, backbone, images, last = case
    model = timm.create_model(backbone.name, num_classes=0, **_arguments(backbone)).eval()
    model.load_state_dict(backbone.model.state_dict())
    with torch.no_grad():
        assert close(last, model(images))
    for readout in READOUTS:
        features = backbone(images, readout)
        assert features.shape == (2, backbone.num_features(readout))
        assert features.isfinite().all()
        assert torch.equal(features[:, : last.shape[1]], last)


def _arguments(backbone):
    name, arguments, sizes = next(entry for entry in ARCHITECTURES.values() if entry[0] == backbone.name)
    try:
        with torch.device("meta"):
            timm.create_model(name, img_size=sizes[0], **arguments)
    except TypeError:
        return arguments
    return {"img_size": sizes[0], **arguments}


def check_maps(backbone, images):
    with torch.no_grad():
        every = backbone.model.forward_intermediates(images, intermediates_only=True)
    wanted = [every[level] for level in map_levels([tuple(x.shape[2:]) for x in every])]
    maps = backbone(images, "maps")
    assert [x.shape for x in maps] == [x.shape for x in wanted]
    assert all(close(found, right) for found, right in zip(maps, wanted, strict=True))


def test_maps_are_those_of_timm(case):
    check_maps(case.backbone, case.images)


@pytest.mark.parametrize(("module", "size"), OTHER_SIZES)
def test_maps_of_other_sizes_are_those_of_timm_at_the_same_positions(module, size):
    check_maps(backbone_of(module, size), images_of(size))


def test_a_plugin_has_effect_and_gradient_and_leaves_no_trace(case, plugin):
    _, backbone, images, last = case
    with attach(backbone, plugin):
        moved = backbone(images)
        moved.square().mean().backward()
    assert moved.isfinite().all()
    assert not close(moved, last, 1e-5)
    learning = {
        site.depth
        for site in plugin.sites
        if any(parameter.grad is not None and parameter.grad.any() for parameter in plugin.unit(site).parameters())
    }
    assert learning >= set(plugin.blocks_reached)
    assert torch.equal(backbone(images), last)


@torch.no_grad()
def test_the_fused_form_equals_the_loop(case, plugin):
    _, backbone, images, _ = case
    plugins, gates = [plugin, plugin_of(plugin.kind, backbone, seed=6)], torch.tensor([0.7, -0.4])
    unit_type, outputs = plugins[0].unit_type, []
    for widen in (unit_type.widen, LoopedUnits):
        slots = [
            Slot(
                site,
                unit_type.reads,
                unit_type.writes,
                widen([plugin.unit(site) for plugin in plugins]).fix(gates),
            )
            for site in plugins[0].sites
        ]
        with Attachment(backbone, slots):
            outputs.append(backbone(images))
    assert close(*outputs, rounding=1e-3)
