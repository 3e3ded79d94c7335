"""A request to end, from a terminal, a cluster or a shell, ends a training between two steps and keeps all of it."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

__all__ = ["Interruption"]

_FILE = "interrupted.ckpt"


class Interruption(pl.Callback):
    """Ends a training after SIGTERM or Ctrl-C: at the next step, with a checkpoint from which it goes on exactly.

    A second signal ends it at once. Where Slurm requeues jobs, its own signals are left to Lightning. Outside of
    training, signals do what they did before.
    """

    def __init__(self) -> None:
        self._signal = 0
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals, in the main thread alone, where they arrive."""
        if threading.current_thread() is not threading.main_thread():
            return
        # Requeued jobs get it beside the signal to save.
        ours = [signal.SIGINT] if SLURMEnvironment.detect() else [signal.SIGINT, signal.SIGTERM]
        self._before = {number: signal.signal(number, self._note) for number in ours}

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves a checkpoint and ends, if that was asked for.

        Raises:
            SystemExit: With code 130 after Ctrl-C and 143 after SIGTERM, as is the custom.
        """
        # Every process has to end at the same step, whichever was told.
        if not trainer.strategy.reduce_boolean_decision(bool(self._signal), all=False):
            return
        directory = trainer.log_dir or trainer.default_root_dir
        path = Path(directory) / "checkpoints" / _FILE
        trainer.save_checkpoint(path)
        rank_zero_info(
            f"interrupted in step {trainer.global_step} (epoch {trainer.current_epoch}); go on with --ckpt_path {path}"
        )
        raise SystemExit(128 + (self._signal or signal.SIGTERM))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the signals back."""
        self._restore()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, frame: object) -> None:
        if self._signal:
            raise SystemExit(128 + number)
        self._signal = number
