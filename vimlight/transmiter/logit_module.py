"""What learning and fine-tuning share: images classified by their logits, scored and predicted batch by batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from vimlight.tasks import create_task
from vimlight.tasks.scoring import ScoredModule

__all__ = ["LogitModule"]


class LogitModule(ScoredModule):
    """Classifies images by task logits, which `forward` makes; a subclass says of what, and what it learns.

    Args:
        class_names: Names of the C task classes.
        class_indices: The classes among which predictions are scored; all of them if left out.
        **optimisation: Optimiser and schedule; see `TrainableModule`.

    Attributes:
        task: Classification among the task classes.
        entry: What of a batch `forward` takes.
    """

    entry: str

    def __init__(self, class_names: Sequence[str], class_indices: Sequence[int] | None, **optimisation: Any) -> None:
        super().__init__(**optimisation)
        self.task = create_task("classification", class_names)
        self.class_indices = list(range(len(class_names)) if class_indices is None else class_indices)
        self.measure(self.task)

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the validation metrics."""
        self._score("val", batch)

    def test_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the test metrics."""
        self._score("test", batch)

    def predict_step(self, batch: Mapping[str, Any], batch_index: int) -> dict[str, Any]:
        """Predicts a batch.

        Returns:
            The ids, the probabilities `(N, C)` and the predicted labels; of a spare batch, nothing.
        """
        probabilities = self.task.predictions(self(batch[self.entry]))
        count = 0 if batch.get("spare") else len(probabilities)
        found, names = probabilities[:count], batch["id"][:count]
        return {"id": names, "prediction": found, "label": self.task.labels(found)}

    def among_classes(self, logits: Tensor) -> Tensor:
        """Returns task logits `(N, C)` in which the classes that are not scored have no chance."""
        if len(self.class_indices) == self.task.num_outputs:
            return logits
        masked = logits.new_full(logits.shape, float("-inf"))
        masked[:, self.class_indices] = logits[:, self.class_indices]
        return masked

    def _score(self, split: str, batch: Mapping[str, Any]) -> None:
        logits, targets = self.among_classes(self(batch[self.entry])), batch["target"]
        self.score(split, batch, self.task.predictions(logits), targets, self.task.loss(logits, targets))
