"""AdaptFormer: a bottleneck parallel to the MLP that reads the residual stream itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.backbone import Site
from vimlight.plugins.base import LoopedUnits, Unit, WideUnit
from vimlight.plugins.bottleneck import Bottleneck
from vimlight.plugins.registry import PLUGINS

__all__ = ["AdaptFormer"]


@PLUGINS.register("adaptformer")
class AdaptFormer(Bottleneck):
    """`s U relu(D x)` beside the MLP branch, where x is the stream before the block's second norm.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units.
        scale: Constant factor of the output.
        dropout: Probability with which hidden units are dropped in training.
        norm: Whether a LayerNorm of its own comes first.
    """

    places = (("mlp",), ("block",))
    reads = "residual"
    activation = staticmethod(F.relu)

    def __init__(
        self, site: Site, hidden: int = 64, scale: float = 0.1, dropout: float = 0.1, norm: bool = False
    ) -> None:
        super().__init__(site, hidden, scale, dropout)
        self.norm = nn.LayerNorm(site.width) if norm else None

    @classmethod
    def widen(cls, units: Sequence[Unit]) -> WideUnit:
        """Returns the fused sum; units with and without a norm read different tensors and stay apart."""
        normed = {cast(AdaptFormer, unit).norm is not None for unit in units}
        return super().widen(units) if len(normed) == 1 else LoopedUnits(units)

    def normalise(self, x: Tensor) -> Tensor:
        """Standardises each position over its channels; the norm's own scale and shift go into the down projection."""
        if self.norm is None:
            return x
        if self.site.layout.kind == "NCHW":
            return F.layer_norm(x.movedim(1, -1), (x.shape[1],), eps=self.norm.eps).movedim(-1, 1)
        return F.layer_norm(x, (x.shape[-1],), eps=self.norm.eps)

    def effective_down(self) -> tuple[Tensor, Tensor]:
        """Returns the down projection with the norm's scale and shift folded in."""
        if self.norm is None:
            return super().effective_down()
        bias = torch.addmv(self.down.bias, self.down.weight, self.norm.bias)
        return self.down.weight * self.norm.weight, bias
