"""A linear probe that starts at the zero-shot head: a residual on its weights, and a bias for each class."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.transmiter.sources import TUNINGS, Start, Tuning

__all__ = ["LinearProbe"]


@TUNINGS.register("linear_probe")
class LinearProbe(Tuning):
    """Zero-shot logits plus `scale * (f W^T + b)`, with W and b zero at the start; weights are not normalised.

    Args:
        start: What it starts from.
    """

    weight_decay = 0.1

    def __init__(self, start: Start) -> None:
        super().__init__(start)
        weights = torch.zeros_like(start.head.weights)
        self.learned = nn.ParameterDict(
            {"weight": nn.Parameter(weights), "bias": nn.Parameter(torch.zeros(len(weights)))}
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        change = F.linear(inputs, self.learned["weight"], self.learned["bias"])  # type: ignore[index]
        return self.head_logits(inputs) + self.scale * change

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns the task logits: weights of any length fit in no text head."""
        return self.forward(inputs)
