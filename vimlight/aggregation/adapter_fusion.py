"""AdapterFusion: at every position, attention over the modules' outputs, in folded form and of low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.gated import GatedAggregate
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone
from vimlight.errors import ConfigError, PluginError
from vimlight.plugins import Plugin, Slot
from vimlight.plugins.bottleneck import WideBottleneck

__all__ = ["AdapterFusion"]


@AGGREGATORS.register("adapter_fusion")
class AdapterFusion(GatedAggregate):
    """`p = softmax((W_q x) . (W_k u_k))` over the modules' outputs u_k, then `V sum_k p_k u_k`.

    The outputs are never formed: `u_k = U_k a_k + b_k` with few hidden units a_k, so scores and sum are taken over
    those. W_q and W_k have `rank` rows, and V is the identity plus a change of that rank, which starts at zero; so
    does W_q, and a new fusion is the mean of the modules. Where modules of several types meet, each type is fused
    apart and counts by its number of modules.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules, of bottleneck types.
        rank: Rank of the queries, keys and of the change in the values.
        **common: See `Aggregate`.

    Raises:
        PluginError: If a module is of another type.
        ConfigError: If the rank is less than 1.
    """

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], *, rank: int = 8, **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        if rank < 1:
            raise ConfigError(f"rank must be at least 1, got {rank}")
        fusions = []
        for group, wide in self.grouped():
            if not isinstance(wide, WideBottleneck):
                raise PluginError(f"adapter_fusion needs bottleneck modules; {group.unit_type.__name__} is none")
            fusions.append(_Fusion(wide, rank, wide.count / int(self.present[group.place].sum())))
        self.gating.fusions = nn.ModuleList(fusions)

    @property
    def gates(self) -> Tensor:
        """The mean share of each module over the positions seen in the last forward pass, `(places, K)`."""
        shares = torch.zeros(self.present.shape, device=self.present.device)
        for (group, _), fusion in zip(self.grouped(), self._fusions, strict=True):
            shares[group.place, list(group.owners)] = fusion.weight * fusion.share
        return shares

    @property
    def _fusions(self) -> list[_Fusion]:
        return list(self.gating.fusions)  # type: ignore[arg-type]  # a list of fusions

    def slots(self) -> list[Slot]:
        """Returns what is done at each place."""
        return [
            Slot(group.site, group.unit_type.reads, group.unit_type.writes, fusion)
            for (group, _), fusion in zip(self.grouped(), self._fusions, strict=True)
        ]


class _Fusion(nn.Module):
    """One place's attention over its modules."""

    share: Tensor

    def __init__(self, wide: WideBottleneck, rank: int, weight: float) -> None:
        super().__init__()
        self.weight = weight
        # In a tuple, so that the zoo's tensors are no part of what is learned and saved.
        self._wide = (wide,)
        width = wide.up_weight.shape[0]
        self.query = nn.Linear(width, rank, bias=False)
        self.key = nn.Linear(width, rank, bias=False)
        self.value_down = nn.Linear(width, rank, bias=False)
        self.value_up = nn.Linear(rank, width, bias=False)
        nn.init.zeros_(self.query.weight)
        nn.init.zeros_(self.value_up.weight)
        self.register_buffer("share", torch.full((wide.count,), 1 / wide.count), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        wide = self._wide[0]
        channel_dim = wide.layout.channel_dim
        hidden = wide.hidden(x).movedim(channel_dim, -1)
        query = self.query(x.movedim(channel_dim, -1))
        # Folding: (W_q x) . (W_k U_k a_k) needs only the small matrices W_k U_k.
        scores = (hidden * (query @ (self.key.weight @ wide.up_weight))).unflatten(-1, (wide.count, -1)).sum(dim=-1)
        scores = scores + query @ (self.key.weight @ wide.up_bias.T)
        attention = scores.softmax(dim=-1)
        self.share = attention.detach().flatten(0, -2).mean(dim=0)
        mixed = (hidden.unflatten(-1, (wide.count, -1)) * attention[..., None]).flatten(-2) @ wide.up_weight.T
        mixed = self.weight * (mixed + attention @ wide.up_bias)
        output: Tensor = mixed + self.value_up(self.value_down(mixed))
        return output.movedim(-1, channel_dim)
