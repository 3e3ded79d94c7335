"""What every training shares: optimiser and schedule, and checkpoints of what is trained alone."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from vimlight.divergence import DivergenceWatch, kept_checkpoint, last_checkpoint
from vimlight.errors import CheckpointError, ConfigError, TrainingError, VimlightError, nearest, shown, unknown_name
from vimlight.files.checkpoint_facts import CHECKPOINT_VERSION, check_format, stated, tensors_in
from vimlight.files.checkpoint_files import load_checkpoint_file
from vimlight.files.finite import check_finite
from vimlight.random_states import random_states, restore_random_states

__all__ = [
    "OptimizerFactory",
    "SchedulerFactory",
    "TrainableModule",
    "check_class_names",
    "check_precision",
    "read_checkpoint",
    "warmup_cosine",
    "weights_stay",
]

OptimizerFactory = Callable[[Iterable[nn.Parameter]], Optimizer]
SchedulerFactory = Callable[[Optimizer], LRScheduler]
_INTERVALS = ("epoch", "step")
_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


class TrainableModule(pl.LightningModule):
    """A module of which some parts are trained; a subclass says which and how.

    Args:
        optimizer: From parameters to an optimiser; AdamW with a learning rate of 1e-3 if left out.
        lr_scheduler: From the optimiser to a schedule; a warm-up and a cosine by steps if left out.
        lr_interval: Whether that schedule goes by `"epoch"` or by `"step"`.
        warmup: Share of the steps over which the learning rate of the default schedule rises.
        compile: Whether the forward pass is compiled with `torch.compile`.

    Attributes:
        trained: Whether there is something to test: a finished training or a checkpoint's weights.
    """

    strict_loading = True
    # The metric that a schedule by plateaus looks at.
    monitor: ClassVar[str] = "val/loss"

    def __init__(
        self,
        *,
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
        self.warmup = warmup
        self._make_optimizer = optimizer if optimizer is not None else partial(AdamW, lr=1e-3)
        self._make_scheduler = lr_scheduler
        self._lr_interval = lr_interval
        self._saved_settings: dict[str, Any] = {}
        self._saved_random: list[dict[str, Tensor]] = []
        self._saved_data = ""
        self.trained = False
        self._watch = DivergenceWatch()
        if compile:
            self.compile()

    def setup(self, stage: str) -> None:
        """Checks the precision; see `check_precision`."""
        check_precision(self.trainer)

    @abstractmethod
    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns what is optimised, saved and restored, by the attribute's name."""

    def check_storable(self) -> None:
        """Checks before anything is written that what the training makes can be stored; without a need to, nothing."""

    def check_data(self, data: pl.LightningDataModule | None) -> None:
        """Checks before anything is written that data bring what is learnt from; without a need to, nothing.

        Args:
            data: The data module, if there is one.
        """

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Builds the optimiser over what is declared trainable, and its schedule.

        Raises:
            ConfigError: If the default schedule has no end.
        """
        parameters = self.trainable_parameters()
        if not parameters:
            return None
        optimizer = self._make_optimizer(parameters)
        if self._make_scheduler is not None:
            chosen: LRSchedulerConfigType = {
                "scheduler": self._make_scheduler(optimizer),
                "interval": self._lr_interval,
                "monitor": self.monitor,
            }
            return {"optimizer": optimizer, "lr_scheduler": chosen}
        steps = self.trainer.estimated_stepping_batches
        if math.isinf(steps):
            raise ConfigError(
                "the default schedule needs an end: set max_epochs or max_steps, or choose an lr_scheduler"
            )
        schedule = LambdaLR(optimizer, warmup_cosine(int(steps), self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def trainable_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of what is declared trainable, less those that are frozen."""
        return [p for module in self.trainable_modules().values() for p in module.parameters() if p.requires_grad]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Notes which samples are learnt from."""
        self._watch.saw_batch(batch)

    def on_before_backward(self, loss: Tensor) -> None:
        """Notes the loss."""
        self._watch.saw_loss(loss)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Stops a training that diverges before its weights are spoilt.

        Raises:
            TrainingError: If the loss or a gradient is not finite; the text gives the step and the samples.
        """
        # A scaler of losses passes over steps whose gradients are not finite.
        scaled = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        gradients = [] if scaled else [p.grad for p in self.trainable_parameters() if p.grad is not None]
        self._watch.check_step(self, gradients)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Returns the state of what is trainable alone."""
        names = tuple(f"{name}." for name in self.trainable_modules())
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if key.startswith(names)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Restores what is trainable; names and shapes must match exactly.

        Raises:
            CheckpointError: If they do not, or a number is not finite.
        """
        own, state_dict = self.state_dict(), tensors_in(state_dict, "state_dict")
        missing, extra = sorted(set(own) - set(state_dict)), sorted(set(state_dict) - set(own))
        if missing or extra:
            close = nearest(missing[0], extra, 1) if missing and extra else []
            raise CheckpointError(
                f"the checkpoint does not fit this {type(self).__name__}: "
                f"it lacks {shown(missing[:3]) if missing else 'nothing'} "
                f"and has {shown(extra[:3]) if extra else 'nothing'} besides"
                + (f"; nearest to {shown(missing[0])}: {shown(close[0])}" if close else "")
            )
        for key, value in state_dict.items():
            if value.shape != own[key].shape:
                shapes = f"{tuple(value.shape)} in the checkpoint, {tuple(own[key].shape)} here"
                raise CheckpointError(f"tensor {key!r} has the shape {shapes}; were the classes or settings changed?")
            if value.is_floating_point() != own[key].is_floating_point():
                raise CheckpointError(f"tensor {key!r} holds {value.dtype} in the checkpoint, {own[key].dtype} here")
        check_finite(state_dict, "the checkpoint", CheckpointError)
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        self.trained = True
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the optimiser's settings; a subclass adds what else the weights depend on.

        Raises:
            TrainingError: If a weight is no longer finite, before a good checkpoint is replaced.
        """
        self._check_weights()
        checkpoint["vimlight"] = {
            "format_version": CHECKPOINT_VERSION,
            "optimizer": _settings(self.trainer.optimizers),
            "random": random_states(self.device),
        }
        if learnt_from := _learnt_from(self.trainer):
            checkpoint["vimlight"]["learnt_from"] = learnt_from

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up the optimiser's settings.

        Raises:
            CheckpointError: If the checkpoint is none of vimlight's, of a newer one, or an entry makes no sense.
        """
        check_format(checkpoint)
        self._saved_settings = stated(checkpoint, "optimizer", dict, {})
        self._saved_random = stated(checkpoint, "random", list, [])
        self._saved_data = stated(checkpoint, "learnt_from", str, "")

    def on_fit_start(self) -> None:
        """Warns of a run that is resumed on other data."""
        now, then = _learnt_from(self.trainer), self._saved_data
        if self.trainer.ckpt_path is not None and now and then and now != then:
            rank_zero_warn(f"the checkpoint learnt from {shown(then)}, and the run goes on with {shown(now)}")

    def on_train_start(self) -> None:
        """Lets the optimiser's settings win over those that came with its state from a checkpoint.

        Where a run is resumed, what it draws, such as dropout, goes on where it stopped.
        """
        if self.trainer.ckpt_path is not None:
            restore_random_states(self._saved_random, self.device)
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

    def on_fit_end(self) -> None:
        """Remembers that there is something to test.

        Raises:
            TrainingError: If a weight is no longer finite.
        """
        self._check_weights()
        self.trained = True

    def _check_weights(self) -> None:
        try:
            check_finite(self.state_dict(), "the training diverged", TrainingError)
        except TrainingError as error:
            raise TrainingError(f"{error}\n{kept_checkpoint(self.trainer)}") from None


def _learnt_from(trainer: pl.Trainer) -> str:
    """Says what a trainer's data are, where they tell."""
    return str(getattr(getattr(trainer, "datamodule", None), "learnt_from", ""))


def check_precision(trainer: pl.Trainer) -> None:
    """Checks that weights are of single precision, in which images come, heads are solved and files are written.

    Args:
        trainer: The trainer.

    Raises:
        ConfigError: If they are to be of another.
    """
    precision = str(trainer.precision)
    if precision not in _PRECISIONS:
        raise ConfigError(
            f"precision {precision} changes the weights themselves, but images, heads in closed form and files are of "
            f"32 bits; choose one of {', '.join(_PRECISIONS)}"
        )


@contextmanager
def weights_stay(trainer: pl.Trainer, option: str) -> Iterator[None]:
    """Says where trained weights are, if what the block makes of them cannot be stored.

    Args:
        trainer: The trainer that trained them.
        option: What names another place for them on the command line.

    Raises:
        VimlightError: What left the block, with a second line.
    """
    try:
        yield
    except VimlightError as error:
        path = last_checkpoint(trainer)
        stay = f"the trained weights are in {path!r}: --ckpt_path with another {option} stores them, without training"
        raise type(error)(f"{error}\n{stay if path else 'no checkpoint was kept'}") from error


def check_class_names(found: Sequence[str], expected: Sequence[str]) -> None:
    """Checks the classes of a checkpoint.

    Args:
        found: Those that the checkpoint knows.
        expected: Those of the data.

    Raises:
        CheckpointError: If they differ.
    """
    if list(found) == list(expected):
        return
    if sorted(found) == sorted(expected):
        place = next(place for place, names in enumerate(zip(found, expected, strict=True)) if names[0] != names[1])
        raise CheckpointError(
            f"the checkpoint has the classes in another order than the data: class {place} is {shown(found[place])} "
            f"there and {shown(expected[place])} here; give the data its order, "
            f"data.dataset_args.classes: {_listed(found)}"
        )
    raise CheckpointError(f"the checkpoint knows the classes {_listed(found)}, the data has {_listed(expected)}")


def _listed(names: Sequence[str]) -> str:
    return "[" + ", ".join(map(shown, names[:20])) + (", ...]" if len(names) > 20 else "]")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Reads a checkpoint that this package wrote; what it says about itself stands under `"vimlight"`.

    Args:
        path: The file.

    Raises:
        CheckpointError: If it does not exist, was altered, cannot be read without running code, is none of
            vimlight's, or of a newer one.
    """
    file, name = Path(path), str(path)
    if file.is_dir():
        inside = max(file.rglob("*.ckpt"), key=lambda found: found.stat().st_mtime, default=None)
        hint = f"; did you mean {str(inside)!r}?" if inside else ""
        raise CheckpointError(f"checkpoint {name!r} is a directory, not a file{hint}")
    if not file.is_file():
        close = nearest(file.name, [each.name for each in file.parent.glob("*") if _may_be(each)], 1)
        raise CheckpointError(
            f"checkpoint {name!r} does not exist" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    checkpoint: dict[str, Any] = load_checkpoint_file(file)
    about = checkpoint.get("vimlight") if isinstance(checkpoint, dict) else None
    if not isinstance(about, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise CheckpointError(f"checkpoint {name!r} was not written by vimlight; it does not say what it belongs to")
    check_format(checkpoint, f"checkpoint {name!r}")
    return checkpoint


def _may_be(path: Path) -> bool:
    """Tells whether a path names a checkpoint, or a directory that holds one."""
    return path.is_file() or next(path.rglob("*.ckpt"), None) is not None


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


def _settings(optimizers: Iterable[Optimizer]) -> dict[str, Any]:
    """Returns the plain settings that the optimiser was made with, whatever state it has loaded since."""
    return {
        key: value
        for optimizer in optimizers
        for key, value in optimizer.defaults.items()
        if isinstance(value, (bool, int, float, str, tuple, type(None)))
    }
