"""Loss and scores of a split: of all its images, once each, in whatever batches and processes they came."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torchmetrics import Metric

from vimlight.errors import TrainingError
from vimlight.tasks.averages import WideMetric
from vimlight.tasks.base import Task
from vimlight.tasks.targets import Batched
from vimlight.trainable import TrainableModule

__all__ = ["ScoredModule", "SplitScores", "gather"]


class SplitScores(nn.Module):
    """Gathers loss and scores of a split, batch by batch.

    Processes exchange nothing before `log`, so that their numbers of batches may differ.

    Args:
        task: The task.
        split: Name of the split, which goes before the names of what is logged.
    """

    def __init__(self, task: Task, split: str) -> None:
        super().__init__()
        self.task, self.split = task, split
        self.loss = _MeanLoss()
        self.metrics = task.scores().clone(prefix=f"{split}/")

    def update(self, predictions: Batched, targets: Batched, loss: Tensor | None = None) -> None:
        """Adds a batch.

        Args:
            predictions: As the task makes them.
            targets: Their targets.
            loss: The mean loss of the batch, if it is to be logged too; of a batch without images it does not count.
        """
        if loss is not None:
            self.loss.update(loss, self.task.terms(targets))
        if len(targets):
            self.metrics.update(predictions, targets)
        else:
            gather(self.metrics.values(), predictions, targets)

    def reset(self) -> None:
        """Forgets all batches."""
        self.loss.reset()
        self.metrics.reset()

    def log(self, module: pl.LightningModule) -> None:
        """Logs what was gathered in all processes, and starts anew.

        Args:
            module: The module that is trained or tested.

        Raises:
            TrainingError: If the loss is no number.
        """
        found: dict[str, Tensor] = {}
        with_loss = self.loss.update_called
        if with_loss:
            found[f"{self.split}/loss"] = self.loss.checked(self.split)
        # Where nothing was measured, as beside a head in closed form, there is nothing to log.
        if with_loss or any(metric.update_called for metric in self.metrics.values()):
            found.update(self.metrics.compute())
        monitor = f"{self.split}/{self.task.monitor}"
        for name, value in found.items():
            # Scores of single classes may not exist, and vectors cannot be logged; checkpoints ask for the monitor.
            if value.numel() == 1 and (name == monitor or not torch.isnan(value)):
                # Computed over all processes already.
                module.log(name, value.float(), prog_bar=self.split == "val" and name == monitor, sync_dist=True)
        self.reset()


def gather(metrics: Iterable[Metric], predictions: Batched, targets: Batched) -> None:
    """Adds a batch to metrics that processes join later; one without images to those alone that need it.

    Args:
        metrics: The metrics.
        predictions: As the task makes them.
        targets: Their targets.
    """
    for metric in metrics:
        # What processes join must have one width and type, also of those without images; sums of nothing are there.
        if len(targets) or any(isinstance(state, list) for state in metric.metric_state.values()):
            metric.update(predictions, targets)


class _MeanLoss(WideMetric):
    """The mean over all terms of all batches. That of torchmetrics leaves out what is not a number, or all weights."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("sums", torch.zeros(2, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, loss: Tensor, terms: int | Tensor) -> None:
        """Adds the mean loss of a batch over some terms; over none, whatever it is weighs nothing."""
        weight = torch.as_tensor(terms).to(self.sums)
        self.sums += torch.stack([torch.where(weight > 0, loss.to(self.sums) * weight, 0), weight])

    def compute(self) -> Tensor:
        """Returns the mean; NaN over no terms."""
        return self.sums[0] / self.sums[1]

    def checked(self, split: str) -> Tensor:
        """Returns the mean.

        Args:
            split: Name of the split, for messages.

        Raises:
            TrainingError: If it is NaN over some terms, which says nothing and would compare with nothing.
        """
        mean: Tensor = self.compute()
        # What processes have added up is theirs alone again once it is computed.
        if bool(torch.isnan(mean)) and bool(self.sums[1] > 0):
            raise TrainingError(
                f"the {split} loss is nan: the model's outputs are no numbers, as after a training that diverged; "
                "lower the learning rate"
            )
        return mean


class ScoredModule(TrainableModule):
    """A module that logs loss and scores of its validation and test images.

    Attributes:
        measured: What is gathered of each split, under the split's name and `_`.
    """

    measured: nn.ModuleDict

    def measure(self, task: Task, splits: Sequence[str] = ("val", "test")) -> None:
        """Prepares for what is to be gathered.

        Args:
            task: The task.
            splits: Names of the splits.
        """
        self.measured = nn.ModuleDict({f"{split}_": SplitScores(task, split) for split in splits})

    def score(
        self, split: str, batch: Mapping[str, Any], predictions: Batched, targets: Batched, loss: Tensor | None = None
    ) -> None:
        """Adds a batch, unless it is a spare one: of that, no image counts; see `SplitScores.update`.

        Args:
            split: Name of the split.
            batch: The batch.
            predictions: As the task makes them.
            targets: Their targets.
            loss: The mean loss of the batch, if it is to be logged too.
        """
        if batch.get("spare"):
            predictions, targets = predictions[:0], targets[:0]
        self.measured[f"{split}_"].update(predictions, targets, loss)  # type: ignore[operator]

    def on_validation_epoch_start(self) -> None:
        """Starts new scores."""
        self.reset_scores("val")

    def on_validation_epoch_end(self) -> None:
        """Logs the validation scores."""
        self.log_scores("val")

    def on_test_epoch_start(self) -> None:
        """Starts new scores."""
        self.reset_scores("test")

    def on_test_epoch_end(self) -> None:
        """Logs the test scores."""
        self.log_scores("test")

    def reset_scores(self, split: str) -> None:
        """Forgets what was gathered of a split."""
        self.measured[f"{split}_"].reset()  # type: ignore[operator]

    def log_scores(self, split: str) -> None:
        """Logs what was gathered of a split in all processes."""
        self.measured[f"{split}_"].log(self)  # type: ignore[operator]
