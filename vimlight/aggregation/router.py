"""Gates that depend on the image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.gated import GatedAggregate, Group, masked_softmax
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone, Layout
from vimlight.errors import ConfigError
from vimlight.plugins import Plugin, Slot, WideUnit

__all__ = ["Router"]


@AGGREGATORS.register("router")
class Router(GatedAggregate):
    """`g(x) = softmax(W mean(x) + a)` for each image, from what the modules read at the place.

    W starts at zero, so a new router is `ens_moe`; what is read is standardised over its channels first. Where
    modules of several types meet, each type has a router of its own over all modules, because it may read something
    else.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        top_k: How many modules are active for an image at a place; all if left out.
        shrinkage: Weight of the mean square of W in the loss.
        **common: See `Aggregate`.
    """

    def __init__(
        self,
        backbone: Backbone,
        modules: Sequence[Plugin],
        *,
        top_k: int | None = None,
        shrinkage: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(backbone, modules, **common)
        if top_k is not None and not 1 <= top_k <= len(modules):
            raise ConfigError(f"top_k must lie between 1 and the number of modules, {len(modules)}; got {top_k}")
        self.top_k = top_k
        self.shrinkage = shrinkage
        widths = [_read_width(group) for group, _ in self.grouped()]
        self.gating.routes = nn.ModuleList(nn.Linear(width, len(modules)) for width in widths)
        for route in self.routes:
            nn.init.zeros_(route.weight)
            nn.init.zeros_(route.bias)

    @property
    def routes(self) -> list[nn.Linear]:
        """One linear map from what is read to logits for each group of units."""
        return list(self.gating.routes)  # type: ignore[arg-type]  # a list of linear layers

    @property
    def gates(self) -> Tensor:
        """The gates of an image whose reading is its own mean, `(places, K)`: what the biases alone say."""
        gates = torch.zeros(self.present.shape, device=self.present.device)
        for (group, _), route in zip(self.grouped(), self.routes, strict=True):
            owners = list(group.owners)
            gates[group.place, owners] = masked_softmax(route.bias, self.present[group.place], self.top_k)[owners]
        return gates

    def slots(self) -> list[Slot]:
        """Returns what is done at each place: the fused units with gates computed from what they read."""
        return [
            Slot(
                group.site,
                group.unit_type.reads,
                group.unit_type.writes,
                partial(_routed, self, group, wide, route),
                own=True,
            )
            for (group, wide), route in zip(self.grouped(), self.routes, strict=True)
        ]

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Sets every bias to the scores.

        Args:
            scores: `(K,)`.
        """
        for route in self.routes:
            route.bias.copy_(scores)

    def penalty(self) -> Tensor:
        """Returns the shrinkage times the mean square of the routes' weights."""
        return self.shrinkage * torch.stack([route.weight.square().mean() for route in self.routes]).mean()


def _routed(router: Router, group: Group, wide: WideUnit, route: nn.Linear, x: Tensor) -> Tensor:
    """What a place adds: the sum of what the modules there make of x, with each image's gates."""
    logits = route(_summary(x, group.site.layout).to(route.weight.dtype))
    gates = masked_softmax(logits, router.present[group.place], router.top_k)
    output: Tensor = wide(x, gates[:, list(group.owners)])
    return output


def _summary(x: Tensor, layout: Layout) -> Tensor:
    channels_last = x.movedim(layout.channel_dim, -1)
    mean = channels_last.flatten(1, -2).mean(dim=1) if x.dim() > 2 else channels_last
    return nn.functional.layer_norm(mean, mean.shape[-1:])


def _read_width(group: Group) -> int:
    from_output = group.unit_type.reads == "output" or group.site.place == "block"
    return group.site.width if from_output else group.site.input_width
