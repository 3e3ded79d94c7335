"""Lines instead of Lightning's bar, where a run writes into a file."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.trainer.states import TrainerFn

from vimlight.progress import Progress

__all__ = ["ProgressLines"]


class ProgressLines(ProgressBar):
    """Shows how many batches a run has done, with epoch and metrics; see `vimlight.progress.Progress`.

    Lightning's own bars draw themselves anew for every batch, which makes one endless line of a file.
    """

    def __init__(self) -> None:
        super().__init__()
        self._shown = True
        self._progress: Progress | None = None

    def enable(self) -> None:
        """Shows what comes."""
        self._shown = True

    def disable(self) -> None:
        """Shows nothing, as in all processes but the first."""
        self._shown = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count the batches of all epochs."""
        epochs = trainer.max_epochs if trainer.max_steps == -1 else None
        self._start("fit", self.total_train_batches * epochs if epochs and epochs > 0 else None)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Counts a batch."""
        metrics = self.get_metrics(trainer, pl_module)
        texts = [f"{key} {value:.3g}" for key, value in metrics.items() if isinstance(value, float)]
        self._count(", ".join([f"epoch {trainer.current_epoch + 1}", *texts]))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops to count."""
        self._stop()

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count, unless this is a part of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._start("validate", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Counts a batch, unless this is a part of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._count()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops to count, unless this is a part of a training."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._stop()

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count."""
        self._start("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Counts a batch."""
        self._count()

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops to count."""
        self._stop()

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts to count."""
        self._start("predict", sum(trainer.num_predict_batches))

    def on_predict_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Counts a batch."""
        self._count()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stops to count."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Stops to count."""
        self._stop()

    def _start(self, text: str, total: float | None) -> None:
        if self._shown:
            self._progress = Progress(text, int(total) if total is not None and total != float("inf") else None)
            self._progress.__enter__()

    def _count(self, note: str = "") -> None:
        if self._progress is not None:
            self._progress.note(note)
            self._progress.advance()

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.__exit__()
            self._progress = None
