"""A step that keeps less has the gradients of one that keeps all, whatever is attached to whatever backbone."""

from __future__ import annotations

import contextlib
import gc
import weakref

import pytest
import torch
from numerics import assert_near, shaken
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.memory import kept_by_graph
from vimlight.backbone import create_backbone
from vimlight.backbone.recomputing import MEMORY
from vimlight.errors import BackboneError, UnknownNameError
from vimlight.plugins import Attachment, Slot, attach, create_plugin, list_plugins

EVERY_TYPE = pytest.mark.parametrize("kind", list_plugins())
SPARING = [memory for memory, places in MEMORY.items() if places]
EVERY_MODE = pytest.mark.parametrize("memory", SPARING)
WIDE = {"img_size": 64, "patch_size": 8, "embed_dim": 64, "depth": 6, "num_heads": 2}


def loss_of(backbone, plugins, images, memory, dtype=None):
    """The loss of one step, drawn from the same seed in every mode."""
    torch.manual_seed(5)
    with contextlib.ExitStack() as stack:
        for plugin in plugins:
            stack.enter_context(attach(backbone, plugin))
        if dtype is not None:
            stack.enter_context(torch.autocast("cpu", dtype))
        stack.enter_context(backbone.recomputing(memory))
        return backbone(images).float().square().mean()


def learned(plugins):
    return [parameter for plugin in plugins for parameter in plugin.parameters()]


def assert_same_step(backbone, plugins, images, memory, dtype=None):
    found, state = [], []
    for mode in ("plain", memory):
        loss = loss_of(backbone, plugins, images, mode, dtype)
        found.append((loss.detach(), *torch.autograd.grad(loss, learned(plugins))))
        state.append(torch.get_rng_state())
    for given, expected in zip(found[1], found[0], strict=True):
        assert_near(given, expected)
    assert any(gradient.abs().max() > 0 for gradient in found[0][1:])
    assert torch.equal(*state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in backbone.modules())


@EVERY_MODE
@EVERY_TYPE
def test_gradients_are_those_of_a_step_that_keeps_all(backbone, images, kind, memory):
    # In training, so that what drops units or paths has to draw the same once more.
    plugin = shaken(create_plugin(kind, backbone)).train()
    assert_same_step(backbone, [plugin], images, memory)


@EVERY_MODE
@EVERY_TYPE
def test_so_they_are_in_mixed_precision(vit, kind, memory):
    plugin = shaken(create_plugin(kind, vit)).train()
    assert_same_step(vit, [plugin], torch.randn(2, 3, 32, 32), memory, torch.bfloat16)


@EVERY_MODE
def test_so_they_are_with_all_types_at_once_and_at_every_layer(vit, memory):
    places = ["q", "k", "v", "qkv", "proj", "fc1", "fc2"]
    plugins = [shaken(create_plugin(kind, vit)) for kind in list_plugins()]
    plugins += [
        shaken(create_plugin("lora", vit, places=places)),
        shaken(create_plugin("convpass", vit, blocks="last:1")),
    ]
    assert_same_step(vit, plugins, torch.randn(2, 3, 32, 32), memory)


ARCHITECTURES = {
    "normed queries": ("vit_tiny_patch16_224", {"qk_norm": True}),
    "layer scale and drop path": ("vit_tiny_patch16_224", {"init_values": 0.5, "drop_path_rate": 0.3}),
    "QuickGELU and a norm in front": ("vit_base_patch16_clip_quickgelu_224", {}),
    "register tokens": ("vit_tiny_patch16_224", {"reg_tokens": 2, "no_embed_class": True}),
    "norms behind the branches": ("vit_relpos_base_patch32_plus_rpn_256", {"img_size": 32}),
    "parallel branches": ("vit_base_patch16_xp_224", {}),
    "gated MLP": ("eva02_tiny_patch14_224", {}),
    "split queries, keys and values": ("eva_giant_patch14_224", {}),
    "relative positions": ("beit_base_patch16_224", {}),
    "learned scales of residuals": ("cait_xxs24_224", {}),
    "cross-covariance": ("xcit_nano_12_p16_224", {}),
    "maps and convolutions": ("test_convnext", {}),
    "writes in place": ("test_resnet", {}),
}


@pytest.mark.slow
@EVERY_MODE
@pytest.mark.parametrize("case", ARCHITECTURES)
def test_so_they_are_in_every_kind_of_block(case, memory):
    name, arguments = ARCHITECTURES[case]
    tiny = {} if name.startswith("test_") else {"patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}
    torch.manual_seed(0)
    backbone = create_backbone(name, **{"img_size": 32, **tiny, **arguments})
    plugins = [shaken(create_plugin(kind, backbone)).train() for kind in ("lora", "ssf", "houlsby")]
    assert_same_step(backbone, plugins, torch.randn(2, 3, *backbone.preprocessing.size), memory)


@EVERY_MODE
def test_attention_that_is_not_fused_is_kept_as_it_is(vit, memory, monkeypatch):
    for block in vit.model.blocks:
        monkeypatch.setattr(block.attn, "fused_attn", False)
    assert_same_step(vit, [shaken(create_plugin("convpass", vit))], torch.randn(2, 3, 32, 32), memory)


@pytest.fixture(scope="module")
def wide():
    torch.manual_seed(0)
    return create_backbone("vit_tiny_patch16_224", **WIDE)


@EVERY_TYPE
def test_of_each_block_the_stream_queries_keys_values_and_attention_are_kept(wide, kind):
    setting = {"ssf": {}, "lora": {"rank": 1}, "repadapter": {"hidden": 2}}.get(kind, {"hidden": 1})
    plugin, images = shaken(create_plugin(kind, wide, **setting)).train(), torch.randn(8, 3, 64, 64)
    width = 8 * 65 * 64 * 4 * len(wide.blocks)
    kept = {mode: kept_by_graph(lambda mode=mode: loss_of(wide, [plugin], images, mode)) / width for mode in MEMORY}
    reads_behind_mlp = kind in ("houlsby", "ssf")
    # Beside whole widths there are hidden units, moments of norms and, outside the blocks, the last norm's input.
    assert 4 < kept["light"] < 5.7 + reads_behind_mlp
    assert 1.5 < kept["lean"] < 2.7
    assert kept["plain"] > 1.6 * kept["light"]


def test_of_mixed_precision_no_cast_weights_are_kept(wide):
    plugin, images = shaken(create_plugin("adaptformer", wide, hidden=1)), torch.randn(1, 3, 64, 64)
    seen = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: seen.append(tensor) or tensor, lambda tensor: tensor):
        loss_of(wide, [plugin], images, "plain", torch.bfloat16)
    weights = [tensor for tensor in seen if tensor.numel() == 3 * 64 * 64 and tensor.dtype == torch.bfloat16]
    assert weights, "there is something not to keep"
    kept = {m: kept_by_graph(lambda m=m: loss_of(wide, [plugin], images, m, torch.bfloat16)) for m in ("plain", "lean")}
    cast = 12 * 64 * 64 * 2 * (len(wide.blocks) - 1)
    assert kept["plain"] - kept["lean"] > cast


@pytest.mark.parametrize(("kind", "settings"), [("lora", {"rank": 1}), ("convpass", {"hidden": 1})])
def test_nor_are_the_casts_that_a_plugin_reads(wide, kind, settings):
    plugin, images = shaken(create_plugin(kind, wide, **settings)), torch.randn(8, 3, 64, 64)
    width = 8 * 65 * 64 * 4 * len(wide.blocks)
    # The stream is of 32 bits, attention's output of 16.
    assert kept_by_graph(lambda: loss_of(wide, [plugin], images, "lean", torch.bfloat16)) / width < 2.3


def test_a_graph_may_be_walked_twice(vit):
    plugin = shaken(create_plugin("lora", vit))
    loss = loss_of(vit, [plugin], torch.randn(2, 3, 32, 32), "lean")
    first = torch.autograd.grad(loss, learned([plugin]), retain_graph=True)
    for again, expected in zip(torch.autograd.grad(loss, learned([plugin])), first, strict=True):
        assert torch.equal(again, expected)


def test_second_derivatives_are_the_same(vit):
    plugin, found = shaken(create_plugin("convpass", vit, blocks="last:1")), []
    for memory in ("plain", "lean"):
        loss = loss_of(vit, [plugin], torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)), memory)
        slopes = torch.autograd.grad(loss, learned([plugin]), create_graph=True)
        found.append(torch.autograd.grad(sum(slope.square().sum() for slope in slopes), learned([plugin])))
    for given, expected in zip(*reversed(found), strict=True):
        assert_near(given, expected)


class Step(nn.Module):
    def __init__(self, backbone, plugin):
        super().__init__()
        self.backbone, self.plugin = backbone, plugin

    def forward(self, images):
        return loss_of(self.backbone, [self.plugin], images, "lean")


def test_processes_that_train_together_see_each_gradient_once(vit, tmp_path):
    plugin, images = shaken(create_plugin("lora", vit)), torch.randn(2, 3, 32, 32)
    expected = torch.autograd.grad(loss_of(vit, [plugin], images, "plain"), learned([plugin]))
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        DistributedDataParallel(Step(vit, plugin))(images).backward()
    finally:
        distributed.destroy_process_group()
    for parameter, gradient in zip(learned([plugin]), expected, strict=True):
        assert_near(parameter.grad, gradient)


def test_without_a_graph_nothing_is_noted(vit):
    with torch.no_grad(), vit.recomputing("lean"):
        assert vit.ledger is None
    with vit.recomputing("plain"):
        assert vit.ledger is None


def test_with_the_graph_goes_what_was_noted_and_computed_again(vit):
    plugin, images = shaken(create_plugin("convpass", vit)), torch.randn(2, 3, 32, 32)
    gc.disable()
    try:
        with attach(vit, plugin), vit.recomputing("lean"):
            ledger = weakref.ref(vit.ledger)
            loss = vit(images).sum()
        assert ledger() is not None
        loss.backward()
        assert ledger() is None
    finally:
        gc.enable()


def test_what_fails_inside_leaves_nothing_behind(vit):
    with pytest.raises(ZeroDivisionError), vit.recomputing("lean"):
        raise ZeroDivisionError
    assert vit.ledger is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in vit.modules())


def test_what_is_not_a_module_may_be_stateful_and_is_kept(vit):
    calls, scale = [], torch.ones(32, requires_grad=True)

    def counted(x):
        calls.append(len(calls))
        return x * scale * (0.5 + len(calls) % 7)

    slots = [Slot(site, "input", "output", counted) for site in vit.sites]
    slopes = []
    for mode in (vit.recomputing("plain"), vit.recomputing("lean")):
        calls.clear()
        with Attachment(vit, slots), mode:
            loss = vit(torch.ones(2, 3, 32, 32)).square().mean()
        slopes.append(torch.autograd.grad(loss, scale)[0])
    assert_near(slopes[1], slopes[0])
    assert len(calls) == len(slots)


class Normed(nn.Module):
    """A unit that keeps running statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(17)

    def forward(self, x):
        return self.norm(x)


def test_running_statistics_run_once(vit):
    means = []
    for memory in ("plain", "lean"):
        unit = Normed()
        with Attachment(vit, [Slot(vit.sites[0], "output", "output", unit)]), vit.recomputing(memory):
            vit(torch.ones(2, 3, 32, 32)).sum().backward()
        means.append(unit.norm.running_mean)
    assert torch.equal(*means)


def test_a_kept_tensor_that_is_written_to_is_noticed(vit):
    kept = []
    slot = Slot(vit.sites[0], "input", "output", lambda x: kept.append(x * 1) or kept[0].sigmoid().mul(kept[0]))
    weight = torch.ones(32, requires_grad=True)
    with Attachment(vit, [Slot(vit.sites[0], "input", "input", lambda x: x * weight), slot]), vit.recomputing("light"):
        loss = vit(torch.randn(2, 3, 32, 32)).sum()
    kept[0].detach().add_(1)
    with pytest.raises(
        BackboneError, match=r"a tensor \(2, 17, 32\) that the backward pass needs was changed in place"
    ):
        loss.backward()


def test_a_misspelt_mode_is_answered_with_the_nearest(vit):
    with pytest.raises(UnknownNameError, match="unknown memory 'leen'; did you mean 'lean'"), vit.recomputing("leen"):
        pass


@pytest.mark.slow
def test_a_compiled_step_is_left_to_the_compiler(vit):
    plugin, images = shaken(create_plugin("convpass", vit, blocks="last:1")), torch.randn(2, 3, 32, 32)
    torch.compiler.reset()

    def step(images):
        with vit.recomputing("lean"):
            return vit(images).square().mean()

    with attach(vit, plugin):
        expected = torch.autograd.grad(step(images), learned([plugin]))
        whole = torch.autograd.grad(torch.compile(step, backend="aot_eager")(images), learned([plugin]))
        with vit.recomputing("lean"):
            inner = torch.compile(vit, backend="aot_eager")(images).square().mean()
        inner = torch.autograd.grad(inner, learned([plugin]))
    for given in (whole, inner):
        for found, wanted in zip(given, expected, strict=True):
            assert_near(found, wanted)
