"""What midstream and downstream training share: optimisation, metrics, and checkpoints of what is trained alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args, get_type_hints

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from vimlight.backbone import Backbone, Features, Preprocessing, build_backbone
from vimlight.backbone.readout import MAPS
from vimlight.backbone.recomputing import computed_again
from vimlight.backbone.weights import why_other
from vimlight.data import ImageDataModule
from vimlight.errors import CheckpointError, ConfigError, FingerprintError, shown
from vimlight.files.checkpoint_facts import made_of, stated, stated_names
from vimlight.prefix_cache import FrozenPart, PrefixCache
from vimlight.tasks import TASKS, Examples, Task, create_task
from vimlight.tasks.scoring import ScoredModule, gather
from vimlight.trainable import check_class_names

__all__ = ["SupervisedModule", "build_task", "check_types", "collect_features"]

Compute = Callable[[Tensor], Features]


class SupervisedModule(ScoredModule):
    """Trains some modules over a frozen backbone on a labelled task; a subclass says which and how.

    Args:
        backbone: The backbone, its name, or the arguments of `create_backbone`.
        task: Kind of task, or that as `kind` together with settings of the task; what the data are made for if left
            out.
        kind: Kind of task that the data are made for; the command line takes it from the data.
        class_names: Names of the classes; the command line takes them from the data.
        prefix_cache: Arguments of `PrefixCache`, to compute what comes before the first plug-in once for each image.
        memory: How much a step keeps for its backward pass: `"plain"`, `"light"` or `"lean"`; the less, the longer it
            takes, for the same gradients. See `Backbone.recomputing`.
        **optimisation: Optimiser and schedule; see `TrainableModule`.

    Attributes:
        backbone: The frozen backbone.
        task: The task.
        prepared: How the images were prepared that it learnt from; nothing before it has learnt.
        background: Colour that transparent pixels lay over in these images, as CSS names it.
    """

    def __init__(
        self,
        backbone: str | dict[str, Any] | Backbone,
        *,
        task: str | dict[str, Any] | None = None,
        kind: str = "classification",
        class_names: Sequence[str] = (),
        prefix_cache: dict[str, Any] | None = None,
        memory: str = "plain",
        **optimisation: Any,
    ) -> None:
        super().__init__(**optimisation)
        computed_again(memory)
        self.memory = memory
        check_types("prefix_cache", PrefixCache.__init__, prefix_cache or {})
        self.prefix_cache = None if prefix_cache is None else PrefixCache.of(prefix_cache)
        self.backbone = build_backbone(backbone)
        self.task = build_task(task, kind, class_names)
        self.measure(self.task, ("train", "val", "test"))
        self.prepared: Preprocessing | None = None
        self.background: str | None = None
        self.gathered = nn.ModuleDict({f"{split}_": _gathering(self.task) for split in ("val", "test")})

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are prepared for it: as those that it learnt from, else as its backbone wants it."""
        return self.prepared or self.backbone.preprocessing

    def forward(self, images: Tensor) -> Any:
        """Returns the head's outputs for images `(N, 3, H, W)`, such as logits `(N, C)`."""
        raise NotImplementedError(f"{type(self).__name__} defines no forward")

    def gathering(self, split: str) -> dict[str, Metric]:
        """Returns what is gathered of a split beside its scores, by the names of the task's methods."""
        key = f"{split}_"
        return dict(self.gathered[key].items()) if key in self.gathered else {}  # type: ignore[operator]

    def frozen_part(self) -> FrozenPart:
        """Returns what of the model stays as it is while it is trained, for the prefix cache."""
        raise NotImplementedError(f"{type(self).__name__} defines no frozen_part")

    def penalty(self) -> Tensor | float:
        """Returns what is added to the loss."""
        return 0.0

    def prepare_fit(self) -> None:
        """Decides before optimisers are built what of the model depends on the training images; by default nothing."""

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
            The ids, the predictions as the task makes them (such as probabilities `(N, C)`), the same in words, and the
            sizes of the images before they became the input, `(N, 2)`; of the input, if the batch does not say. Of a
            spare batch, nothing.
        """
        images = batch["image"]
        predictions = self.task.predictions(self(images), _size(images))
        if batch.get("spare"):
            return {"id": [], "prediction": predictions[:0], "label": [], "size": torch.zeros(0, 2)}
        sizes = batch.get("size", torch.tensor([_size(images)] * len(images)))
        return {"id": batch["id"], "prediction": predictions, "label": self.task.labels(predictions), "size": sizes}

    def setup(self, stage: str) -> None:
        """Shows the task all training targets, and lets the data use the prefix cache.

        Raises:
            ConfigError: If there are several processes and nothing takes gradient steps, the data are made for another
                layout of targets, or they do not go with the prefix cache.
        """
        super().setup(stage)
        tables = getattr(getattr(self.trainer, "datamodule", None), "tables", None)
        if tables is not None:
            self.task.prepare(tables["train"].targets)
        if stage == "fit":
            self.prepare_fit()
        if stage == "fit" and self.trainer.world_size > 1 and not self.trainable_parameters():
            raise ConfigError("nothing here takes gradient steps: several processes are no use; set trainer.devices: 1")
        if self.prefix_cache is not None:
            self.prefix_cache.serve(self)
        elif isinstance(data := getattr(self.trainer, "datamodule", None), ImageDataModule):
            data.keeper = None  # that of another model, if any

    def on_fit_start(self) -> None:
        """Notes how the images are prepared that it learns from."""
        super().on_fit_start()
        if (found := self._data_preprocessing()) is not None:
            self.prepared, self.background = found, self.trainer.datamodule.background  # type: ignore[attr-defined]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what the weights depend on: backbone, preprocessing, task and classes."""
        super().on_save_checkpoint(checkpoint)
        if self.prepared is not None:
            checkpoint["vimlight"]["preprocessing"] = self.prepared.as_dict()
            checkpoint["vimlight"]["background"] = self.background
        checkpoint["vimlight"]["fingerprint"] = self.backbone.fingerprint
        checkpoint["vimlight"]["task"] = self.task.kind
        checkpoint["vimlight"]["class_names"] = list(self.task.class_names)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks that the checkpoint belongs to this backbone and these classes.

        Raises:
            FingerprintError: If it was trained on another backbone.
            CheckpointError: If it is none of vimlight's, its classes are others, or an entry makes no sense.
        """
        super().on_load_checkpoint(checkpoint)
        fingerprint = stated(checkpoint, "fingerprint", str)
        if fingerprint != self.backbone.fingerprint:
            raise FingerprintError(
                f"the checkpoint was trained on the backbone with fingerprint {fingerprint[:12]}..., but "
                f"{self.backbone.name!r} has {self.backbone.fingerprint[:12]}..."
                + why_other(fingerprint, self.backbone.model, self.backbone.preprocessing)
            )
        kind = stated(checkpoint, "task", str, self.task.kind)
        if kind != self.task.kind:
            raise CheckpointError(f"the checkpoint is of the task {shown(kind)}, the model's is {self.task.kind!r}")
        check_class_names(stated_names(checkpoint, "class_names"), self.task.class_names)
        prepared = stated(checkpoint, "preprocessing", dict, None)
        if prepared is not None:
            self.prepared = made_of(Preprocessing.from_dict, "preprocessing", prepared)
            self.background = stated(checkpoint, "background", str | None, None)

    def on_train_epoch_end(self) -> None:
        """Logs the training scores; of several processes, images that were repeated count as often as they were."""
        self.log_scores("train")

    def reset_scores(self, split: str) -> None:
        """Forgets what was gathered of a split, with its confusion matrix and reliability."""
        super().reset_scores(split)
        for metric in self.gathering(split).values():
            metric.reset()

    def on_validation_start(self) -> None:
        """Warns of images that are prepared otherwise than those that it learnt from."""
        self._check_preprocessing()

    def on_test_start(self) -> None:
        """Warns of images that are prepared otherwise than those that it learnt from."""
        self._check_preprocessing()

    def on_predict_start(self) -> None:
        """Warns of images that are prepared otherwise than those that it learnt from.

        Raises:
            ConfigError: If predictions lie in images, and the input is not all of an image and nothing else.
        """
        self._check_preprocessing()
        now = self._data_preprocessing()
        if now is not None and self.task.layout.spatial and (now.crop_mode, now.crop_pct) != ("squash", 1.0):
            raise ConfigError(
                f"predictions of a {self.task.kind} task are written for whole images, but these are prepared with "
                f"crop_mode {now.crop_mode} and crop_pct {now.crop_pct:g}; set resize: squash in the data's settings"
            )

    def _data_preprocessing(self) -> Preprocessing | None:
        """Returns how the trainer's data prepare images, where they say so in the backbone's terms."""
        data = getattr(self.trainer, "datamodule", None)
        found = data.preprocessing if isinstance(data, ImageDataModule) else None
        return found if isinstance(found, Preprocessing) else None

    def _check_preprocessing(self) -> None:
        now = self._data_preprocessing()
        if now is None or self.prepared is None:
            return
        if now != self.prepared:
            rank_zero_warn(
                "the images are prepared otherwise than those that the model learnt from: "
                f"{now.differences(self.prepared)}; leave image_size and resize out of the data's settings to prepare "
                "them alike"
            )
        over = self.trainer.datamodule.background  # type: ignore[attr-defined]
        if self.background not in (None, over):
            rank_zero_warn(
                f"transparent pixels lie over {over}, but over {self.background} in the images that the model learnt "
                f"from; set background: {self.background!r} in the data's settings"
            )

    def _shared_step(self, split: str, batch: Mapping[str, Any]) -> Tensor:
        images, targets = batch["image"], batch["target"]
        with self.backbone.recomputing(self.memory):
            outputs = self(images)
        loss = self.task.loss(outputs, targets)
        training = split == "train"
        if training:
            self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=len(images))
        if not training or self.task.measure_training:
            with torch.no_grad():
                predictions = self.task.predictions(outputs, _size(images))
            self.score(split, batch, predictions, targets, None if training else loss)
            count = 0 if batch.get("spare") else len(targets)
            gather(self.gathering(split).values(), predictions[:count], targets[:count])
        return loss


def _gathering(task: Task) -> nn.ModuleDict:
    found = {name: getattr(task, name)() for name in ("confusion", "reliability", "precision_recall")}
    return nn.ModuleDict({name: metric for name, metric in found.items() if metric is not None})


def _size(images: Tensor) -> tuple[int, int]:
    return images.shape[-2], images.shape[-1]


def build_task(task: str | Mapping[str, Any] | None, kind: str, class_names: Sequence[str]) -> Task:
    """Returns the task to be trained.

    Args:
        task: Kind of task, or that as `kind` together with settings; the kind of the data if there is none among them.
        kind: Kind of task that the data are made for.
        class_names: Names of the classes.

    Raises:
        UnknownNameError: If there is no such task or setting.
        ConfigError: If the task needs other targets than the data have, or a setting is of the wrong type.
    """
    settings = {"kind": task} if isinstance(task, str) else dict(task or {})
    chosen = settings.setdefault("kind", kind)
    needed, given = TASKS[chosen].layout.name, TASKS[kind].layout.name
    if needed != given:
        raise ConfigError(f"task {chosen!r} learns from {needed}, but the targets of the data ({kind}) are {given}")
    check_types(f"task {chosen!r}", TASKS[chosen].__init__, {k: v for k, v in settings.items() if k != "kind"})
    return create_task(settings, class_names)


def choose_readout(task: Task, readout: str | None, usual: str) -> str:
    """Returns what a head reads.

    Args:
        task: The task.
        readout: What was asked for, if anything.
        usual: What heads of vectors read unless something else is asked for.

    Raises:
        ConfigError: If the task's head reads maps and the readout gives vectors, or the other way round.
    """
    if readout is None:
        return MAPS if task.reads == "maps" else usual
    if (readout.partition(":")[0] == MAPS) != (task.reads == "maps"):
        fitting = "'maps'" if task.reads == "maps" else "'last', 'layers' or 'grid'"
        raise ConfigError(f"the head of a {task.kind} task cannot read {readout!r}; leave readout out or set {fitting}")
    return readout


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
            raise ConfigError(f"{name!r} of {what}: expected {kinds}, got {shown(value)}")


@torch.no_grad()
def collect_features(
    compute: Compute, batches: Iterable[Mapping[str, Any]], limit: int | None = None
) -> tuple[Features, Any]:
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
    return _joined(features), _joined(targets)


def _joined(parts: Sequence[Any]) -> Any:
    """Joins batches of vectors, of lists of maps (level by level) or of lists with one entry an image."""
    if isinstance(parts[0], Tensor):
        return torch.cat(list(parts))
    if parts[0] and isinstance(parts[0][0], Tensor) and parts[0][0].dim() == 4:
        return [torch.cat(level) for level in zip(*parts, strict=True)]
    return [entry for part in parts for entry in part]


@torch.no_grad()
def collect_examples(compute: Compute, batches: Iterable[Mapping[str, Any]], task: Task, images: int) -> Examples:
    """Runs a model over batches and keeps what a head in closed form is fitted to.

    Args:
        compute: From images `(N, 3, H, W)` to features.
        batches: Batches of images and targets.
        task: The task.
        images: Stop once this many images were seen.
    """
    found, seen = [], 0
    for batch in batches:
        vectors, columns, numbers = examples_of(task, compute(batch["image"]), batch["target"], images)
        found.append(Examples(vectors, columns, numbers + seen))
        seen += len(batch["image"])
        if seen >= images:
            break
    return Examples(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def examples_of(task: Task, features: Features, targets: Any, images: int) -> Examples:
    """Returns the examples of a batch; of features of K streams, vectors `(M, K, D)`."""
    first = features if isinstance(features, Tensor) else features[0]
    streams = first.dim() in (3, 5)
    if not streams:
        return task.examples(features, targets, images)
    levels = [features] if isinstance(features, Tensor) else features
    apart = zip(*(level.unbind(dim=1) for level in levels), strict=True)
    found = [task.examples(x[0] if isinstance(features, Tensor) else list(x), targets, images) for x in apart]
    return found[0]._replace(vectors=torch.stack([examples.vectors for examples in found], dim=1))
