"""Processes that train together have to train the same: each machine may have files of its own."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from torch import distributed

from vimlight.data import ImageDataModule
from vimlight.errors import ConfigError
from vimlight.training.base import SupervisedModule
from vimlight.training.downstream import DownstreamModule

__all__ = ["Agreement"]

_SHOWN = 12


class Agreement(pl.Callback):
    """Refuses a run of several processes that found different images, backbones, modules or checkpoints.

    Without it they would wait for steps that others do not take, or train the first process's module on features of
    another backbone.

    Args:
        checkpoint: The checkpoint that the run goes on from, if one was named.
    """

    def __init__(self, checkpoint: str | None = None) -> None:
        self._checkpoint = checkpoint

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Compares what each process found, before anything is computed of it.

        Raises:
            ConfigError: If they differ; all processes raise the same.
        """
        if trainer.world_size == 1:
            return
        found: list[dict[str, Any]] = [{}] * trainer.world_size
        distributed.all_gather_object(found, self._found(trainer, pl_module, stage))
        for rank, facts in enumerate(found):
            for name in {**found[0], **facts}:
                first, other = found[0].get(name, "missing"), facts.get(name, "missing")
                if first != other:
                    raise ConfigError(
                        f"{name}: {first} in rank 0, {other} in rank {rank}; machines that share no folder need the "
                        "same zoo, data and checkpoint each"
                    )

    def _found(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> dict[str, str]:
        """Returns what this process found, by what it is; of files, the start of their hash."""
        found = {}
        checkpoint = self._checkpoint
        if checkpoint is None and SLURMEnvironment.detect():
            # What the trainer finds by itself once a job was requeued.
            checkpoint = trainer._checkpoint_connector._hpc_resume_path
        if checkpoint is not None:
            found["the checkpoint"] = hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:_SHOWN]
        if isinstance(pl_module, SupervisedModule):
            found["the backbone"] = pl_module.backbone.fingerprint[:_SHOWN]
        if isinstance(pl_module, DownstreamModule):
            for name in pl_module.module_names:
                found[f"module {name!r} of the zoo"] = pl_module.zoo.card(name).sha256[:_SHOWN]
        data = trainer.datamodule  # type: ignore[attr-defined]
        if isinstance(data, ImageDataModule):
            tables = {"predict": data.predict_table} if stage == "predict" else data.tables
            found["the images"] = ", ".join(f"{len(table):,} {split}" for split, table in tables.items())
            found["the classes"] = ", ".join(data.class_names)
        return found
