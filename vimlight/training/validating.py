"""How well a module of a zoo does with its own head on the data that it learnt from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor

from vimlight.backbone import Backbone
from vimlight.data import ImageDataModule
from vimlight.errors import ZooError, shown
from vimlight.files.outline import check_shapes
from vimlight.plugins import Plugin
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Card

__all__ = ["belongs_to", "validated"]


def belongs_to(card: Card, data: ImageDataModule) -> bool:
    """Tells whether data are those that a module learnt from, by name, kind of task and classes."""
    return (card.dataset, card.task, list(card.classes)) == (data.source.name, data.kind, data.class_names)


def validated(
    plugin: Plugin, head: Mapping[str, Tensor], card: Card, backbone: Backbone, data: ImageDataModule
) -> dict[str, float]:
    """Returns the metrics of a module on validation images.

    Args:
        plugin: The module, or one to put in its place.
        head: Tensors of the module's head, by name.
        card: The module's card.
        backbone: The backbone.
        data: The data that it learnt from.

    Raises:
        ZooError: If the head is not what the task makes by its default settings, which the card does not say.
    """
    readout = card.training.get("readout")
    model = MidstreamModule(
        backbone, {"kind": plugin.kind, **plugin.settings}, kind=data.kind, class_names=data.class_names,
        readout=readout if isinstance(readout, str) else None,
    )  # fmt: skip
    model.plugin = plugin
    expected = model.head.state_dict()
    if expected.keys() != head.keys():
        raise ZooError(f"the head has {shown(sorted(head))}, where a {card.task} task has {shown(sorted(expected))}")
    check_shapes(head, expected, "the head", ZooError)
    model.head.load_state_dict(dict(head))
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(accelerator="cpu", devices=1, enable_model_summary=False, **quiet)
    found = trainer.validate(model, datamodule=data, verbose=False)[0]
    return {name.removeprefix("val/"): value for name, value in found.items()}
