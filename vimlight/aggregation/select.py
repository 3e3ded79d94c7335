"""The bare backbone, its best module or all in equal shares: whichever leaves the least error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vimlight.aggregation.gated import Group, StaticGates
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone
from vimlight.plugins import Plugin, WideUnit

__all__ = ["Select"]


@AGGREGATORS.register("select")
class Select(StaticGates):
    """Shares that are chosen rather than trained, the same at every place.

    A bad module cannot spoil what it is not chosen for, and where no module helps the backbone stays bare. What has no
    share costs nothing.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    everywhere: Tensor

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        self.register_buffer("everywhere", self.present.clone(), persistent=False)
        self._joined = [True] * len(modules)
        # In the gating, so that the choice is saved with what is learned.
        self.gating.register_buffer("shares", torch.full((len(modules),), 1 / len(modules)))

    @property
    def gates(self) -> Tensor:
        """The shares `(places, K)`; those of modules without a unit at a place fall to the others there."""
        self._join_chosen()
        here = self.present * self.gating.get_buffer("shares")
        total = here.sum(dim=1, keepdim=True)
        return torch.where(total > 0, here / total.clamp_min(1e-12), here)

    def starts(self, merit: Tensor) -> list[Tensor]:
        """Returns the choices: nothing, the best module, all of them.

        Args:
            merit: How well each module does alone, `(K,)`; more is better.
        """
        nothing = torch.full_like(merit, -torch.inf)
        best = torch.where(torch.arange(len(merit), device=merit.device) == merit.argmax(), 0.0, -torch.inf)
        return [nothing, best, torch.zeros_like(merit)]

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Sets the shares.

        Args:
            scores: Their logarithms up to a constant, `(K,)`; where all are negative infinity, the zoo is not used.
        """
        shares = (scores - scores.amax().clamp_min(torch.finfo(scores.dtype).min)).exp()
        self.gating.get_buffer("shares").copy_(shares / shares.sum().clamp_min(1))

    def grouped(self) -> list[tuple[Group, WideUnit]]:
        """Returns the groups with their fused units, of modules that have a share."""
        self._join_chosen()
        return super().grouped()

    def _join_chosen(self) -> None:
        chosen = (self.gating.get_buffer("shares") > 0).tolist()
        # Without its zoo, as one task of several, it has gates alone.
        if chosen != self._joined and self.modules_in_zoo:
            self._joined = chosen
            self.present.copy_(self.everywhere & self.present.new_tensor(chosen))
            self.join()
