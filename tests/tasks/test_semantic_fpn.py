"""The Semantic-FPN head against its formulas, and for other sizes than the published ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from vimlight.errors import ConfigError
from vimlight.tasks.semantic_fpn import SemanticFPN


@pytest.fixture
def shaken():
    """Returns a function that gives every parameter and every running statistic of a model a value of its own."""

    def shake(model):
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.5 if name.endswith("var") else torch.randn(tensor.shape) / 4)
        return model.eval()

    return shake


def norm(x, state, name):
    mean, var, weight, bias = (
        state[f"{name}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * weight + bias


def by_the_formulas(state, maps):
    """The published head for four maps of one stride, in plain tensor operations."""

    def double(x, name):
        return F.conv_transpose2d(x, state[f"{name}.weight"], state[f"{name}.bias"], stride=2)

    def conv(x, name, padding=0):
        return F.conv2d(x, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=padding)

    first = double(F.gelu(norm(double(maps[0], "pre_fpn.0.0"), state, "pre_fpn.0.1")), "pre_fpn.0.3")
    x = [first, double(maps[1], "pre_fpn.1"), maps[2], F.max_pool2d(maps[3], 2)]
    x = [conv(level, f"fpn_neck.lateral_convs.{i}.conv") for i, level in enumerate(x)]
    for i in (3, 2, 1):
        x[i - 1] = x[i - 1] + F.interpolate(x[i], size=x[i - 1].shape[2:], mode="nearest")
    x = [conv(level, f"fpn_neck.fpn_convs.{i}.conv", 1) for i, level in enumerate(x)]
    for i, length in enumerate((1, 1, 2, 3)):
        for k in range(length):
            name = f"fpn_head.scale_heads.{i}.{2 * k}"
            x[i] = norm(conv(x[i], f"{name}.conv", 1), state, f"{name}.bn").clamp_min(0)
            if i:
                x[i] = F.interpolate(x[i], scale_factor=2.0, mode="bilinear")
        x[i] = F.interpolate(x[i], size=first.shape[2:], mode="bilinear")
    return conv(sum(x), "fpn_head.conv_seg")


@pytest.mark.parametrize("side", [4, 5])
@torch.no_grad()
def test_it_equals_the_formulas(shaken, side):
    head = shaken(SemanticFPN([10] * 4, 7, width=6, head_width=5, map_strides=16))
    maps = [torch.randn(2, 10, side, side) for _ in range(4)]
    logits = head(maps)
    assert logits.shape == (2, 7, 4 * side, 4 * side)
    torch.testing.assert_close(logits, by_the_formulas(head.state_dict(), maps), rtol=1e-5, atol=1e-5)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        head = SemanticFPN([768] * 4, 21, map_strides=16)
    parts = [sum(p.numel() for p in part.parameters()) for part in (head.pre_fpn, head.fpn_neck, head.fpn_head)]
    assert parts == [7_081_728, 3_147_776, 1_626_517]


@pytest.mark.parametrize(
    ("strides", "map_strides", "sizes"),
    [
        ((4, 8, 16, 32), None, [16, 8, 4, 2]),
        ((4, 8, 16, 32), (4, 8, 16, 32), [16, 8, 4, 2]),
        ((2, 4, 8, 16), 16, [4] * 4),
        ((4, 8, 16, 32), 32, [2] * 4),
        ((8, 16), (8, 8), [8, 8]),
        ((14, 28), 14, [1, 1]),
        ((4,), 16, [3]),
    ],
)
def test_other_sizes_learn_everywhere(strides, map_strides, sizes):
    channels = list(range(3, 3 + len(strides)))
    head = SemanticFPN(channels, 2, width=4, head_width=3, strides=strides, map_strides=map_strides, dropout=0.0)
    maps = [torch.randn(3, c, s, s) for c, s in zip(channels, sizes, strict=True)]
    logits = head(maps)
    first = map_strides if isinstance(map_strides, int) else (map_strides or strides)[0]
    assert logits.shape[2:] == (sizes[0] * first // strides[0],) * 2
    nn.init.normal_(head.fpn_head.conv_seg.weight)
    head(maps).square().sum().backward()
    assert all(p.grad is not None for p in head.parameters())


def test_maps_need_not_be_square():
    head = SemanticFPN([3, 3, 3, 3], 2, width=4, head_width=3, map_strides=16)
    assert head([torch.randn(2, 3, 3, 5) for _ in range(4)]).shape == (2, 2, 12, 20)


def test_dropout_is_its_own_and_only_in_training():
    head = SemanticFPN([3], 2, width=4, head_width=3, strides=(4,), dropout=0.5)
    maps = [torch.randn(8, 3, 4, 4)]
    assert not torch.equal(head(maps), head(maps))
    head.eval()
    assert torch.equal(head(maps), head(maps))


@pytest.mark.parametrize(
    ("channels", "settings", "message"),
    [
        ([3, 3], {"strides": (4,)}, r"2 maps need as many strides, got \[4\] and \[4\]"),
        ([3, 3], {"strides": (4, 8), "map_strides": (16,)}, r"2 maps need as many strides, got \[4, 8\] and \[16\]"),
        ([], {"strides": ()}, "0 maps need as many strides"),
        ([3, 3], {"strides": (4, 12)}, "strides must be powers of two of each other, got 12 and 4"),
        ([3], {"strides": (4,), "map_strides": 14}, "strides must be powers of two of each other, got 14 and 4"),
        ([3], {"strides": (0,)}, "strides must be powers of two of each other, got 0 and 0"),
        ([3, 3], {"strides": (8, 4)}, "the first of the strides must be the smallest"),
    ],
)
def test_sizes_that_do_not_go_together(channels, settings, message):
    with pytest.raises(ConfigError, match=message):
        SemanticFPN(channels, 2, **settings)
