"""What dashboards keep of a run beside its curves: the best of its scores, and which files it makes and uses."""

from __future__ import annotations

import math
from pathlib import Path

import lightning.pytorch as pl

from vimlight.report.dashboards import Artifact, Dashboards
from vimlight.report.scores import best_of
from vimlight.trainable import TrainableModule
from vimlight.training.base import SupervisedModule
from vimlight.training.downstream import DownstreamModule
from vimlight.training.midstream import MidstreamModule
from vimlight.transmiter.learning.module import AdapterModule

__all__ = ["Lineage"]


class Lineage(pl.Callback):
    """Tells every logger which of a score's values is the best, and which files a run makes and uses.

    A midstream run makes an artifact of the kind `module`, with its card; a downstream run uses those of its modules
    and makes a `downstream-model`; a run that learns or refines an adapter makes an `adapter`. The best value of the
    score that the task is chosen by is kept as `best/val/SCORE`.
    """

    def __init__(self) -> None:
        self._seen: dict[str, list[float]] = {}

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Says what is best, and what is used."""
        self._seen = {name: [] for name in _goals(pl_module) if name.startswith("val/")}
        boards = _boards(trainer)
        if boards is None:
            return
        boards.goals(_goals(pl_module))
        if isinstance(pl_module, DownstreamModule):
            for module in pl_module.module_names:
                boards.artifact(_module(pl_module, module), used=True)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Notes the scores."""
        if not trainer.sanity_checking:
            for name, values in self._seen.items():
                if name in trainer.callback_metrics:
                    values.append(float(trainer.callback_metrics[name]))

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Hands over what the training made and how good it was at its best; one that failed does not come here."""
        if stage != "fit" or (boards := _boards(trainer)) is None:
            return
        best = {f"best/{name}": best_of(name, values) for name, values in self._seen.items()}
        found = {name: value for name, value in best.items() if value is not None and math.isfinite(value)}
        if found:
            boards.summary(found, trainer.global_step)
        artifact = _made(trainer, pl_module)
        if artifact is not None:
            boards.artifact(artifact, used=False)


def _boards(trainer: pl.Trainer) -> Dashboards | None:
    """Returns the dashboards, in the first process of a run that is more than a trial."""
    # Asked of every process, because it is broadcast from the first.
    directory = trainer.log_dir
    if not trainer.is_global_zero or trainer.fast_dev_run or not trainer.loggers or directory is None:  # type: ignore[attr-defined]
        return None
    return Dashboards(trainer.loggers, directory)


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
        return Artifact(f"adapter-{Path(pl_module.out).stem}", "adapter", Path(pl_module.out), {})
    best = str(getattr(trainer.checkpoint_callback, "best_model_path", ""))
    if isinstance(pl_module, DownstreamModule) and best and Path(best).is_file():
        about = {"modules": {name: pl_module.zoo.card(name).sha256 for name in pl_module.module_names}}
        return Artifact(f"downstream-{pl_module.settings['how']}", "downstream-model", Path(best), about)
    return None


def _module(pl_module: MidstreamModule | DownstreamModule, name: str) -> Artifact:
    """Returns a module with its card, of the same content in the run that makes it and in those that use it."""
    card = pl_module.zoo.card(name)
    about = {
        "kind": card.kind, "backbone": card.backbone, "fingerprint": card.fingerprint, "sha256": card.sha256,
        "task": card.task, "dataset": card.dataset, "metrics": card.metrics, "license": card.license,
    }  # fmt: skip
    return Artifact(f"module-{name}", "module", pl_module.zoo.file(name), about, {"card.json": card.to_json()})
