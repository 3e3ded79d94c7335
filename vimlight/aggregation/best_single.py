"""One module alone: the best of a ranking on validation data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.aggregation.base import Mixture, alone
from vimlight.aggregation.registry import AGGREGATORS
from vimlight.aggregation.streams import Streams
from vimlight.backbone import Backbone, Features
from vimlight.plugins import Plugin

__all__ = ["BestSingle"]


@AGGREGATORS.register("best_single")
class BestSingle(Streams):
    """The module with the highest score of those given to `start_from`; the first until then.

    It runs as `attach` runs it, not in fused form: what the zoo holds besides does not change one bit.

    Args:
        backbone: The frozen backbone.
        modules: The zoo's modules.
        **common: See `Aggregate`.
    """

    def __init__(self, backbone: Backbone, modules: Sequence[Plugin], **common: Any) -> None:
        super().__init__(backbone, modules, **common)
        self.streams = 1
        # In the gating, so that the choice is saved with what is learned.
        self.gating.register_buffer("chosen", torch.zeros((), dtype=torch.long))

    @property
    def chosen(self) -> int:
        """Index of the chosen module."""
        return int(self.gating.get_buffer("chosen"))

    @torch.no_grad()
    def start_from(self, scores: Tensor) -> None:
        """Chooses the module with the highest score.

        Args:
            scores: `(K,)`.
        """
        self.gating.get_buffer("chosen").copy_(scores.argmax())

    @property
    def gates(self) -> Tensor:
        """1 for the chosen module, 0 for the others, `(1, K)`."""
        device = self.gating.get_buffer("chosen").device
        return nn.functional.one_hot(torch.tensor([self.chosen], device=device), len(self.names)).float()

    def mixtures(self) -> list[Mixture]:
        """Returns the chosen module's units, and the fresh plug-in's."""
        return [*alone(self.modules_in_zoo[self.chosen]), *self.extra_mixtures()]

    def forward(self, images: Tensor) -> Features:
        """Computes features of images `(N, 3, H, W)` with the chosen module."""
        return self.stream(self.chosen, images)
