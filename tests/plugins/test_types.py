"""What holds for every registered plug-in type."""

from __future__ import annotations

import copy

import pytest
import torch

from vimlight.plugins import PLUGINS, attach, create_plugin, list_plugins

EVERY_TYPE = pytest.mark.parametrize("kind", list_plugins())


def test_the_promised_types_are_there():
    assert set(list_plugins()) >= {"adapter_plus", "adaptformer", "convpass", "houlsby", "lora", "repadapter", "ssf"}


@EVERY_TYPE
def test_a_new_unit_is_the_identity_where_the_type_says_so(backbone, images, kind):
    bare = backbone(images)
    with attach(backbone, create_plugin(kind, backbone).eval()), torch.no_grad():
        new = backbone(images)
    assert torch.equal(new, bare) == PLUGINS[kind].identity_at_start


@EVERY_TYPE
def test_every_parameter_learns_within_a_few_steps(backbone, images, kind):
    plugin = create_plugin(kind, backbone).train()
    start = {name: parameter.detach().clone() for name, parameter in plugin.named_parameters()}
    received = dict.fromkeys(start, 0.0)
    optimizer = torch.optim.AdamW(plugin.parameters(), lr=1e-2, weight_decay=0.0)
    head = torch.randn(backbone.num_features(), 4)
    with attach(backbone, plugin):
        for _ in range(4):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(backbone(images) @ head, torch.tensor([0, 3])).backward()
            for name, parameter in plugin.named_parameters():
                received[name] += float(parameter.grad.abs().sum())
            optimizer.step()
    dead = [name for name, parameter in plugin.named_parameters() if torch.equal(parameter, start[name])]
    assert not dead
    assert [name for name, total in received.items() if total == 0.0] == []


@EVERY_TYPE
def test_training_leaves_the_backbone_as_it_was(backbone, images, kind):
    before = backbone.compute_fingerprint()
    plugin = create_plugin(kind, backbone)
    backbone.train()
    with attach(backbone, plugin):
        backbone(images).square().sum().backward()
        torch.optim.SGD(plugin.parameters(), lr=0.1).step()
    assert not any(module.training for module in backbone.modules())
    assert all(parameter.grad is None for parameter in backbone.parameters())
    assert backbone.compute_fingerprint() == before == backbone.fingerprint


@EVERY_TYPE
def test_settings_are_complete_and_make_the_same_plugin_again(backbone, kind):
    plugin = create_plugin(kind, backbone)
    again = type(plugin)(plugin.kind, plugin.sites, plugin.settings, plugin.fingerprint)
    assert again.settings == plugin.settings
    shapes = {name: tensor.shape for name, tensor in plugin.state_dict().items()}
    assert {name: tensor.shape for name, tensor in again.state_dict().items()} == shapes


@EVERY_TYPE
def test_a_deep_copy_is_independent(backbone, images, shake, kind):
    plugin = shake(create_plugin(kind, backbone)).eval()
    twin = copy.deepcopy(plugin)
    with torch.no_grad():
        with attach(backbone, plugin):
            expected = backbone(images)
        with attach(copy.deepcopy(backbone), shake(twin)) as _, attach(backbone, plugin):
            assert torch.equal(backbone(images), expected)


@EVERY_TYPE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision_forward_and_backward(backbone, images, shake, kind, dtype):
    plugin = shake(create_plugin(kind, backbone), 0.02)
    with attach(backbone, plugin), torch.autocast("cpu", dtype=dtype):
        backbone(images).float().square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in plugin.parameters())
