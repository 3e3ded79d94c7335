"""RepAdapter: a linear bottleneck in front of a layer, which merges into it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from vimlight.backbone import Site
from vimlight.errors import PluginError
from vimlight.plugins.bottleneck import Bottleneck
from vimlight.plugins.registry import PLUGINS

__all__ = ["RepAdapter"]

_GROUPS = 2


@PLUGINS.register("repadapter")
class RepAdapter(Bottleneck):
    """`x + s B_g(A x)` before `qkv` and `fc1`, where B_g acts on groups of the hidden units.

    Linear throughout: `W (I + s B A)` and a new bias are the same layer. A is Xavier-uniform, B zero. Layers that read
    the same tensor apart, such as split q, k and v, have a unit each. In front of a convolution that pads with zeros
    there are no biases, which padding would cut off at the border: so the merge is exact there too.

    Args:
        site: Where the unit sits.
        hidden: Number of hidden units, a multiple of `groups`.
        scale: Constant factor, s.
        groups: Number of groups of B.
        dropout: Probability with which hidden units are dropped in training.
    """

    places = (("qkv", "q", "k", "v", "kv", "fc1"), ("fc1", "proj"), ("pointwise",), ("conv",))
    writes = "input"
    activation = None

    def __init__(
        self, site: Site, hidden: int = 8, scale: float = 1.0, groups: int = _GROUPS, dropout: float = 0.0
    ) -> None:
        super().__init__(site, hidden, scale, dropout)
        if hidden % groups or site.input_width % groups:
            raise PluginError(
                f"hidden={hidden} and the width {site.input_width} of {site.name} must be multiples of groups={groups}"
            )
        self.groups = groups
        biased = site.convolution is None or site.convolution.padding == (0, 0)
        self.down = nn.Linear(site.input_width, hidden, bias=biased)
        self.up = nn.Linear(hidden // groups, site.input_width, bias=biased)
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.up.weight)
        if biased:
            nn.init.zeros_(self.down.bias)
            nn.init.zeros_(self.up.bias)

    @classmethod
    def supports(cls, site: Site) -> bool:
        """Tells whether the site is a linear layer or a convolution of known padding, and of even width."""
        if not site.foldable or site.part is not None or site.layout.kind == "NC" or site.place.startswith("norm"):
            return False
        if site.convolution is None and site.layout.kind == "NCHW":
            return False
        return site.place != "depthwise" and site.input_width % _GROUPS == 0

    def effective_down(self) -> tuple[Tensor, Tensor]:
        """Returns the down projection, with zeros for a bias where there is none."""
        weight = self.down.weight
        return weight, weight.new_zeros(len(weight)) if self.down.bias is None else self.down.bias

    def effective_up(self) -> tuple[Tensor, Tensor]:
        """Returns the grouped up projection as one dense matrix `(d, h)` with its bias, both scaled."""
        dense = torch.block_diag(*self.up.weight.chunk(self.groups))
        bias = dense.new_zeros(len(dense)) if self.up.bias is None else self.up.bias
        return dense * self.scale, bias * self.scale

    @torch.no_grad()
    def fold(self, layer: nn.Module) -> None:
        """Turns the layer `W x + b` into `W (x + s B (A x + a) + s c) + b`."""
        weight, bias = cast(Tensor, layer.weight), cast("Tensor | None", layer.bias)
        up, up_bias = self.effective_up()
        shift = up @ self.effective_down()[1] + up_bias
        # Padding aside, a kernel with several taps sees the same change at every tap.
        taps = weight.flatten(2) if weight.dim() == 4 else weight[:, :, None]
        moved = torch.einsum("oit,i->o", taps, shift)
        change = torch.einsum("oit,ij->ojt", taps, up @ self.down.weight)
        weight += change.view_as(weight)
        layer.bias = nn.Parameter(moved if bias is None else bias + moved, requires_grad=False)
