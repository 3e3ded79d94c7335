"""The LightningModule of fine-tuning: trains a weak model on a few labels and writes its caches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torch.optim import Optimizer

from vimlight.errors import ConfigError
from vimlight.files.checkpoint_facts import made_of, stated_names, stated_numbers, stated_tensors
from vimlight.trainable import OptimizerFactory, check_class_names
from vimlight.transmiter.logit_module import LogitModule
from vimlight.transmiter.sources import TUNINGS, Start, check_tuning
from vimlight.transmiter.sources.data import SourceDataModule
from vimlight.transmiter.sources.writing import write_tuned

__all__ = ["SourceModule", "TunedEpoch"]


class TunedEpoch(NamedTuple):
    """How an epoch did on the validation images.

    Attributes:
        accuracy: Accuracy there.
        loss: Cross-entropy there.
        epoch: Number of finished epochs.
    """

    accuracy: float
    loss: float
    epoch: int


class SourceModule(LogitModule):
    """Fine-tunes an image-text model; at the end of `fit` the caches of `data.out` are written.

    With a `data.val` the epoch with the best accuracy there is kept, otherwise the last one.

    Args:
        method: Way of fine-tuning, or its name as `name` together with its settings.
        class_names: Names of the C task classes; the command line takes them from the data.
        class_indices: The classes that are tuned on; the command line takes them from the data.
        seed: Decides what is drawn at the start.
        optimizer: From parameters to an optimiser; that of the method if left out.
        **optimisation: Schedule; see `TrainableModule`.

    Attributes:
        tuning: What is trained; built from the data's cache at the start.
        best: The best epoch so far, if there are validation images.

    Raises:
        UnknownNameError: If there is no such way of fine-tuning, or it has no such setting.
        ConfigError: If a setting is of the wrong type.
    """

    entry = "input"
    tuning: Any

    def __init__(
        self,
        method: str | dict[str, Any] = "clip_adapter",
        class_names: Sequence[str] = (),
        class_indices: Sequence[int] | None = None,
        *,
        seed: int = 0,
        optimizer: OptimizerFactory | None = None,
        **optimisation: Any,
    ) -> None:
        self.method, self.settings = check_tuning(method)
        super().__init__(class_names, class_indices, optimizer=optimizer or self._default_optimizer, **optimisation)
        self.seed = seed
        self.best: TunedEpoch | None = None
        self._best_state: dict[str, Tensor] = {}

    @property
    def reads(self) -> str:
        """What the method reads, `"features"` or `"images"`."""
        return TUNINGS[self.method].reads

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns what the method learns."""
        return {"tuning.learned": self.tuning.learned}

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns task logits `(N, C)` of features or images, of which the classes not tuned on have no chance."""
        return self.among_classes(self.tuning(inputs))

    def setup(self, stage: str) -> None:
        """Builds what is trained.

        Raises:
            ConfigError: If the data are no `SourceDataModule`, or a setting is out of range.
            CacheError: If the cache does not say which model it was built with, and the method needs it.
        """
        super().setup(stage)
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, SourceDataModule):
            raise ConfigError("fine-tuning a source needs a SourceDataModule")
        if hasattr(self, "tuning"):
            return
        cache = data.caches["train"]
        head = cache.head
        assert head is not None
        start = Start(cache, head.columns(torch.arange(cache.num_classes)), data.labelled_features, self.seed)
        self.tuning = TUNINGS[self.method](start, **self.settings)
        for parameter in self.tuning.parameters():
            parameter.requires_grad_(False)
        self.tuning.learned.requires_grad_(True)

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor:
        """Computes the loss of a batch."""
        loss = self.task.loss(self(batch["input"]), batch["target"])
        size = len(batch["target"])
        self.log("train/loss", loss, on_step=True, on_epoch=True, prog_bar=True, batch_size=size)
        return loss

    def on_validation_end(self) -> None:
        """Keeps this epoch if it is the best so far."""
        metrics = self.trainer.callback_metrics
        if self.trainer.sanity_checking or self.trainer.state.fn != TrainerFn.FITTING or "val/accuracy" not in metrics:
            return
        found = TunedEpoch(float(metrics["val/accuracy"]), float(metrics["val/loss"]), self.current_epoch + 1)
        if self.best is None or (found.accuracy, -found.loss) > (self.best.accuracy, -self.best.loss):
            self.best = found
            self._best_state = {key: value.detach().clone() for key, value in self.tuning.learned.state_dict().items()}

    def adopt_best(self) -> None:
        """Takes the weights of the best epoch, if there is one."""
        if self._best_state:
            self.tuning.learned.load_state_dict(self._best_state)

    def on_validation_start(self) -> None:
        """Takes the best epoch, if this is not the validation of a training."""
        if self.trainer.state.fn == TrainerFn.VALIDATING:
            self.adopt_best()

    def on_test_start(self) -> None:
        """Takes the best epoch."""
        self.adopt_best()

    def on_predict_start(self) -> None:
        """Takes the best epoch."""
        self.adopt_best()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights depend on, and the best epoch so far."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vimlight"] |= {
            "class_names": list(self.task.class_names),
            "best": None if self.best is None else list(self.best),
            "best_state": self._best_state,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the classes, and takes up the best epoch so far.

        Raises:
            CheckpointError: If the checkpoint is none of vimlight's or its classes are others.
        """
        super().on_load_checkpoint(checkpoint)
        check_class_names(stated_names(checkpoint, "class_names"), self.task.class_names)
        best = stated_numbers(checkpoint, "best")
        self.best = None if best is None else made_of(lambda numbers: TunedEpoch(*numbers), "best", best)
        self._best_state = stated_tensors(checkpoint, "best_state", self.tuning.learned.state_dict())

    def on_fit_end(self) -> None:
        """Takes the best epoch and writes the caches."""
        super().on_fit_end()
        self.adopt_best()
        data: SourceDataModule = self.trainer.datamodule  # type: ignore[attr-defined]
        if not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        self.tuning.eval()
        for cache, path in data.outputs:
            write_tuned(
                self.tuning, cache, path, name=f"{cache.model}+{self.method}", facts=self._facts(data),
                num_workers=data.num_workers, overwrite=data.overwrite,
            )  # fmt: skip
            rank_zero_info(f"the fine-tuned model's cache of {cache.split} is in {str(path)!r}")

    def _default_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        made: Optimizer = self.tuning.optimizer(parameters)
        return made

    def _facts(self, data: SourceDataModule) -> dict[str, Any]:
        chosen = "last" if self.best is None else f"best accuracy on {len(data.rows['val'])} validation images"
        return {
            "method": self.method,
            "settings": self.settings,
            "classes": self.class_indices,
            "images": len(data.rows["train"]),
            "shots": data.shots,
            "epoch": self.trainer.current_epoch if self.best is None else self.best.epoch,
            "epoch_chosen": chosen,
            "seed": self.seed,
            "data_seed": data.seed,
        }
