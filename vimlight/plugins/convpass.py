"""Convpass as Vision Middleware uses it: a bottleneck with a 3x3 convolution, parallel to attention and MLP."""

from __future__ import annotations

import torch
from torch import nn

from vimlight.backbone import Site
from vimlight.plugins.base import PLUGINS
from vimlight.plugins.bottleneck import Bottleneck, quick_gelu

__all__ = ["Convpass"]


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

    activation = staticmethod(quick_gelu)

    def __init__(self, site: Site, hidden: int = 8, scale: float = 1.0, dropout: float = 0.0) -> None:
        super().__init__(site, hidden, scale, dropout)
        self.conv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)  # type: ignore[arg-type]  # the bias exists
        with torch.no_grad():
            self.conv.weight[:, :, 1, 1] = torch.eye(hidden)
