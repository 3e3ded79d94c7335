"""Which part of a training run waits for the other: the model for its data, or the data for the model."""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import rank_zero_info

from vimlight.errors import ConfigError

__all__ = ["WaitMeter"]


class WaitMeter(pl.Callback):
    """Shows in the progress bar, and logs as `data_wait`, which share of an epoch's time the model waited for its data.

    Near 0, training is as fast as the model computes; near 1, as fast as images are read. After training a line says
    so where the share of the last epoch was large. Steps on a GPU run behind the program: only batches that come when
    the last step is done are counted, each with the whole time since it was started, so that the share is at most this.

    Args:
        advise_above: Share of the last epoch above which a line is printed in the end; 1 for never.

    Raises:
        ConfigError: If it is not from 0 to 1.
    """

    def __init__(self, advise_above: float = 0.3) -> None:
        if not 0 <= advise_above <= 1:
            raise ConfigError(f"advise_above must be from 0 to 1, got {advise_above}")
        self.advise_above = advise_above
        self.share = 0.0
        self._start = self._end = self._waited = 0.0
        self._step: torch.cuda.Event | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock where a run goes on within an epoch, whose start Lightning does not repeat."""
        self._begin()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts the clock."""
        self._begin()

    def _begin(self) -> None:
        self._start = self._end = time.perf_counter()
        self._waited, self._step = 0.0, None

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        """Counts the time since the last step."""
        if self._step is None or self._step.query():
            self._waited += time.perf_counter() - self._end

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Shows the share so far."""
        if pl_module.device.type == "cuda":
            self._step = torch.cuda.Event()
            self._step.record()
        self._end = time.perf_counter()
        self.share = self._waited / (self._end - self._start)
        pl_module.log("data_wait", self.share, prog_bar=True, on_step=True, on_epoch=False, batch_size=1)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says which part waited, if it was the model."""
        if self.share > self.advise_above:
            workers = getattr(getattr(trainer, "datamodule", None), "num_workers", 0)
            advice = f"raise data.num_workers (now {workers})"
            rank_zero_info(f"The model waited for its data {self.share:.0%} of the last epoch: {advice}")
