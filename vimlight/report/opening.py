"""What a run says of itself before and after the work: a line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_info
from torch import nn

from vimlight.report.folding import COLUMNS

__all__ = ["Opening", "say_written"]


class Opening(pl.Callback):
    """Says how many numbers are trained, and on what, in place of Lightning's table of modules."""

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says it."""
        counts = _count(pl_module.parameters(), trained=True), _count(pl_module.parameters(), trained=False)
        rank_zero_info("parameters: {:,} trained, {:,} frozen; on {}".format(*counts, trainer.strategy.root_device))


def say_written(trainer: pl.Trainer) -> None:
    """Says which files a run left, and where.

    Args:
        trainer: The run's trainer, once it is done.
    """
    # Asked once of every process, because it is broadcast from the first; others may not see the directory.
    directory = trainer.log_dir
    if trainer.fast_dev_run or directory is None or not Path(directory).is_dir():  # type: ignore[attr-defined]
        return
    folder = Path(directory)
    files = sorted((str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()), key=_weight)
    if files:
        rank_zero_info(_in_a_line(f"written to {folder}: ", files))


def _weight(name: str) -> tuple[bool, bool, str]:
    """Puts first what is needed to go on: checkpoints, and the config."""
    return not name.endswith(".ckpt"), name != "config.yaml", name


def _in_a_line(start: str, names: Sequence[str]) -> str:
    """Names as many as a line has room for, and counts the others."""
    lines = (f"{start}{', '.join(names[:some])} and {len(names) - some} more" for some in range(len(names) - 1, 0, -1))
    whole = f"{start}{', '.join(names)}"
    return next((line for line in (whole, *lines) if len(line) <= COLUMNS), f"{start}{len(names)} files")


def _count(parameters: Iterable[nn.Parameter], trained: bool) -> int:
    lazy = nn.parameter.UninitializedParameter
    return sum(each.numel() for each in parameters if each.requires_grad == trained and not isinstance(each, lazy))
