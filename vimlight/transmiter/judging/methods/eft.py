"""Emulated fine-tuning, also known as proxy tuning: what tuning changed in the weak model's log-probabilities is added.

Mitchell et al., ICLR 2024 (arXiv 2310.12962); Liu et al., COLM 2024 (arXiv 2401.08565). Three models run per image.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vimlight.errors import ConfigError
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method
from vimlight.transmiter.judging.methods.choosing import choose

__all__ = ["EFT"]

_CANDIDATES = tuple(step / 10 for step in range(21))


@METHODS.register("eft")
class EFT(Method):
    """`log p_target + alpha (log p_source_tuned - log p_source)`, each over the task classes.

    Args:
        alpha: How much of the change is added; if left out, it is chosen on validation images, from 0 to 2, and is 1
            where there are none.

    Raises:
        ConfigError: If alpha is negative.
    """

    title = "EFT"
    place = 20
    reads = ("target", "source", "source_tuned")
    uses_labels = True

    def __init__(self, alpha: float | None = None) -> None:
        if alpha is not None and alpha < 0:
            raise ConfigError(f"alpha of 'eft' must be at least 0, got {alpha}")
        self._given = alpha
        self.alpha = 1.0 if alpha is None else alpha
        self._chosen: dict[str, Any] = {}

    def fit(self, data: Fit) -> None:
        """Chooses alpha, unless it is given."""
        if self._given is None:
            candidates = [{"alpha": alpha} for alpha in _CANDIDATES]
            self._chosen = choose(self, data, candidates, default={"alpha": 1.0})

    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        target, source, tuned = (images[role].log_softmax(dim=1) for role in self.reads)
        return target + self.alpha * (tuned - source)

    def choices(self) -> dict[str, Any]:
        """Returns alpha, and how it was chosen."""
        return {"alpha": self.alpha, **self._chosen}
