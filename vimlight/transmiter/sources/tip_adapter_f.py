"""Tip-Adapter-F: the features of the labelled images serve as keys, and are trained.

Zhang et al., ECCV 2022 (arXiv 2207.09519).
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW, Optimizer

from vimlight.transmiter.sources import TUNINGS, Start, Tuning
from vimlight.transmiter.sources.base import at_least

__all__ = ["TipAdapterF"]

# The scale of CLIP's logits, for which the published alpha is meant.
_USUAL_SCALE = 100.0


@TUNINGS.register("tip_adapter_f")
class TipAdapterF(Tuning):
    """Zero-shot logits plus `alpha exp(-beta (1 - f K)) V`: K starts at the labelled images' features, V are labels.

    Args:
        start: What it starts from.
        alpha: Weight of the labelled images, in units of CLIP's logits.
        beta: How fast their say falls with distance.

    Raises:
        ConfigError: If a number is negative.
    """

    values: Tensor

    def __init__(self, start: Start, alpha: float = 1.0, beta: float = 5.5) -> None:
        super().__init__(start)
        self.alpha = at_least("tip_adapter_f", "alpha", alpha, 0) * self.scale / _USUAL_SCALE
        self.beta = at_least("tip_adapter_f", "beta", beta, 0)
        features, labels = start.labelled()
        self.register_buffer("values", F.one_hot(labels, len(start.head)).float(), persistent=False)
        self.learned = nn.ParameterDict({"features": nn.Parameter(features.clone())})

    def optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Makes the published optimiser."""
        return AdamW(parameters, lr=self.learning_rate, eps=1e-4)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        nearness = (self.beta * (F.linear(inputs, self.learned["features"]) - 1)).exp()  # type: ignore[index]
        return self.head_logits(inputs) + self.alpha * nearness @ self.values

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns the task logits."""
        return self.forward(inputs)
