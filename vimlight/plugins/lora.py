"""LoRA: a low-rank change of linear and convolution layers, which merges into them exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.backbone import Site
from vimlight.errors import PluginError
from vimlight.plugins.base import Unit, WideUnit, spread
from vimlight.plugins.bottleneck import linear
from vimlight.plugins.registry import PLUGINS

__all__ = ["Lora"]


@PLUGINS.register("lora")
class Lora(Unit):
    """`(alpha / rank) (B A x + c)` beside a layer; of a fused `qkv`, each part has factors of its own.

    A convolution gets a convolution of the same geometry for A and a 1x1 convolution for B. A is Kaiming-uniform, B and
    c are zero.

    Args:
        site: Where the unit sits.
        rank: Rank of the change, at least 1.
        alpha: Numerator of its scale; the rank if left out, which makes the scale 1.
        bias: Whether there is a c.
    """

    places = (("q", "v"), ("proj", "fc1", "fc2"), ("pointwise", "conv"))

    def __init__(self, site: Site, rank: int = 8, alpha: float | None = None, bias: bool = False) -> None:
        super().__init__(site)
        if rank < 1:
            raise PluginError(f"rank must be at least 1, got {rank}")
        self.scale = 1.0 if alpha is None else alpha / rank
        kernel = site.convolution.kernel if site.convolution else ()
        self.down = nn.Parameter(torch.empty(rank, site.input_width, *kernel))
        self.up = nn.Parameter(torch.zeros(site.width, rank))
        self.bias = nn.Parameter(torch.zeros(site.width)) if bias else None
        nn.init.kaiming_uniform_(self.down, a=5**0.5)

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether the site is a linear layer or an ungrouped convolution of known padding."""
        linear = site.layout.kind != "NCHW" and not site.place.startswith("norm")
        mirrored = site.convolution is not None and site.place != "depthwise"
        return site.foldable and (mirrored or (linear and site.convolution is None))

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to the layer's output."""
        bias = None if self.bias is None else self.bias * self.scale
        return _up(_down(x, self.down, self.site), self.up * self.scale, bias, self.site)

    @classmethod
    def widen(cls, units: Sequence[Unit]) -> WideUnit:
        """Returns the sum with stacked factors: exact, of the sum of the ranks."""
        return WideLora(cast("Sequence[Lora]", units))

    @classmethod
    def mean(cls, columns: Sequence[Sequence[Unit]]) -> tuple[dict[str, Any], list[dict[str, Tensor]]]:
        """Returns the mean of the changes, exact: of the same rank where a factor is shared, else of the ranks' sum."""
        units = cast("Sequence[Sequence[Lora]]", columns)
        if all(_share_a_factor(each) for each in units):
            return super().mean(columns)
        rank = sum(len(unit.down) for unit in units[0])
        return {"rank": rank, "alpha": None}, [_stacked_mean(each) for each in units]

    @torch.no_grad()
    def fold(self, layer: nn.Module) -> None:
        """Adds `(alpha / rank) B A` to the layer's weight and c to its bias, or to its part of a fused layer's."""
        weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
        change = self.scale * (self.up @ self.down.flatten(1))
        rows = slice(*self.site.part) if self.site.part else slice(None)
        weight[rows] += change.view_as(weight[rows])
        if self.bias is not None:
            moved = weight.new_zeros(len(weight)) if bias is None else bias.clone()
            moved[rows] += self.scale * self.bias
            layer.bias = nn.Parameter(moved, requires_grad=False)


class WideLora(WideUnit):
    """K low-rank changes of one layer as one: stacked factors, the gates between them.

    Args:
        units: The units; ranks may differ.
    """

    down: Tensor
    up: Tensor
    owner: Tensor
    biases: Tensor | None

    def __init__(self, units: Sequence[Lora]) -> None:
        super().__init__()
        self.count = len(units)
        self.site = units[0].site
        owners = [torch.full((unit.down.shape[0],), k) for k, unit in enumerate(units)]
        self.register_buffer("down", torch.cat([unit.down.detach() for unit in units]))
        self.register_buffer("up", torch.cat([unit.up.detach() * unit.scale for unit in units], dim=1))
        self.register_buffer("owner", torch.cat(owners).to(self.down.device))
        biases = [torch.zeros_like(unit.up[:, 0]) if unit.bias is None else unit.bias * unit.scale for unit in units]
        some = any(unit.bias is not None for unit in units)
        self.register_buffer("biases", torch.stack(biases).detach() if some else None)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        """Returns the gated sum; see `WideUnit.forward`."""
        layout, hidden = self.site.layout, _down(x, self.down, self.site)
        change = _up(hidden * spread(gates[..., self.owner], hidden, layout), self.up, None, self.site)
        return change if self.biases is None else change + spread(gates @ self.biases, change, layout)


def _share_a_factor(units: Sequence[Lora]) -> bool:
    """Tells whether the product of the mean factors is the mean of the products."""
    first = units[0]
    return all(torch.equal(unit.down, first.down) for unit in units) or all(
        torch.equal(unit.up, first.up) for unit in units
    )


@torch.no_grad()
def _stacked_mean(units: Sequence[Lora]) -> dict[str, Tensor]:
    share = [unit.scale / len(units) for unit in units]
    found = {
        "down": torch.cat([unit.down for unit in units]),
        "up": torch.cat([unit.up * part for unit, part in zip(units, share, strict=True)], dim=1),
    }
    if units[0].bias is not None:
        scaled = [cast(Tensor, unit.bias) * part for unit, part in zip(units, share, strict=True)]
        found["bias"] = torch.stack(scaled).sum(dim=0)
    return found


def _down(x: Tensor, factor: Tensor, site: Site) -> Tensor:
    geometry = site.convolution
    if geometry is None:
        return linear(x, factor)
    return F.conv2d(x, factor, stride=geometry.stride, padding=geometry.padding, dilation=geometry.dilation)


def _up(hidden: Tensor, factor: Tensor, bias: Tensor | None, site: Site) -> Tensor:
    if site.convolution is None:
        return linear(hidden, factor, bias)
    return F.conv2d(hidden, factor[:, :, None, None], bias)
