"""A request to end, from a terminal, a cluster or a shell, ends a training between two steps and keeps all of it."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_info

from vimlight.divergence import kept_checkpoint

__all__ = ["Interruption", "same_signals_after"]

_FILE = "interrupted.ckpt"
# By which Slurm may announce that a job's time is up: #SBATCH --signal=SIGUSR1@90.
_REQUEUE = getattr(signal, "SIGUSR1", None)
_VALIDATION = "epoch_loop.val_loop.batch_progress"


class Interruption(pl.Callback):
    """Ends a training after SIGTERM or Ctrl-C: at the next step, with a checkpoint from which it goes on exactly.

    While validation images are looked at, that is after their next batch; the validation is done again when the
    training goes on. Before the first step and after the last one there is nothing to keep, and it ends at once, as it
    does at a second signal, and as validation, test and prediction by themselves do. Where Slurm requeues jobs, its
    signal for that is obeyed at the next step too. Outside of training, signals do what they did before.
    """

    def __init__(self) -> None:
        self._told: set[int] = set()
        self._before: dict[int, Any] = {}
        self._active = self._stepping = False
        self._where = ""
        self._requeue: Callable[[int, Any], Any] | None = None

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Takes over the signals, before what is computed ahead of the first step."""
        path = trainer.ckpt_path
        self._where = "the first step; " + (f"go on with --ckpt_path {path}" if path else "start it again")
        if stage != "fit":
            self._where = "the end; start it again"
        self._take_over()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals anew, of which the trainer has taken some, and would note them and go on."""
        self._take_over()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals anew."""
        self._take_over()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals anew."""
        self._take_over()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes over the signals anew, and from now on ends between steps alone."""
        self._take_over()
        self._stepping = True

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves a checkpoint and ends, if that was asked for.

        Raises:
            SystemExit: With code 130 after Ctrl-C and 143 after SIGTERM, as is the custom.
        """
        self._obey(trainer)

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Saves a checkpoint and ends, if that was asked for; of several processes each may have its own batches.

        Raises:
            SystemExit: As after a step.
        """
        if self._stepping and trainer.world_size == 1:
            self._obey(trainer)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Saves a checkpoint and ends, if that was asked for.

        Raises:
            SystemExit: As after a step.
        """
        if self._stepping:
            self._obey(trainer)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Lets a validation that is broken off here be done again from its first batch."""
        if self._told and trainer.validating:
            progress = checkpoint["loops"]["fit_loop"][_VALIDATION]
            # To the trainer: within the first of its batches.
            progress["total"] = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            progress["current"] = dict.fromkeys(progress["current"], 0)
            progress["is_last_batch"] = False

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Has nothing more to keep from now on."""
        self._stepping = False
        self._where = f"the end, but after the last step; {kept_checkpoint(trainer)}: --ckpt_path goes on from it"

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Gives the signals back, and removes what a job of Slurm went on from, so that nothing else does."""
        self._restore()
        if trainer.is_global_zero and SLURMEnvironment.detect():
            for file in Path(trainer.default_root_dir).glob("hpc_ckpt_*.ckpt"):
                file.unlink()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Gives the signals back."""
        self._restore()

    def _obey(self, trainer: pl.Trainer) -> None:
        # Every process has to end at the same step, whichever was told.
        def anywhere(number: int | None) -> bool:
            return bool(trainer.strategy.reduce_boolean_decision(number in self._told, all=False))

        if not trainer.strategy.reduce_boolean_decision(bool(self._told), all=False):
            return
        if self._requeue is not None and anywhere(_REQUEUE):
            self._told.discard(int(_REQUEUE or 0))
            self._requeue(int(_REQUEUE or 0), None)
            rank_zero_info(f"requeued in step {trainer.global_step}; goes on from {trainer.default_root_dir}")
            if not trainer.strategy.reduce_boolean_decision(bool(self._told), all=False):
                return
        path = Path(trainer.log_dir or trainer.default_root_dir) / "checkpoints" / _FILE
        trainer.save_checkpoint(path, weights_only=False)
        rank_zero_info(
            f"interrupted in step {trainer.global_step} (epoch {trainer.current_epoch}); go on with --ckpt_path {path}"
        )
        raise SystemExit(128 + (min(self._told) if self._told else signal.SIGTERM))

    def _take_over(self) -> None:
        """Takes the signals, in the main thread alone, where they arrive."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._active = True
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before.setdefault(number, signal.getsignal(number))
            signal.signal(number, self._note)
        handler = signal.getsignal(_REQUEUE) if _REQUEUE is not None and SLURMEnvironment.detect() else None
        if _REQUEUE is not None and callable(handler) and handler != self._note:
            self._before.setdefault(_REQUEUE, signal.SIG_DFL)
            self._requeue = handler
            signal.signal(_REQUEUE, self._note)

    def _restore(self) -> None:
        self._active = self._stepping = False
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        if not self._active:
            # After an error the trainer puts back what it found, which is this.
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)
            return
        if number == _REQUEUE:
            self._told.add(number)
            return
        if not self._stepping or self._told & {signal.SIGINT, signal.SIGTERM}:
            if not self._stepping:
                rank_zero_info(f"interrupted before {self._where}")
            raise SystemExit(128 + number)
        self._told.add(number)


@contextmanager
def same_signals_after() -> Iterator[None]:
    """Leaves the handlers of signals as they were before the block, whatever is done in it and however it ends."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = {number for number in (signal.SIGINT, signal.SIGTERM, _REQUEUE) if number is not None}
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
