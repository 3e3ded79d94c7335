"""The mean of the strong model's zero-shot and the weak model's fine-tuned log-probabilities."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from vimlight.errors import ConfigError
from vimlight.transmiter.judging.methods import METHODS, Fit, Images, Method
from vimlight.transmiter.judging.methods.choosing import choose

__all__ = ["LogitEnsemble"]

_CANDIDATES = tuple(step / 20 for step in range(21))


@METHODS.register("logit_ensemble")
class LogitEnsemble(Method):
    """`weight log p_source_tuned + (1 - weight) log p_target`, each over the task classes.

    Args:
        weight: Share of the fine-tuned source; if left out, it is chosen on validation images, and is one half where
            there are none.

    Raises:
        ConfigError: If the weight is no share.
    """

    title = "logit ensemble"
    place = 21
    reads = ("target", "source_tuned")
    uses_labels = True

    def __init__(self, weight: float | None = None) -> None:
        if weight is not None and not 0 <= weight <= 1:
            raise ConfigError(f"weight of 'logit_ensemble' must lie between 0 and 1, got {weight}")
        self._given = weight
        self.weight = 0.5 if weight is None else weight
        self._chosen: dict[str, Any] = {}

    def fit(self, data: Fit) -> None:
        """Chooses the weight, unless it is given."""
        if self._given is None:
            candidates = [{"weight": weight} for weight in _CANDIDATES]
            self._chosen = choose(self, data, candidates, default={"weight": 0.5})

    def __call__(self, images: Images) -> Tensor:
        """Returns refined task logits `(n, C)`."""
        target, tuned = (images[role].log_softmax(dim=1) for role in self.reads)
        return self.weight * tuned + (1 - self.weight) * target

    def choices(self) -> dict[str, Any]:
        """Returns the weight, and how it was chosen."""
        return {"weight": self.weight, **self._chosen}
