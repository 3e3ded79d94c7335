"""What extraction and refinement share: an adapter that is trained on cached logits and stored as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from vimlight.errors import ConfigError
from vimlight.files.atomic import refuse_existing
from vimlight.files.checkpoint_facts import stated_names
from vimlight.trainable import check_class_names, weights_stay
from vimlight.transmiter.adapters.file import check_path
from vimlight.transmiter.adapters.transmiter import TransMiter
from vimlight.transmiter.logit_module import LogitModule

__all__ = ["AdapterModule"]


class AdapterModule(LogitModule):
    """Trains an adapter; a subclass says from what. At the end of `fit` it is stored.

    Args:
        adapter: The adapter.
        class_names: Names of the C task classes.
        aux_names: Names of the auxiliary classes.
        class_indices: The classes among which predictions are scored; all of them if left out.
        out: The file that the adapter is stored in, ending in `.safetensors`; without one it is not stored.
        overwrite: Whether an existing file is replaced.
        **optimisation: Optimiser and schedule; see `TrainableModule`.

    Attributes:
        adapter: The adapter.
    """

    entry = "logits"

    def __init__(
        self,
        adapter: TransMiter,
        class_names: Sequence[str],
        aux_names: Sequence[str],
        class_indices: Sequence[int] | None = None,
        *,
        out: str | None = None,
        overwrite: bool = False,
        **optimisation: Any,
    ) -> None:
        super().__init__(class_names, class_indices, **optimisation)
        self.adapter = adapter
        self.aux_names = tuple(aux_names)
        self.out = out
        self.overwrite = overwrite

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns the adapter."""
        return {"adapter": self.adapter}

    def forward(self, logits: Tensor) -> Tensor:
        """Returns refined task logits `(N, C)` of logits `(N, M)`."""
        return self.adapter.task_logits(logits)

    def setup(self, stage: str) -> None:
        """Checks before the training what is needed for it and after it."""
        super().setup(stage)
        if stage == "fit":
            self.check_data(getattr(self.trainer, "datamodule", None))
            self.check_storable()

    def check_storable(self) -> None:
        """Checks that the adapter can be stored.

        Raises:
            AdapterError: If the file's name does not end in `.safetensors`.
            ConfigError: If the file exists and may not be replaced.
        """
        if self.out is not None:
            refuse_existing(check_path(self.out), self.overwrite, "--model.overwrite true (overwrite=True)")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights depend on: all columns by name."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vimlight"]["class_names"] = list(self.task.class_names)
        checkpoint["vimlight"]["aux_names"] = list(self.aux_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint belongs to these classes.

        Raises:
            CheckpointError: If it is none of vimlight's or its classes are others.
        """
        super().on_load_checkpoint(checkpoint)
        check_class_names(stated_names(checkpoint, "class_names"), self.task.class_names)
        check_class_names(stated_names(checkpoint, "aux_names", []), self.aux_names)

    def on_fit_end(self) -> None:
        """Stores the adapter."""
        super().on_fit_end()
        trial = bool(self.trainer.fast_dev_run)  # type: ignore[attr-defined]
        if self.out is None or not self.trainer.is_global_zero or trial:
            return
        self.describe_adapter()
        with weights_stay(self.trainer, "--model.out"):
            self.adapter.save(self.out, overwrite=self.overwrite)
        rank_zero_info(f"the adapter is in {self.out!r}")

    def describe_adapter(self) -> None:
        """Notes on the adapter's card where it comes from."""
        raise NotImplementedError(f"{type(self).__name__} does not say where its adapter comes from")

    def training_facts(self) -> dict[str, Any]:
        """Returns how the training was done, as plain values for a card."""
        trainer, data = self.trainer, getattr(self.trainer, "datamodule", None)
        optimizer = trainer.optimizers[0]
        facts = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "optimizer": type(optimizer).__name__,
            "lr": optimizer.defaults.get("lr"),
            "weight_decay": optimizer.defaults.get("weight_decay"),
            "batch_size": getattr(data, "batch_size", None),
            "data_seed": getattr(data, "seed", None),
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
        }
        return {key: value for key, value in facts.items() if value is not None}

    def of_data(self, what: str, default: Any) -> Any:
        """Returns what the data module says of its caches, or a default where another one is used."""
        data = getattr(self.trainer, "datamodule", None)
        found = getattr(data, what, default)
        return found() if callable(found) else found


def check_columns(class_names: Sequence[str], aux_names: Sequence[str]) -> int:
    """Returns the number of columns M.

    Raises:
        ConfigError: If nobody said what the classes are.
    """
    if not class_names:
        raise ConfigError("class_names are missing: pass those of the data (data.class_names and data.aux_names)")
    return len(class_names) + len(aux_names)
