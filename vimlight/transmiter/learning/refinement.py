"""Refinement (TransMiter+): a transferred adapter is trained further with a few labels; no image-text model is run."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import lightning.pytorch as pl
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn import functional as F
from torch.optim import AdamW
from torchmetrics import Metric

from vimlight.errors import AdapterError, ConfigError
from vimlight.files.checkpoint_facts import made_of, stated_numbers, stated_tensors
from vimlight.trainable import OptimizerFactory
from vimlight.transmiter.adapters.transmiter import TransMiter
from vimlight.transmiter.cache.rows import difference
from vimlight.transmiter.learning.module import AdapterModule, check_columns

__all__ = ["Choice", "MixtureScores", "RefinementModule"]

MIXTURES = tuple(tenths / 10 for tenths in range(11))


class Choice(NamedTuple):
    """What was chosen on validation images.

    Attributes:
        accuracy: Accuracy there.
        loss: Cross-entropy there.
        mixture: Share of the tuned adapter's logits; the rest are the model's own.
        epoch: Number of finished epochs, 0 for the adapter as it came.
    """

    accuracy: float
    loss: float
    mixture: float
    epoch: int

    def beats(self, other: Choice | None) -> bool:
        """Tells whether this one is more accurate, or as accurate with less loss."""
        return other is None or (self.accuracy, -self.loss) > (other.accuracy, -other.loss)


class MixtureScores(Metric):
    """Accuracy and loss of mixtures of two rows of logits, for all mixtures at once.

    Args:
        mixtures: Shares of the second.
    """

    right: Tensor
    loss: Tensor
    seen: Tensor

    def __init__(self, mixtures: Sequence[float] = MIXTURES) -> None:
        super().__init__()
        self.mixtures = tuple(mixtures)
        self.add_state("right", torch.zeros(len(mixtures), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("loss", torch.zeros(len(mixtures), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("seen", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, own: Tensor, tuned: Tensor, targets: Tensor) -> None:
        """Adds a batch.

        Args:
            own: Logits `(N, K)` of share 0.
            tuned: Logits `(N, K)` of share 1.
            targets: `(N,)` columns.
        """
        shares = torch.tensor(self.mixtures, dtype=own.dtype, device=own.device)
        mixed = own + shares[:, None, None] * (tuned - own)
        self.right += (mixed.argmax(dim=2) == targets).sum(dim=1)
        repeated = targets.expand(len(mixed), -1).flatten()
        self.loss += F.cross_entropy(mixed.flatten(0, 1), repeated, reduction="none").view(len(mixed), -1).sum(dim=1)
        self.seen += len(targets)

    def compute(self) -> tuple[Tensor, Tensor]:
        """Returns accuracy and loss of each mixture."""
        return self.right / self.seen, self.loss / self.seen

    def _totals(self) -> tuple[Tensor, Tensor]:
        # The base class wraps `compute`, to add the counts of all processes, and loses its type.
        computed: tuple[Tensor, Tensor] = cast(Any, self.compute)()
        return computed

    def choice(self, epoch: int) -> Choice:
        """Returns the best mixture; of equal ones that with the smallest share of the tuned logits."""
        best: Choice | None = None
        accuracies, losses = (values.tolist() for values in self._totals())
        for mixture, accuracy, loss in zip(self.mixtures, accuracies, losses, strict=True):
            found = Choice(accuracy, loss, mixture, epoch)
            best = found if found.beats(best) else best
        assert best is not None
        return best


class RefinementModule(AdapterModule):
    """Trains an adapter with cross-entropy on labelled images.

    The epoch, and how much of the adapter's change is mixed into the model's own logits, are chosen on validation
    images; the adapter as it came, and no adapter at all, are among the candidates. The mixture costs nothing: a share
    of the change is a factor of the adapter's last layer.

    Args:
        adapter: File of a `transmiter` adapter for the model whose logits the data are, or the adapter itself, of which
            a copy is trained; without one an adapter is trained from the start.
        class_names: Names of the C task classes; the command line takes them from the data.
        aux_names: Names of the auxiliary classes; the command line takes them from the data.
        class_indices: The classes among which the images are classified; the command line takes them from the data.
        out: The file that the adapter is stored in, ending in `.safetensors`; without one it is not stored.
        overwrite: Whether an existing file is replaced.
        optimizer: From parameters to an optimiser; AdamW with a learning rate of 1e-4 if left out.
        **optimisation: Schedule; see `TrainableModule`.

    Attributes:
        choice: What was chosen so far.

    Raises:
        AdapterError: If there is no such adapter, or it is for other classes.
    """

    def __init__(
        self,
        adapter: str | TransMiter | None = None,
        class_names: Sequence[str] = (),
        aux_names: Sequence[str] = (),
        class_indices: Sequence[int] | None = None,
        *,
        out: str | None = None,
        overwrite: bool = False,
        optimizer: OptimizerFactory | None = None,
        **optimisation: Any,
    ) -> None:
        start = _start(adapter, class_names, aux_names)
        super().__init__(
            start,
            class_names,
            aux_names,
            class_indices,
            out=out,
            overwrite=overwrite,
            optimizer=optimizer or partial(AdamW, lr=1e-4, weight_decay=1e-3, fused=True),
            **optimisation,
        )
        self.scores = MixtureScores()
        self.choice: Choice | None = None
        self._best: dict[str, Tensor] = {}

    def check_data(self, data: pl.LightningDataModule | None) -> None:
        """Checks that the data bring labelled logits, to learn from and to choose by, of the adapter's model.

        Raises:
            ConfigError: If they do not.
        """
        if not hasattr(data, "batches"):
            raise ConfigError("refinement needs a CacheDataModule (or one with batches('val', device)) to choose by")
        for name in ("tuned", "val_tuned"):
            if getattr(data, f"{name}_paths", None):
                raise ConfigError(
                    f"refinement learns from labels, and none are read where data.{name} is given; leave it out"
                )
        ours, theirs = self.adapter.card.model, getattr(data, "model_name", "")
        if ours and theirs and ours != theirs:
            raise ConfigError(
                f"the adapter refines logits of {ours!r}, the data are logits of {theirs!r}; move it first: "
                "vimlight transfer"
            )

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        """Computes the loss of a batch."""
        loss = self.task.loss(self.among_classes(self(batch["logits"])), batch["target"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=len(batch["target"]))
        return loss

    def on_fit_start(self) -> None:
        """Takes the adapter as it came for the first candidate, unless a checkpoint brings better."""
        super().on_fit_start()
        if self.choice is not None:
            return
        self.scores.reset()
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        with torch.no_grad():
            for batch in data.batches("val", self.device):
                self._score_mixtures(batch)
        self._consider(self.scores.choice(0))

    def on_validation_start(self) -> None:
        """Takes what was chosen, if this is not the validation of a training."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self.adopt_choice()

    def on_validation_epoch_start(self) -> None:
        """Starts a new pass."""
        super().on_validation_epoch_start()
        self.scores.reset()

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the validation metrics, and those of the mixtures."""
        super().validation_step(batch, batch_index)
        if not batch.get("spare"):
            self._score_mixtures(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs the scores, and keeps this epoch's adapter if it is the best so far."""
        super().on_validation_epoch_end()
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING:
            return
        found = self.scores.choice(self.current_epoch + 1)
        self._consider(found)
        assert self.choice is not None
        self.log("val/best_accuracy", self.choice.accuracy)
        self.log("val/mixture", found.mixture)

    def on_test_start(self) -> None:
        """Takes what was chosen."""
        self.adopt_choice()

    def on_predict_start(self) -> None:
        """Takes what was chosen."""
        self.adopt_choice()

    def adopt_choice(self) -> None:
        """Makes the adapter the one that was chosen, its mixture included."""
        if self._best:
            self.adapter.load_state_dict(self._best)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what was chosen so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vimlight"]["choice"] = None if self.choice is None else list(self.choice)
        checkpoint["vimlight"]["best"] = self._best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what was chosen so far.

        Raises:
            CheckpointError: If that is of another model, or makes no sense.
        """
        super().on_load_checkpoint(checkpoint)
        choice = stated_numbers(checkpoint, "choice")
        self.choice = None if choice is None else made_of(lambda numbers: Choice(*numbers), "choice", choice)
        self._best = stated_tensors(checkpoint, "best", self.adapter.state_dict())

    def on_fit_end(self) -> None:
        """Takes what was chosen, and stores it."""
        self.adopt_choice()
        super().on_fit_end()

    def describe_adapter(self) -> None:
        """Notes caches, settings and what was chosen on the adapter's card."""
        facts = {
            "chosen_on_validation": None if self.choice is None else self.choice._asdict(),
            "classes": self.class_indices,
            "images": {split: len(ids) for split, ids in self.of_data("split_ids", {}).items()},
            "training": self.training_facts(),
            "caches": self.of_data("provenance", {}),
        }
        self.adapter.describe(
            class_names=self.task.class_names,
            aux_names=self.aux_names,
            model=self.of_data("model_name", self.adapter.card.model),
            history=self.adapter.card.after("refinement", **facts),
        )

    def _score_mixtures(self, batch: Mapping[str, Any]) -> None:
        logits, targets = batch["logits"], batch["target"]
        columns = torch.tensor(self.class_indices, device=logits.device)
        own, tuned = logits[:, columns], self(logits)[:, columns]
        self.scores.update(own, tuned, torch.searchsorted(columns, targets))

    def _consider(self, found: Choice) -> None:
        if not found.beats(self.choice):
            return
        self.choice = found
        self._best = {name: value.detach().clone() for name, value in self.adapter.state_dict().items()}
        for name in (name for name in self._best if name.startswith(f"mlp.{len(self.adapter.mlp) - 1}.")):
            self._best[name] *= found.mixture


def _start(adapter: str | TransMiter | None, class_names: Sequence[str], aux_names: Sequence[str]) -> TransMiter:
    width = check_columns(class_names, aux_names)
    if adapter is None:
        return TransMiter(width, len(class_names))
    found = TransMiter.load(adapter) if isinstance(adapter, str) else copy.deepcopy(adapter)
    if (found.num_logits, found.num_classes) != (width, len(class_names)):
        raise AdapterError(
            f"the adapter takes {found.num_logits} logits and {found.num_classes} task classes, the data have {width} "
            f"and {len(class_names)}"
        )
    fault = difference(found.card.column_names, (*class_names, *aux_names)) if found.card.class_names else None
    if fault is not None:
        raise AdapterError(f"the adapter is for other classes than the data have: {fault}")
    return found.train()
