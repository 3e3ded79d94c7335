"""ViM's own aggregation: one learned logit per module, per layer and per place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.gated import StaticGates, masked_softmax
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.backbone import Backbone
from vimlight.errors import ConfigError, unknown_name
from vimlight.plugins import Plugin

__all__ = ["EnsMoe"]

_TIES = ("none", "layers", "all")
_STRENGTHS = ("learned", "one")


@AGGREGATORS.register("ens_moe")
class EnsMoe(StaticGates):
    """`s sum_i g_i module_i(n)` with `g = softmax(a)` over the k largest entries of a learned vector a (Ens-MoE).

    The gates do not depend on the image. ViM's sum to 1 at every place: such a mixture can neither switch the zoo off
    nor let it speak louder than one module. A learned strength s, 1 at the start, can do both. With little data, logits
    can be tied and are pulled towards where they started.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        top_k: How many modules are active at a place; all if left out.
        tie: `"none"` for a logit per layer and place, `"layers"` for one per role of place (attention, MLP), `"all"`
            for one per module; strengths are tied alike.
        strength: `"learned"`, or `"one"` for gates that sum to 1, as ViM has them.
        shrinkage: Weight of the squared distance of the logits from their start in the loss.
        **common: See `Aggregate`.
    """

    def __init__(
        self,
        backbone: Backbone,
        modules: Sequence[Plugin],
        *,
        top_k: int | None = None,
        tie: str = "none",
        strength: str = "learned",
        shrinkage: float = 0.0,
        **common: Any,
    ) -> None:
        super().__init__(backbone, modules, **common)
        if tie not in _TIES:
            raise unknown_name("tie", tie, _TIES)
        if strength not in _STRENGTHS:
            raise unknown_name("strength", strength, _STRENGTHS)
        if top_k is not None and not 1 <= top_k <= len(modules):
            raise ConfigError(f"top_k must lie between 1 and the number of modules, {len(modules)}; got {top_k}")
        self.top_k = top_k
        self.shrinkage = shrinkage
        keys = [{"none": site.name, "layers": site.place, "all": ""}[tie] for site in self._sites]
        distinct = list(dict.fromkeys(keys))
        self._rows = [distinct.index(key) for key in keys]
        self.gating.logits = nn.Parameter(torch.zeros(len(distinct), len(modules)))
        if strength == "learned":
            self.gating.strength = nn.Parameter(torch.ones(len(distinct), 1))
            self.strengths = (0.0, 0.25, 0.5, 1.0, 1.5)
        # In the gating, so that it is saved with the logits.
        self.gating.register_buffer("start", torch.zeros(len(distinct), len(modules)))

    @property
    def logits(self) -> Tensor:
        """The learned logits, one row for each group of tied places, `(rows, K)`."""
        logits = self.gating.logits
        assert isinstance(logits, Tensor)
        return logits

    @property
    def place_logits(self) -> Tensor:
        """The learned logits of every place, `(places, K)`."""
        return self.logits[self._rows]

    @property
    def gates(self) -> Tensor:
        """The gates `(places, K)`; each row sums to its strength."""
        shares = masked_softmax(self.place_logits, self.present, self.top_k)
        return shares if self._strength is None else self._strength[self._rows] * shares

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Sets every row of the logits to the scores and remembers them as the start.

        Args:
            scores: `(K,)`.
        """
        self.logits.copy_(scores.expand_as(self.logits))
        self.gating.get_buffer("start").copy_(self.logits)

    @torch.no_grad()
    def scale_to(self, strength: float) -> None:
        """Sets every learned strength.

        Args:
            strength: The value.
        """
        if self._strength is not None:
            self._strength.fill_(strength)

    @property
    def _strength(self) -> nn.Parameter | None:
        return dict(self.gating.named_parameters()).get("strength")

    def penalty(self) -> Tensor:
        """Returns the shrinkage times the mean squared distance of the logits from their start."""
        return self.shrinkage * (self.logits - self.gating.get_buffer("start")).square().mean()
