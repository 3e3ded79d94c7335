"""TaskRes: a residual on each class's text feature.

Yu et al., CVPR 2023 (arXiv 2211.10277).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.transmiter.cache import TextHead
from vimlight.transmiter.sources import TUNINGS, Start, Tuning
from vimlight.transmiter.sources.base import at_least

__all__ = ["TaskRes"]


@TUNINGS.register("taskres")
class TaskRes(Tuning):
    """`t' = t + alpha x`, with x zero at the start; classes that are not tuned on keep their text features.

    Args:
        start: What it starts from.
        alpha: Factor of the residual.

    Raises:
        ConfigError: If alpha is negative.
    """

    learning_rate = 2e-3

    def __init__(self, start: Start, alpha: float = 0.5) -> None:
        super().__init__(start)
        self.alpha = at_least("taskres", "alpha", alpha, 0)
        self.learned = nn.ParameterDict({"residual": nn.Parameter(torch.zeros_like(start.head.weights))})

    def tuned_text(self) -> Tensor:
        """Returns the tuned text features `(C, E)`, L2-normalised."""
        return F.normalize(self.text + self.alpha * self.learned["residual"], dim=1)  # type: ignore[index]

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(n, C)` of features `(n, E)`."""
        return self.head_logits(inputs, self.tuned_text())

    def rows(self, inputs: Tensor) -> Tensor:
        """Returns the features as they are."""
        return inputs

    def head(self) -> TextHead:
        """Returns the tuned head."""
        return self.as_head(self.tuned_text())
