"""Notices a training that diverges before it spoils the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vimlight.errors import TrainingError

__all__ = ["DivergenceWatch", "kept_checkpoint", "last_checkpoint"]

_IDS = 4


class DivergenceWatch:
    """Looks at loss and gradients of every step before the optimiser takes it."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._losses: list[Tensor] = []

    def saw_batch(self, batch: Any) -> None:
        """Notes the ids of a batch, where it brings them."""
        ids = batch.get("id", ()) if isinstance(batch, Mapping) else ()
        self._ids.extend(map(str, ids))

    def saw_loss(self, loss: Tensor) -> None:
        """Notes the loss of a batch."""
        self._losses.append(loss.detach())

    def check_step(self, module: pl.LightningModule, gradients: Sequence[Tensor]) -> None:
        """Looks at what came since the step before.

        Args:
            module: The module that is trained.
            gradients: Its gradients; none where somebody else looks at them, as a scaler does.

        Raises:
            TrainingError: If the loss or a gradient is not finite; the text gives the step and the samples.
        """
        losses, ids = self._losses, self._ids
        self._losses, self._ids = [], []
        # The largest number of each: the sum of finite squares need not be finite.
        norms = [torch.linalg.vector_norm(gradient, torch.inf) for gradient in gradients]
        found = [number.float() for number in (*losses, *norms)]
        # One answer for all: each would be waited for.
        if not found or bool(torch.isfinite(torch.stack(found)).all()):
            return
        bad = next((loss for loss in losses if not torch.isfinite(loss)), None)
        what = "a gradient is not finite" if bad is None else f"the loss is {bad.item():g}"
        shown = ", ".join(map(repr, ids[:_IDS])) + (f", ... ({len(ids)} in all)" if len(ids) > _IDS else "")
        trainer = module.trainer
        raise TrainingError(
            f"the training diverged: {what} in step {trainer.global_step} (epoch {trainer.current_epoch})"
            f"{f', on the samples {shown}' if shown else ''}\n"
            f"{kept_checkpoint(trainer)}; lower the learning rate, or look at these samples"
        )


def kept_checkpoint(trainer: pl.Trainer) -> str:
    """Says which checkpoint of a run is the last good one."""
    path = last_checkpoint(trainer)
    return f"the last checkpoint before it is {path!r}" if path else "no checkpoint was kept yet"


def last_checkpoint(trainer: pl.Trainer) -> str | None:
    """Returns the path of the latest checkpoint of a run, if one was kept."""
    paths = [getattr(each, "last_model_path", "") or each.best_model_path for each in _keepers(trainer)]
    return next((path for path in paths if path), None)


def _keepers(trainer: pl.Trainer) -> list[Any]:
    return [each for each in trainer.checkpoint_callbacks if hasattr(each, "best_model_path")]
