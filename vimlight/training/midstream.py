"""Midstream: one plug-in module is trained alone over the frozen backbone and goes into the zoo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from vimlight.backbone import Backbone, Features
from vimlight.errors import ConfigError, shown
from vimlight.files.atomic import check_writable
from vimlight.plugins import PLUGINS, Plugin, attach, create_plugin
from vimlight.prefix_cache import FrozenPart
from vimlight.trainable import weights_stay
from vimlight.training.base import SupervisedModule, check_types, choose_readout, collect_features
from vimlight.zoo import Zoo
from vimlight.zoo.card import describe

__all__ = ["MidstreamModule", "build_plugin"]

# Maps hold many positions an image, and much more memory.
_IMAGES_FOR_STATISTICS = {"vector": 512, "maps": 32}
# What replaces a module of the same name.
_WAY = "--model.overwrite true (overwrite=True)"


class MidstreamModule(SupervisedModule):
    """Trains a plug-in and the task's head on one data set; at the end of `fit` the module is in the zoo.

    Args:
        backbone: The backbone, its name, or the arguments of `create_backbone`.
        plugin: Name of a plug-in type, or its name as `kind` together with arguments of `create_plugin`.
        name: Name of the module in the zoo; without one the module is not stored.
        zoo: Directory of the zoo.
        overwrite: Whether a module of that name may be replaced.
        readout: What the head reads, `"last"`, `"layers"`, `"grid"` or `"maps"`; see `Backbone.forward`. By default
            `"maps"` for tasks of maps, `"last"` for others: a head that reads the last feature alone leaves most to
            the module, which is what the zoo wants.
        card: What is written on the module's card beyond what is known: `license`, `author`, `text`, `extra`.
        **training: Task, optimiser and schedule; see `SupervisedModule`.

    Raises:
        ConfigError: If the plug-in's settings do not name its type.
    """

    def __init__(
        self,
        backbone: str | dict[str, Any] | Backbone,
        plugin: str | dict[str, Any] = "convpass",
        *,
        name: str | None = None,
        zoo: str = "zoo",
        overwrite: bool = False,
        readout: str | None = None,
        card: dict[str, Any] | None = None,
        **training: Any,
    ) -> None:
        super().__init__(backbone, **training)
        self.plugin = build_plugin(plugin, self.backbone)
        self.readout = choose_readout(self.task, readout, "last")
        self.head = self.task.create_head(self.backbone.feature_shapes(self.readout))
        self.name = name
        self.zoo = Zoo(zoo)
        self.overwrite = overwrite
        self.card = dict(card or {})

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns the plug-in and the head."""
        return {"plugin": self.plugin, "head": self.head}

    def frozen_part(self) -> FrozenPart:
        """Returns the backbone up to the plug-in's first block."""
        return FrozenPart(self.backbone, self.readout, [self.plugin])

    def features(self, images: Tensor) -> Features:
        """Returns features, or maps, of images `(N, 3, H, W)` with the plug-in attached."""
        with attach(self.backbone, self.plugin):
            features: Features = self.backbone(images, self.readout)
        return features

    def forward(self, images: Tensor) -> Any:
        """Returns the head's outputs for images `(N, 3, H, W)`, such as logits `(N, C)`."""
        return self.head(self.features(images))

    def setup(self, stage: str) -> None:
        """Checks before the training what is needed after it; see `check_storable`."""
        super().setup(stage)
        if stage == "fit":
            self.check_storable()

    def check_storable(self) -> None:
        """Checks that the module can go into the zoo.

        Raises:
            ZooError: If a module of that name exists, the name is not allowed, or the card has an unknown key.
            ConfigError: If nothing can be written there.
        """
        if self.name is not None:
            self.zoo.check_new(self.name, self.overwrite, _WAY)
            check_writable(self.zoo.path)
            describe(self.plugin, self.card, sha256="", head="").to_json()

    def on_fit_start(self) -> None:
        """Starts the head, such as by standardising its inputs, on the first images, unless a checkpoint brings it."""
        super().on_fit_start()
        batches = getattr(self.trainer.datamodule, "batches", None)  # type: ignore[attr-defined]
        start: Any = getattr(self.head, "start", None)
        if self.trained or batches is None or start is None:
            return
        self.eval()
        limit = _IMAGES_FOR_STATISTICS[self.task.reads]
        # In the precision in which the module will be trained: what a prefix cache keeps is of that type.
        with self.trainer.precision_plugin.forward_context():
            found = collect_features(self.features, batches("train", self.device, limit), limit)
        self.train()
        start(*found)

    def on_fit_end(self) -> None:
        """Stores the module with its head in the zoo."""
        super().on_fit_end()
        if self.name is None or not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        card, head = self._card(), self.head.state_dict()
        with weights_stay(self.trainer, "--model.name"):
            self.zoo.add(self.name, self.plugin, card=card, head=head, overwrite=self.overwrite)
        rank_zero_info(f"module {self.name!r} is in the zoo {str(self.zoo.path)!r}")

    def _card(self) -> dict[str, Any]:
        trainer, data = self.trainer, getattr(self.trainer, "datamodule", None)
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
        by_split: dict[str, dict[str, float]] = {}
        for key, value in metrics.items():
            split, _, metric = key.partition("/")
            if split in ("train", "val") and not metric.endswith(("_step", "_epoch")) and math.isfinite(value):
                by_split.setdefault(split, {})[metric] = value
        optimizer = trainer.optimizers[0] if trainer.optimizers else None
        split_ids = getattr(data, "split_ids", None)
        training = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "optimizer": type(optimizer).__name__,
            "lr": optimizer.defaults.get("lr") if optimizer else None,
            "batch_size": getattr(data, "batch_size", None),
            "background": getattr(data, "background", None),
            "devices": trainer.world_size,
            "precision": str(trainer.precision),
            "readout": self.readout,
            "monitor": self.task.monitor,
            "preprocessing": self.preprocessing.as_dict(),
        }
        known = {
            "task": self.task.kind,
            "dataset": getattr(getattr(data, "source", None), "name", ""),
            "classes": list(self.task.class_names),
            "samples": {split: len(ids) for split, ids in split_ids().items()} if split_ids else {},
            "metrics": by_split,
            "seed": getattr(data, "seed", None),
            "training": {key: value for key, value in training.items() if value is not None},
        }
        return {**known, **self.card}


def build_plugin(plugin: str | Mapping[str, Any], backbone: Backbone) -> Plugin:
    """Returns a plug-in from the name of its type or from the arguments of `create_plugin`.

    Args:
        plugin: The name, or a mapping with the name as `kind`.
        backbone: The backbone.

    Raises:
        ConfigError: If a mapping has no `kind` or a setting is of the wrong type.
        UnknownNameError: If there is no such type or setting.
    """
    if isinstance(plugin, str):
        return create_plugin(plugin, backbone)
    if "kind" not in plugin:
        raise ConfigError(f"the plug-in's settings {shown(dict(plugin))} lack 'kind', the name of its type")
    settings = dict(plugin)
    kind = settings.pop("kind")
    check_types(f"plug-in {kind!r}", PLUGINS[kind].__init__, settings)
    return create_plugin(kind, backbone, **settings)
