"""SSF: a scale and a shift of each channel behind every layer, which merge into the layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from vimlight.backbone import Site
from vimlight.plugins.base import Unit, WideUnit, spread
from vimlight.plugins.registry import PLUGINS

__all__ = ["Ssf"]


@PLUGINS.register("ssf")
class Ssf(Unit):
    """`gamma y + beta` on the output y of a layer; what is added is `(gamma - 1) y + beta`.

    Gamma starts around 1 and beta around 0 with a standard deviation of 0.02, so a new unit is not quite the identity.

    Args:
        site: Where the unit sits.
    """

    places = (
        ("norm1", "qkv", "q", "k", "v", "proj", "norm2", "fc1", "fc2", "patch_embed", "norm"),
        ("norm", "pointwise", "depthwise", "conv"),
    )
    reads = "output"
    identity_at_start = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.gamma = nn.Parameter(torch.empty(site.width))
        self.beta = nn.Parameter(torch.empty(site.width))
        nn.init.normal_(self.gamma, mean=1.0, std=0.02)
        nn.init.normal_(self.beta, std=0.02)

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether the site is a whole layer that can absorb a scale and a shift."""
        return site.foldable and site.part is None

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the layer's output."""
        layout = self.site.layout
        return x * spread(self.gamma - 1, x, layout) + spread(self.beta, x, layout)

    @classmethod
    def widen(cls, units: Sequence[Unit]) -> WideUnit:
        """Returns the sum as one scale and shift: a weighted sum of the units' own."""
        return WideSsf(cast("Sequence[Ssf]", units))

    @torch.no_grad()
    def fold(self, layer: nn.Module) -> None:
        """Scales the layer's weight and bias by gamma and adds beta to the bias."""
        weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
        weight *= self.gamma.view(-1, *[1] * (weight.dim() - 1))
        shifted = self.beta.clone() if bias is None else bias * self.gamma + self.beta
        layer.bias = nn.Parameter(shifted, requires_grad=False)


class WideSsf(WideUnit):
    """K scales and shifts of one layer as one.

    Args:
        units: The units.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, units: Sequence[Ssf]) -> None:
        super().__init__()
        self.count = len(units)
        self.layout = units[0].site.layout
        self.register_buffer("scale", torch.stack([unit.gamma.detach() - 1 for unit in units]))
        self.register_buffer("shift", torch.stack([unit.beta.detach() for unit in units]))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the gated sum; see `WideUnit.forward`."""
        return x * spread(gates @ self.scale, x, self.layout) + spread(gates @ self.shift, x, self.layout)
