"""Houlsby's adapter: a bottleneck behind attention and behind the MLP, before each joins the residual stream."""

from __future__ import annotations

from torch import nn

from vimlight.backbone import Site
from vimlight.plugins.bottleneck import Bottleneck
from vimlight.plugins.registry import PLUGINS

__all__ = ["Houlsby"]


@PLUGINS.register("houlsby")
class Houlsby(Bottleneck):
    """`a + U gelu(D a)` on the output a of the attention branch and of the MLP branch.

    Both projections start from a narrow normal distribution, so a new unit is close to the identity and not exactly it.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units.
        dropout: Probability with which hidden units are dropped in training.
    """

    reads = "output"
    identity_at_start = False

    def __init__(self, site: Site, hidden: int = 8, dropout: float = 0.0) -> None:
        super().__init__(site, hidden, dropout=dropout)
        for projection in (self.down, self.up):
            nn.init.trunc_normal_(projection.weight, std=0.01, a=-0.02, b=0.02)
