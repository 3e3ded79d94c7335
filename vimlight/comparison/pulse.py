"""How far a job is, told through a small file: the same way for workers of every kind that share the directory."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.pytorch as pl

__all__ = ["Pulse", "PulseCallback", "parts_under_way", "sweep_pulses"]

_PAUSE = 0.5
# Who says nothing for so long is gone; who is not, says so again.
_PATIENCE = 3600


class Pulse:
    """Tells how far a job is, at most twice a second.

    Args:
        path: The file that holds the share that is done.
        steps: Of how many steps of equal weight the job consists.
    """

    def __init__(self, path: Path, steps: int = 1) -> None:
        self._path, self._steps = path, steps
        self._done, self._said = 0, 0.0
        path.parent.mkdir(parents=True, exist_ok=True)

    def at(self, share: float) -> None:
        """Tells which share of the present step is done."""
        now = time.monotonic()
        if now - self._said >= _PAUSE:
            self._said = now
            # Read by eye only, and again in a moment: it need not be whole.
            self._path.write_text(f"{(self._done + min(share, 1)) / self._steps:.4f}")

    def step(self) -> None:
        """Counts a step."""
        self._done += 1
        self._said = 0.0
        self.at(0)

    def end(self) -> None:
        """Says no more."""
        self._path.unlink(missing_ok=True)


class PulseCallback(pl.Callback):
    """Tells how far a training is.

    Args:
        pulse: Whom to tell.
    """

    def __init__(self, pulse: Pulse) -> None:
        self._pulse = pulse

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        """Tells after each batch."""
        total = trainer.estimated_stepping_batches
        self._pulse.at(trainer.global_step / total if total else 0)


def parts_under_way(folder: Path, names: list[str]) -> float:
    """Returns the sum of what the jobs that are under way have done, each as a share of it.

    Args:
        folder: Where their files are.
        names: Names of the files.
    """
    total = 0.0
    for name in names:
        try:
            total += float((folder / name).read_text())
        except (OSError, ValueError):  # not begun, done meanwhile, or being written
            continue
    return total


def sweep_pulses(folder: Path) -> None:
    """Removes the files of jobs that were killed.

    Args:
        folder: Where the files are.
    """
    for path in folder.glob("*"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > _PATIENCE:
                path.unlink()
