"""What changes from step to step: the learning rate and the gates, logged often enough that short runs have curves."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from vimlight.training.downstream import DownstreamModule

__all__ = ["RunCurves"]

# What Lightning takes where nothing else is said, and about how many points make a curve.
_USUAL, _POINTS = 50, 200


class RunCurves(pl.Callback):
    """Logs the learning rate as `lr` and each module's gate, its mean over the places, as `gate/NAME`.

    Lightning logs every 50th step, of which a few-shot run has none: unless told otherwise, a run of fewer than 400
    steps logs all of them, and a longer one about 200 until every 50th is enough.

    Args:
        every: Log every that many steps; chosen by the length of the run if left out.
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = every

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Lets all steps be logged until it is known how many there are."""
        if stage == "fit" and self.every is None:
            trainer.log_every_n_steps = 1  # type: ignore[attr-defined]

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Chooses which steps are logged."""
        if self.every is None:
            steps = trainer.estimated_stepping_batches
            chosen = _USUAL if math.isinf(steps) else max(1, min(_USUAL, int(steps) // _POINTS))
            trainer.log_every_n_steps = chosen  # type: ignore[attr-defined]

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Logs what this step is taken with."""
        shown: dict[str, Any] = {}
        # Where all is solved in closed form an optimiser has nothing to do.
        groups = [group for optimizer in trainer.optimizers for group in optimizer.param_groups]
        if groups:
            shown["lr"] = groups[0]["lr"]
        if isinstance(pl_module, DownstreamModule) and self._is_logged(trainer):
            shown |= _gates(pl_module)
        pl_module.log_dict(shown, on_step=True, on_epoch=False, batch_size=1)

    def _is_logged(self, trainer: pl.Trainer) -> bool:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]
        return (trainer.global_step + 1) % every == 0


@torch.no_grad()
def _gates(pl_module: DownstreamModule) -> dict[str, Tensor]:
    """Returns the mean of each module's gates; nothing of an aggregator without."""
    gates = pl_module.gates
    if not gates.numel():
        return {}
    return {f"gate/{name}": mean for name, mean in zip(pl_module.aggregator.names, gates.mean(dim=0), strict=True)}
