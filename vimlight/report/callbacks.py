"""What a run shows beyond its curves: confusion matrix, predictions with their images, gates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import numpy.typing as npt
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from vimlight.backbone import Preprocessing
from vimlight.errors import ConfigError
from vimlight.report.dashboards import Dashboards, Picture, Table
from vimlight.report.exhibits import show_gathered, show_zoo
from vimlight.report.files import versions_text
from vimlight.report.plots import image_grid, png
from vimlight.tasks import Task
from vimlight.trainable import TrainableModule
from vimlight.training.base import SupervisedModule
from vimlight.training.downstream import DownstreamModule

__all__ = ["RunReport", "restore_image"]


@dataclasses.dataclass(frozen=True)
class _Sample:
    name: str
    image: Tensor
    target: Any


class RunReport(pl.Callback):
    """Shows results at the end of `fit`, `validate` and `test`, on every logger that can and as files otherwise.

    These are, of the last pass over the validation or test images and as far as the task has them, `val/confusion`,
    the scores of each class, `val/precision_recall`, and in `val/reliability` how far its confidence can be trusted; a
    table and a picture of some predictions, taken evenly from all batches; and, of a downstream model, the gates as a
    heat map, the ranking of its modules, and what the zoo is worth. What lies in the image is drawn into it: first the
    target, beside it the prediction. Versions of the libraries are noted in `versions.json` when the run starts.
    Each logger has what it can keep (see `vimlight.report.dashboards`). Files go to the directory of the run: the first
    logger's, or the trainer's `default_root_dir`.

    Args:
        images: How many predictions to show; 0 for none.

    Raises:
        ConfigError: If the number is negative.
    """

    def __init__(self, images: int = 16) -> None:
        if images < 0:
            raise ConfigError(f"images must be at least 0, got {images}")
        self.images = images
        self._samples: list[_Sample] = []
        self._gathered: dict[str, npt.NDArray[np.float64]] = {}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Notes the versions of the libraries."""
        # Asked of every process, because it is broadcast from the first.
        directory = trainer.log_dir
        noted = isinstance(pl_module, TrainableModule) and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if directory is not None and noted and trainer.is_global_zero:
            Dashboards(trainer.loggers, directory).text("versions.json", versions_text(), trainer.global_step)

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts a new pass."""
        self._samples = []

    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts a new pass."""
        self._samples = []

    def on_validation_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keeps some images of the batch."""
        self._keep(trainer, pl_module, batch, batch_idx, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        """Keeps some images of the batch."""
        self._keep(trainer, pl_module, batch, batch_idx, trainer.num_test_batches[dataloader_idx])

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the confusion matrix and the like of this pass and clears them for the next."""
        self._take(pl_module, "val")

    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Takes the confusion matrix and the like of this pass and clears them for the next."""
        self._take(pl_module, "test")

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the results of `validate`; those of a pass within `fit` wait for its end."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self._show(trainer, pl_module, "val")

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the results of `test`."""
        self._show(trainer, pl_module, "test")

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Shows the results of the last validation."""
        self._show(trainer, pl_module, "val")

    def _keep(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Mapping[str, Any], number: int, batches: float
    ) -> None:
        """Keeps a batch's share of the images: data sorted by class are not shown by their first class alone."""
        if not isinstance(pl_module, SupervisedModule) or not trainer.is_global_zero or trainer.sanity_checking:
            return
        # Of a stream without length, the first batches serve.
        total = int(batches) if batches != float("inf") else 1
        count = (number + 1) * self.images // total - number * self.images // total
        size = len(batch["image"])
        for row in range(min(count, size, self.images - len(self._samples))):
            index = row * size // min(count, size)
            target, image = move_data_to_device((batch["target"][index], batch["image"][index]), "cpu")
            self._samples.append(_Sample(str(batch["id"][index]), image, target))

    def _take(self, pl_module: pl.LightningModule, split: str) -> None:
        if not isinstance(pl_module, SupervisedModule):
            return
        for name, metric in pl_module.gathering(split).items():
            # Every process computes: the counts are added over them.
            self._gathered[name] = metric.compute().cpu().numpy()
            metric.reset()

    def _show(self, trainer: pl.Trainer, pl_module: pl.LightningModule, split: str) -> None:
        if not isinstance(pl_module, SupervisedModule) or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        # Asked of every process, because it is broadcast from the first.
        directory = Path(trainer.log_dir or trainer.default_root_dir)
        if not trainer.is_global_zero:
            return
        boards, step = Dashboards(trainer.loggers, directory), trainer.global_step
        show_gathered(boards, step, pl_module.task, split, self._gathered)
        if self._samples:
            self._show_predictions(boards, trainer, pl_module, split)
        if isinstance(pl_module, DownstreamModule):
            show_zoo(boards, step, pl_module)
        self._gathered, self._samples = {}, []

    def _show_predictions(
        self, boards: Dashboards, trainer: pl.Trainer, pl_module: SupervisedModule, split: str
    ) -> None:
        task, step = pl_module.task, trainer.global_step
        images = torch.stack([sample.image for sample in self._samples])
        ids, targets = [sample.name for sample in self._samples], [sample.target for sample in self._samples]
        found = _predict(trainer, pl_module, {"image": images.to(pl_module.device), "id": ids})
        predictions = move_data_to_device(found["prediction"], "cpu")
        truth = task.truth(task.layout.collate(targets))
        pictures = [restore_image(image, pl_module.preprocessing) for image in images]
        pictures = [_drawn(task, *row) for row in zip(pictures, targets, predictions, strict=True)]
        columns: dict[str, Sequence[Any]] = {
            "id": ids, "image": pictures, "true": truth, "predicted": found["label"],
        }  # fmt: skip
        sure = task.sureness(predictions)
        if sure is not None:
            columns["probability"] = sure
        boards.table(f"{split}/predictions", Table(list(columns), list(zip(*columns.values(), strict=True))), step)
        title, right = f"Predictions, {split}", None
        if sure is not None:
            right = [first == second for first, second in zip(truth, found["label"], strict=True)]
            title = f"{title}: {sum(right)} of {len(right)} right"
        captions = [
            _caption(truth[n], found["label"][n], None if sure is None else sure[n]) for n in range(len(ids))
        ]  # fmt: skip
        shown = {name for text in (*truth, *found["label"]) for name in text.split("|")}
        legend = {name: colour for name, colour in task.colours().items() if name in shown}
        boards.figure(f"{split}/images", png(image_grid(pictures, captions, right, title, legend)), step)


def _drawn(task: Task, picture: Picture, target: Any, prediction: Any) -> Picture:
    """Returns a picture with target and prediction drawn into it, side by side, or as it is."""
    both = [task.draw(picture, item) for item in (target, prediction)]
    return picture if both[0] is None or both[1] is None else np.concatenate([both[0], both[1]], axis=1)


def restore_image(image: Tensor, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Undoes the normalisation of a backbone's input.

    Args:
        image: `(3, H, W)`.
        preprocessing: How it was prepared.

    Returns:
        `(H, W, 3)`, uint8.
    """
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    shares = image.detach().cpu().float() * std[:, None, None] + mean[:, None, None]
    restored: npt.NDArray[np.uint8] = (shares.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return restored


@torch.no_grad()
def _predict(trainer: pl.Trainer, pl_module: SupervisedModule, batch: Mapping[str, Any]) -> dict[str, Any]:
    training = pl_module.training
    pl_module.eval()
    with trainer.precision_plugin.forward_context():
        predicted = pl_module.predict_step(batch, 0)
    pl_module.train(training)
    return predicted


def _caption(truth: str, predicted: str, probability: float | None) -> str:
    if probability is None:
        return "\n".join(_short(text) for text in (truth, predicted)) if truth or predicted else ""
    guess = f"{_short(predicted)}: {probability:.0%}"
    return guess if truth == predicted else f"{guess}\nnot {_short(truth)}"


def _short(label: str, limit: int = 18) -> str:
    label = label or "none"
    return label if len(label) <= limit else f"{label[: limit - 1]}…"
