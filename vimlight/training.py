"""What midstream and downstream training share: optimisation, metrics, and checkpoints of what is trained alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from torch import Tensor, nn

from vimlight.backbone import Backbone, create_backbone
from vimlight.errors import ConfigError, FingerprintError, nearest
from vimlight.tasks import create_task
from vimlight.trainable import TrainableModule, check_class_names

__all__ = ["SupervisedModule", "build_backbone", "check_types", "collect_features"]


class SupervisedModule(TrainableModule):
    """Trains some modules over a frozen backbone on a labelled task; a subclass says which and how.

    Args:
        backbone: The backbone, its name, or the arguments of `create_backbone`.
        kind: Kind of task; the command line takes it from the data.
        class_names: Names of the classes; the command line takes them from the data.
        **optimisation: Optimiser and schedule; see `TrainableModule`.

    Attributes:
        backbone: The frozen backbone.
        task: The task.
    """

    def __init__(
        self,
        backbone: str | dict[str, Any] | Backbone,
        *,
        kind: str = "classification",
        class_names: Sequence[str] = (),
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        self.backbone = build_backbone(backbone)
        self.task = create_task(kind, class_names)
        metrics = self.task.metrics()
        self.metrics = nn.ModuleDict(
            {f"{split}_": metrics.clone(prefix=f"{split}/") for split in ("train", "val", "test")}
        )
        self.confusion = nn.ModuleDict({f"{split}_": self.task.confusion() for split in ("val", "test")})

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
        if stage == "fit" and self.trainer.world_size > 1 and not self.trainable_parameters():
            raise ConfigError("nothing here takes gradient steps: several processes are no use; set trainer.devices: 1")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights depend on: backbone and classes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["vimlight"]["fingerprint"] = self.backbone.fingerprint
        checkpoint["vimlight"]["class_names"] = list(self.task.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint belongs to this backbone and these classes.

        Raises:
            FingerprintError: If it was trained on another backbone.
            CheckpointError: If it is none of vimlight's or its classes are others.
        """
        super().on_load_checkpoint(checkpoint)
        about = checkpoint["vimlight"]
        if about.get("fingerprint") != self.backbone.fingerprint:
            raise FingerprintError(
                f"the checkpoint was trained on the backbone with fingerprint {about.get('fingerprint', 'none')[:12]}"
                f"..., but {self.backbone.name!r} has {self.backbone.fingerprint[:12]}..."
            )
        check_class_names(about["class_names"], self.task.class_names)

    def on_validation_epoch_start(self) -> None:
        """Starts a new confusion matrix."""
        self.confusion["val_"].reset()  # type: ignore[operator]

    def on_test_epoch_start(self) -> None:
        """Starts a new confusion matrix."""
        self.confusion["test_"].reset()  # type: ignore[operator]

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
