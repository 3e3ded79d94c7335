"""What midstream and downstream training share: optimisation, metrics, and checkpoints of what is trained alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, get_args, get_type_hints

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from vimlight.backbone import Backbone, create_backbone
from vimlight.errors import CheckpointError, ConfigError, FingerprintError, nearest, unknown_name
from vimlight.tasks import create_task

__all__ = ["SupervisedModule", "build_backbone", "check_types", "collect_features", "warmup_cosine"]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
_INTERVALS = ("epoch", "step")


class SupervisedModule(pl.LightningModule):
    """Trains some modules over a frozen backbone on a labelled task; a subclass says which and how.

    Args:
        backbone: The backbone, its name, or the arguments of `create_backbone`.
        kind: Kind of task; the command line takes it from the data.
        class_names: Names of the classes; the command line takes them from the data.
        optimizer: From parameters to an optimiser; AdamW with a learning rate of 1e-3 if left out.
        lr_scheduler: From the optimiser to a schedule; a warm-up and a cosine by steps if left out.
        lr_interval: Whether that schedule goes by `"epoch"` or by `"step"`.
        warmup: Share of the steps over which the learning rate of the default schedule rises.
        compile: Whether the forward pass is compiled with `torch.compile`.

    Attributes:
        backbone: The frozen backbone.
        task: The task.
    """

    strict_loading = True

    def __init__(
        self,
        backbone: str | dict[str, Any] | Backbone,
        *,
        kind: str = "classification",
        class_names: Sequence[str] = (),
        optimizer: OptimizerFactory | None = None,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: str = "epoch",
        warmup: float = 0.1,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1:
            raise ConfigError(f"warmup is a share of the steps, from 0 up to but not including 1; got {warmup}")
        if lr_interval not in _INTERVALS:
            raise unknown_name("lr_interval", lr_interval, _INTERVALS)
        self.backbone = build_backbone(backbone)
        self.task = create_task(kind, class_names)
        self.warmup = warmup
        self._make_optimizer = optimizer if optimizer is not None else partial(AdamW, lr=1e-3)
        self._make_scheduler = lr_scheduler
        self._lr_interval = lr_interval
        self._saved_settings: dict[str, Any] = {}
        metrics = self.task.metrics()
        self.metrics = nn.ModuleDict(
            {f"{split}_": metrics.clone(prefix=f"{split}/") for split in ("train", "val", "test")}
        )
        self.confusion = nn.ModuleDict({f"{split}_": self.task.confusion() for split in ("val", "test")})
        self.trained = False
        if compile:
            self.compile()

    @abstractmethod
    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns what is optimised, saved and restored, by the attribute's name."""

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits `(N, C)` of images `(N, 3, H, W)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def penalty(self) -> Tensor | float:
        """Returns what is added to the loss."""
        return 0.0

    def training_step(self, batch: Mapping[str, Any], batch_index: int) -> Tensor | None:
        """Computes the loss of a batch and updates the training metrics."""
        loss = self._shared_step("train", batch)
        return loss + self.penalty()

    def validation_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the validation metrics."""
        self._shared_step("val", batch)

    def test_step(self, batch: Mapping[str, Any], batch_index: int) -> None:
        """Updates the test metrics."""
        self._shared_step("test", batch)

    def predict_step(self, batch: Mapping[str, Any], batch_index: int) -> dict[str, Any]:
        """Predicts a batch.

        Returns:
            The ids, the probabilities `(N, C)` and the predicted labels.
        """
        probabilities = self.task.probabilities(self(batch["image"]))
        return {"id": batch["id"], "probabilities": probabilities, "label": self.task.labels(probabilities)}

    def setup(self, stage: str) -> None:
        """Refuses several processes where nothing takes gradient steps.

        Raises:
            ConfigError: If it is so.
        """
        if stage == "fit" and self.trainer.world_size > 1 and not self._trainable_parameters():
            raise ConfigError("nothing here takes gradient steps: several processes are no use; set trainer.devices: 1")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds the optimiser over what is declared trainable, and its schedule.

        Raises:
            ConfigError: If the default schedule has no end.
        """
        parameters = self._trainable_parameters()
        if not parameters:
            return None
        optimizer = self._make_optimizer(parameters)
        if self._make_scheduler is not None:
            # The metric is what a schedule by plateaus looks at; others take none.
            chosen: LRSchedulerConfigType = {
                "scheduler": self._make_scheduler(optimizer),
                "interval": self._lr_interval,
                "monitor": "val/loss",
            }
            return {"optimizer": optimizer, "lr_scheduler": chosen}
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ConfigError(
                "the default schedule needs an end: set max_epochs or max_steps, or choose an lr_scheduler"
            )
        schedule = LambdaLR(optimizer, warmup_cosine(int(steps), self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Returns the state of what is trainable alone; the backbone and the zoo are no part of a checkpoint."""
        names = tuple(f"{name}." for name in self.trainable_modules())
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if key.startswith(names)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restores what is trainable; names and shapes must match exactly.

        Raises:
            CheckpointError: If they do not.
        """
        own = self.state_dict()
        missing, extra = sorted(set(own) - set(state_dict)), sorted(set(state_dict) - set(own))
        if missing or extra:
            close = nearest(missing[0], extra, 1) if missing and extra else []
            raise CheckpointError(
                f"the checkpoint does not fit this {type(self).__name__}: it lacks {missing[:3] or 'nothing'} and has "
                f"{extra[:3] or 'nothing'} besides" + (f"; nearest to {missing[0]!r}: {close[0]!r}" if close else "")
            )
        for key, value in state_dict.items():
            if value.shape != own[key].shape:
                shapes = f"{tuple(value.shape)} in the checkpoint, {tuple(own[key].shape)} here"
                raise CheckpointError(f"tensor {key!r} has the shape {shapes}; were the classes or settings changed?")
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        self.trained = True
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights depend on, backbone and classes, and the optimiser's settings."""
        checkpoint["vimlight"] = {
            "fingerprint": self.backbone.fingerprint,
            "class_names": list(self.task.class_names),
            "optimizer": _settings(self.trainer.optimizers),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint belongs to this backbone and these classes.

        Raises:
            FingerprintError: If it was trained on another backbone.
            CheckpointError: If it is none of vimlight's or its classes are others.
        """
        about = checkpoint.get("vimlight")
        if about is None:
            raise CheckpointError("the checkpoint was not written by vimlight: it does not say which backbone it needs")
        if about["fingerprint"] != self.backbone.fingerprint:
            raise FingerprintError(
                f"the checkpoint was trained on the backbone with fingerprint {about['fingerprint'][:12]}..., "
                f"but {self.backbone.name!r} has {self.backbone.fingerprint[:12]}..."
            )
        if list(about["class_names"]) != list(self.task.class_names):
            raise CheckpointError(
                f"the checkpoint knows the classes {list(about['class_names'])[:5]}..., the data has "
                f"{list(self.task.class_names)[:5]}..."
            )
        self._saved_settings = about.get("optimizer", {})

    def on_train_start(self) -> None:
        """Lets the optimiser's settings win over those that came with its state from a checkpoint."""
        now, then = _settings(self.trainer.optimizers), self._saved_settings
        changed = {key: value for key, value in now.items() if key in then and then[key] != value}
        for group in (group for optimizer in self.trainer.optimizers for group in optimizer.param_groups):
            for key, value in changed.items():
                if key == "lr" and group.get("initial_lr"):
                    group["lr"] *= value / group["initial_lr"]
                    group["initial_lr"] = value
                else:
                    group[key] = value
        for schedule in (config.scheduler for config in self.trainer.lr_scheduler_configs):
            if "lr" in changed and hasattr(schedule, "base_lrs"):
                schedule.base_lrs = [changed["lr"]] * len(schedule.base_lrs)

    def on_validation_epoch_start(self) -> None:
        """Starts a new confusion matrix."""
        self.confusion["val_"].reset()  # type: ignore[operator]

    def on_test_epoch_start(self) -> None:
        """Starts a new confusion matrix."""
        self.confusion["test_"].reset()  # type: ignore[operator]

    def on_fit_end(self) -> None:
        """Remembers that there is something to test."""
        self.trained = True

    def _trainable_parameters(self) -> list[nn.Parameter]:
        return [p for module in self.trainable_modules().values() for p in module.parameters() if p.requires_grad]

    def _shared_step(self, split: str, batch: Mapping[str, Any]) -> Tensor:
        logits = self(batch["image"])
        targets, size = batch["target"], len(batch["image"])
        loss = self.task.loss(logits, targets)
        probabilities = self.task.probabilities(logits.detach())
        self.log(
            f"{split}/loss", loss, on_step=split == "train", on_epoch=True, batch_size=size, sync_dist=split != "train"
        )
        metrics = self.metrics[f"{split}_"]
        metrics.update(probabilities, targets)  # type: ignore[operator]
        self.log_dict(metrics, on_step=False, on_epoch=True, prog_bar=split == "val", batch_size=size)  # type: ignore[arg-type]
        if split != "train":
            self.confusion[f"{split}_"].update(probabilities, targets)  # type: ignore[operator]
        return loss


def build_backbone(backbone: Backbone | str | Mapping[str, Any]) -> Backbone:
    """Returns a backbone from itself, its name, or the arguments of `create_backbone`.

    Args:
        backbone: One of the three.

    Raises:
        ConfigError: If a mapping has no `name`.
    """
    if isinstance(backbone, Backbone):
        return backbone
    if isinstance(backbone, str):
        return create_backbone(backbone, pretrained=True)
    if "name" not in backbone:
        close = nearest("name", backbone, 1)
        hint = f"; did you mean it by {close[0]!r}?" if close else ""
        raise ConfigError(f"the backbone's settings {dict(backbone)} lack 'name'{hint}")
    return create_backbone(**backbone)


def check_types(what: str, function: Callable[..., Any], settings: Mapping[str, Any]) -> None:
    """Checks settings that came as a mapping against the plain types that a function declares for them.

    Args:
        what: What the settings are of, as messages say it, such as `"plug-in 'lora'"`.
        function: What will be called with them; settings that it does not know are left to it.
        settings: The settings.

    Raises:
        ConfigError: If a number, a truth value or a text is expected and something else is given.
    """
    hints = get_type_hints(function)
    for name, value in settings.items():
        wanted = get_args(hints.get(name)) or (hints.get(name),)
        if not set(wanted) <= {bool, int, float, str, type(None)}:
            continue
        fits = isinstance(value, wanted) or (float in wanted and isinstance(value, int))
        if not fits or (isinstance(value, bool) and bool not in wanted):
            kinds = " or ".join(kind.__name__ for kind in wanted if kind is not type(None))
            raise ConfigError(f"{name!r} of {what}: expected {kinds}, got {value!r}")


def _settings(optimizers: Iterable[Optimizer]) -> dict[str, Any]:
    """Returns the plain settings that the optimiser was made with, whatever state it has loaded since."""
    return {
        key: value
        for optimizer in optimizers
        for key, value in optimizer.defaults.items()
        if isinstance(value, (bool, int, float, str, tuple, type(None)))
    }


def warmup_cosine(steps: int, warmup: float) -> Callable[[int], float]:
    """Returns the factor of the learning rate by step: a linear rise, then half a cosine down to zero.

    Args:
        steps: Number of steps in all.
        warmup: Share of them over which the factor rises.
    """
    rise = round(steps * warmup)

    def factor(step: int) -> float:
        if step < rise:
            return (step + 1) / rise
        progress = (step - rise) / max(1, steps - rise)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor


@torch.no_grad()
def collect_features(
    compute: Callable[[Tensor], Tensor], batches: Iterable[Mapping[str, Any]], limit: int | None = None
) -> tuple[Tensor, Tensor]:
    """Runs a model over batches.

    Args:
        compute: From images `(N, 3, H, W)` to features.
        batches: Batches of images and targets.
        limit: Stop once this many images were seen.

    Returns:
        Features and targets of all images.
    """
    features, targets, seen = [], [], 0
    for batch in batches:
        features.append(compute(batch["image"]))
        targets.append(batch["target"])
        seen += len(targets[-1])
        if limit is not None and seen >= limit:
            break
    return torch.cat(features), torch.cat(targets)
