"""What W&B keeps of a run beside its curves: the best of its scores, and which modules it makes and uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import WandbLogger

from vimlight.trainable import TrainableModule
from vimlight.training.base import SupervisedModule
from vimlight.training.downstream import DownstreamModule
from vimlight.training.midstream import MidstreamModule
from vimlight.transmiter.learning.module import AdapterModule

if TYPE_CHECKING:
    from wandb import Artifact

__all__ = ["Lineage"]

_STEP = "trainer/global_step"
_FORBIDDEN = re.compile(r"[^\w.-]")


class Lineage(pl.Callback):
    """Tells W&B which of a score's values is the best, and which files a run makes and uses.

    A midstream run makes an artifact of type `module`, with its card; a downstream run uses those of its modules and
    makes a `downstream-model`; a run that learns or refines an adapter makes an `adapter`. Artifacts of one content are
    one, so that the graph leads from a module to all that is built on it. An offline run keeps all of it too.
    """

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says what is best, and what is used."""
        for run in _runs(trainer):
            for name, goal in _goals(pl_module).items():
                run.define_metric(name, step_metric=_STEP, step_sync=True, summary=f"{goal},last")
            if isinstance(pl_module, DownstreamModule):
                for module in pl_module.module_names:
                    _use(run, _module(pl_module, module))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hands over what the training made; one that failed does not come here."""
        if stage != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for run in _runs(trainer):
            artifact = _made(trainer, pl_module)
            if artifact is not None:
                run.log_artifact(artifact)


def _runs(trainer: pl.Trainer) -> list[Any]:
    """Returns the runs of W&B, in the first process."""
    if not trainer.is_global_zero:
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _goals(pl_module: pl.LightningModule) -> dict[str, str]:
    """Returns whether the most or the least of a score is best."""
    goals = {"val/loss": "min", "train/loss": "min"}
    if isinstance(pl_module, SupervisedModule):
        return {**goals, f"val/{pl_module.task.monitor}": pl_module.task.mode}
    return goals if isinstance(pl_module, TrainableModule) else {}


def _made(trainer: pl.Trainer, pl_module: pl.LightningModule) -> Artifact | None:
    if isinstance(pl_module, MidstreamModule) and pl_module.name is not None:
        return _module(pl_module, pl_module.name)
    if isinstance(pl_module, AdapterModule) and pl_module.out is not None:
        return _artifact(f"adapter-{Path(pl_module.out).stem}", "adapter", Path(pl_module.out), {})
    best = str(getattr(trainer.checkpoint_callback, "best_model_path", ""))
    if isinstance(pl_module, DownstreamModule) and best and Path(best).is_file():
        about = {"modules": {name: pl_module.zoo.card(name).sha256 for name in pl_module.module_names}}
        return _artifact(f"downstream-{pl_module.settings['how']}", "downstream-model", Path(best), about)
    return None


def _module(pl_module: MidstreamModule | DownstreamModule, name: str) -> Artifact:
    """Returns a module with its card, of the same content in the run that makes it and in those that use it."""
    card = pl_module.zoo.card(name)
    about = {
        "kind": card.kind, "backbone": card.backbone, "fingerprint": card.fingerprint, "sha256": card.sha256,
        "task": card.task, "dataset": card.dataset, "metrics": card.metrics, "license": card.license,
    }  # fmt: skip
    artifact = _artifact(f"module-{name}", "module", pl_module.zoo.file(name), about)
    with artifact.new_file("card.json", encoding="utf-8") as file:
        file.write(card.to_json())
    return artifact


def _artifact(name: str, kind: str, file: Path, about: dict[str, Any]) -> Artifact:
    from wandb import Artifact

    artifact = Artifact(_FORBIDDEN.sub("_", name)[:128], type=kind, metadata=about)
    # Files of a zoo are whole or absent: no copy is needed that cannot change.
    artifact.add_file(str(file), name=_FORBIDDEN.sub("_", file.name), policy="immutable")
    return artifact


def _use(run: Any, artifact: Artifact) -> None:
    """Marks an artifact as used, offline as well: `use_artifact` refuses there what `wandb sync` can do later."""
    if run.offline:
        run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
    else:
        run.use_artifact(artifact)
