"""A backbone that goes on from a block gives what it gives for the images."""

from __future__ import annotations

import pytest
import torch
from numerics import assert_near
from test_architectures import ARCHITECTURES

from vimlight.backbone import READOUTS, create_backbone
from vimlight.errors import BackboneError
from vimlight.plugins import attach, create_plugin

# Models that do more than to hand one tensor from block to block.
REFUSED = {"cait", "sam"}
# Those that do so behind the first of them.
REFUSED_AT_START = REFUSED | {"twins", "xcit"}
VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2}


@pytest.fixture(scope="module")
def vit():
    return create_backbone("vit_tiny_patch16_224", **VIT)


def images_for(backbone, count=2):
    return torch.randn(count, 3, *backbone.preprocessing.size)


@pytest.mark.parametrize("case", ARCHITECTURES)
def test_features_from_a_block_on_are_those_of_the_images(case):
    name, arguments, *_ = ARCHITECTURES[case]
    backbone = create_backbone(name, **arguments)
    images = images_for(backbone)
    for depth in (0, len(backbone.blocks) - 1):
        if case in (REFUSED if depth else REFUSED_AT_START):
            reason = "the model does more than to hand one tensor from module to module"
            with pytest.raises(BackboneError, match=reason):
                backbone.route(depth)
            continue
        with torch.no_grad():
            for readout in READOUTS:
                found = backbone(backbone.prefix(images, depth, readout), readout)
                assert_near(found, backbone(images, readout))


@pytest.mark.parametrize("readout", [*READOUTS, "maps", "maps:0,2"])
@pytest.mark.parametrize("depth", [0, 1, 2, 3, 4])
def test_every_depth_of_a_transformer_is_exact(vit, depth, readout):
    images = images_for(vit, 3)
    with torch.no_grad():
        prefix = vit.prefix(images, depth, readout)
        assert (len(prefix), prefix.depth) == (3, depth)
        torch.testing.assert_close(vit(prefix, readout), vit(images, readout), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["convpass", "adaptformer", "lora", "ssf", "houlsby"])
def test_plugins_in_the_last_blocks_see_the_same_tokens_and_learn_the_same(vit, kind):
    plugin, images = create_plugin(kind, vit, blocks="last:2"), images_for(vit)
    for parameter in plugin.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    prefix = vit.prefix(images, 2, "grid")
    gradients = []
    for given in (images, prefix):
        plugin.zero_grad()
        torch.manual_seed(0)
        with attach(vit, plugin):
            vit(given, "grid").square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in plugin.parameters()])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_no_earlier_block_is_run_again(vit):
    prefix, calls = vit.prefix(images_for(vit), 3), []
    handle = vit.model.blocks[2].register_forward_hook(lambda *_: calls.append(1))
    vit(prefix)
    handle.remove()
    assert not calls


def test_what_is_attached_before_the_depth_is_refused(vit):
    prefix = vit.prefix(images_for(vit), 3)
    with attach(vit, create_plugin("convpass", vit, blocks=[1])), pytest.raises(
        BackboneError, match="attached to block 1, but the first 3 blocks were run before"
    ):
        vit(prefix)
    vit(prefix)
    assert not vit.occupied


def test_mistakes_are_named(vit):
    images = images_for(vit)
    with pytest.raises(BackboneError, match="depth must lie between 0 and the 4 blocks, got 5"):
        vit.prefix(images, 5)
    with pytest.raises(BackboneError, match="run for the readout 'last', not for 'grid'"):
        vit(vit.prefix(images, 2), "grid")


def test_positions_of_another_image_size_are_refused():
    backbone = create_backbone("eva02_tiny_patch14_224", **VIT)
    prefix = backbone.prefix(images_for(backbone), 2)
    prefix.tokens = prefix.tokens[:, :-1]
    with pytest.raises(BackboneError, match="those of another image size"):
        backbone(prefix)


def test_finding_the_way_leaves_the_global_random_state_alone(untouched_rng, vit):
    vit._routes.clear()
    vit.route(2)
