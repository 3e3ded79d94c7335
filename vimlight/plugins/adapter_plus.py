"""Adapter+: a bottleneck behind each whole block, with a learned scale for each channel."""

from __future__ import annotations

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from vimlight.backbone import Site
from vimlight.plugins.bottleneck import Bottleneck
from vimlight.plugins.registry import PLUGINS

__all__ = ["AdapterPlus"]


@PLUGINS.register("adapter_plus")
class AdapterPlus(Bottleneck):
    """`z + gamma (U gelu(D z + b) + b')` on the output z of each block, gamma per channel.

    Both projections start from a narrow normal distribution, so a new unit is close to the identity and not exactly it.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units.
        dropout: Probability with which hidden units are dropped in training.
        drop_path: Probability with which the whole unit is skipped for an image in training.
    """

    places = (("block",),)
    reads = "output"
    identity_at_start = False

    def __init__(self, site: Site, hidden: int = 8, dropout: float = 0.0, drop_path: float = 0.1) -> None:
        super().__init__(site, hidden, dropout=dropout)
        self.gamma = nn.Parameter(torch.ones(site.width))
        self.drop_path = DropPath(drop_path)
        for projection in (self.down, self.up):
            nn.init.trunc_normal_(projection.weight, std=0.01, a=-0.02, b=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added, in the layout of `x`."""
        output: Tensor = self.drop_path(super().forward(x))
        return output

    def effective_up(self) -> tuple[Tensor, Tensor]:
        """Returns the up projection with the channels' scales folded in."""
        return self.up.weight * self.gamma[:, None], self.up.bias * self.gamma
