"""Layouts: positions told by comparison, and blocks of which they cannot be told."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from vimlight.backbone import Backbone, Layout, Preprocessing
from vimlight.backbone.levels import Levels
from vimlight.errors import BackboneError
from vimlight.plugins.bottleneck import convolve

ROWS, COLUMNS, CHANNELS = 4, 6, 5
ORDER = tuple(torch.randperm(ROWS * COLUMNS, generator=torch.Generator().manual_seed(0)).tolist())
MAP = torch.randn(1, CHANNELS, ROWS, COLUMNS, generator=torch.Generator().manual_seed(1))
TOKENS = MAP.flatten(2).transpose(1, 2)
CLASS = torch.randn(1, 2, CHANNELS, generator=torch.Generator().manual_seed(2))
MIXED = torch.empty_like(TOKENS).index_copy_(1, torch.tensor(ORDER), TOKENS)
GRID = (ROWS, COLUMNS)

LAYOUTS = {
    "channels first": (MAP, Layout("NCHW")),
    "channels last": (MAP.permute(0, 2, 3, 1), Layout("NHWC")),
    "row by row": (TOKENS, Layout("NLC", 0, GRID)),
    "behind a class token": (torch.cat([CLASS, TOKENS], dim=1), Layout("NLC", 2, GRID)),
    "in another order": (MIXED, Layout("NLC", 0, GRID, ORDER)),
    "in another order behind a class token": (torch.cat([CLASS, MIXED], dim=1), Layout("NLC", 2, GRID, ORDER)),
    "in windows": (MIXED.unflatten(1, (6, 4)), Layout("NLC", 0, GRID, ORDER)),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_the_layout_is_told_by_comparison_and_gives_the_map_back(case):
    x, layout = LAYOUTS[case]
    match = Levels([torch.randn_like(MAP), MAP]).match(x)
    assert match is not None
    assert (match.level, match.layout) == (1, layout)
    assert torch.equal(layout.maps(x), MAP)


@pytest.mark.parametrize(
    "x",
    [
        torch.randn_like(TOKENS),
        torch.cat([TOKENS, CLASS], dim=1),
        TOKENS[:, [0, *range(ROWS * COLUMNS - 1)]],
        TOKENS[:, 1:],
        TOKENS[0],
    ],
    ids=["other values", "class token behind", "one twice", "one missing", "no batch"],
)
def test_where_the_values_are_not_those_of_the_map_there_is_no_layout(x):
    assert Levels([MAP]).match(x) is None


@pytest.mark.parametrize("case", LAYOUTS)
def test_a_convolution_sees_the_neighbours_in_the_image(case):
    x, layout = LAYOUTS[case]
    weight, bias = torch.randn(CHANNELS, CHANNELS, 3, 3), torch.randn(CHANNELS)
    found = convolve(x, weight, bias, layout)
    assert found.shape == x.shape
    wanted = nn.functional.conv2d(MAP, weight, bias, padding=1)
    torch.testing.assert_close(layout.maps(found), wanted, rtol=1e-5, atol=1e-5)


class Tokens(nn.Module):
    """A transformer of two blocks that says nothing of its positions."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, stride=4)
        self.blocks = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)))

    def forward(self, images):
        return self.blocks(self.embed(images).flatten(2).transpose(1, 2)).mean(dim=1)


def test_tokens_whose_places_nothing_tells_have_no_grid():
    backbone = Backbone(Tokens(), "tokens", Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3))
    assert [site.layout for site in backbone.blocks] == [Layout("NLC")] * 2
    assert backbone.num_features("grid") == backbone.num_features("layers") == 24
    with pytest.raises(BackboneError, match="no block of 'tokens' gives a map: the places of their positions are not"):
        backbone.taps()


def test_a_site_finds_its_tensor_in_a_tuple_and_puts_it_back():
    backbone = Backbone(Tokens(), "tokens", Preprocessing((16, 16), (0.5,) * 3, (0.5,) * 3))
    first, second, changed = torch.zeros(2), torch.ones(2), torch.full((2,), 7.0)
    site = dataclasses.replace(backbone.blocks[0], index=1)
    assert site.tensor([first, second]) is second
    assert site.put((first, second), changed) == (first, changed)
    assert site.put([first, second], changed) == [first, changed]
