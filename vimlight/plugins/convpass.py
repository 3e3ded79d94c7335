"""Convpass as Vision Middleware uses it: a bottleneck with a 3x3 convolution, parallel to attention and MLP."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.backbone import Site
from vimlight.plugins.bottleneck import Bottleneck
from vimlight.plugins.registry import PLUGINS

__all__ = ["Convpass"]

_SLOPE = 1.702


@PLUGINS.register("convpass")
class Convpass(Bottleneck):
    """ViM's module: `W_up qgelu(conv3x3(qgelu(W_down n + b)) + b) + b`, fed the normed input of the branch.

    Starts as the identity: the down projection is Xavier-uniform, the kernel an identity at its centre, the up
    projection zero. ViM applies no scale; Convpass itself has one. At blocks without branches it reads the block's
    output.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units, h; 2 d h + 9 h^2 + 2 h + d parameters a site.
        scale: Constant factor of the output.
        dropout: Probability with which hidden units are dropped in training.
    """

    # QuickGELU is x sigmoid(1.702 x) = silu(1.702 x) / 1.702: one operation, once the factors are in the weights.
    activation = staticmethod(F.silu)

    def __init__(self, site: Site, hidden: int = 8, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(site, hidden, scale, dropout)
        self.conv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # the bias exists
        with torch.no_grad():
            self.conv.weight[:, :, 1, 1] = torch.eye(hidden)

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether the positions are a grid that a convolution can run over."""
        return site.layout.has_grid and super().supports(site)

    def effective_down(self) -> tuple[Tensor, Tensor]:
        """Returns the down projection with QuickGELU's inner factor folded in."""
        weight, bias = super().effective_down()
        return weight * _SLOPE, bias * _SLOPE

    def effective_conv(self, conv: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Returns the convolution with one activation's outer and the next one's inner factor folded in."""
        weight, bias = super().effective_conv(conv)
        return weight, bias * _SLOPE

    def effective_up(self) -> tuple[Tensor, Tensor]:
        """Returns the up projection with QuickGELU's outer factor folded in."""
        weight, bias = super().effective_up()
        return weight / _SLOPE, bias
