"""Tuning without a zoo, by what the field does otherwise: LoRA of `peft` on the task alone, and full fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from vimlight.backbone import Backbone
from vimlight.errors import ConfigError
from vimlight.training.downstream import DownstreamModule

__all__ = ["SETTINGS", "TunedAlone", "check_installed"]


def lora_alone(model: nn.Module, *, rank: int = 8, alpha: float = 16.0) -> nn.Module:
    """Puts LoRA of `peft` into every affine and convolutional layer of a model's blocks.

    Args:
        model: The model; it is changed.
        rank: Rank of the factors.
        alpha: The update is scaled by `alpha / rank`.
    """
    from peft import LoraConfig, inject_adapter_in_model

    layers = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
    ]
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=int(alpha), target_modules=layers, bias="none"), model)
    return model


def full_tuning(model: nn.Module) -> nn.Module:
    """Lets all weights of a model be trained; statistics of normalisation layers stay as they are.

    Args:
        model: The model.
    """
    return model


SETTINGS: dict[str, Callable[..., nn.Module]] = {"lora_alone": lora_alone, "full_tuning": full_tuning}


def check_installed(how: str) -> None:
    """Checks that a way to tune can be had here.

    Raises:
        ConfigError: If it needs `peft`, which is not installed.
    """
    if how == "lora_alone":
        try:
            import peft  # noqa: F401  (there or not)
        except ImportError as error:
            raise ConfigError("the method 'lora_alone' needs peft: pip install peft") from error


class TunedAlone(DownstreamModule):
    """The backbone itself, tuned on the task, under the same readout and head as every other method.

    It tunes a copy: the backbone that was given stays frozen.

    Args:
        backbone: The backbone.
        how: `"lora_alone"` or `"full_tuning"`.
        settings: Settings of it.
        **options: See `DownstreamModule`.
    """

    def __init__(self, backbone: Backbone, how: str, settings: dict[str, Any], **options: Any) -> None:
        self._how, self._tuning = how, dict(settings)
        super().__init__(backbone, aggregator="none", modules=[], **options)

    def build(self, names: Sequence[str]) -> None:
        """Copies the backbone, opens the copy for training and creates the head."""
        model = SETTINGS[self._how](copy.deepcopy(self.backbone.model), **self._tuning)
        learnt = [name for name, _ in model.named_parameters() if self._how == "full_tuning" or "lora_" in name]
        self.backbone = Backbone(model, self.backbone.name, self.backbone.preprocessing)
        parameters = dict(model.named_parameters())
        for name in learnt:
            parameters[name].requires_grad = True
        super().build(names)

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns the copy of the backbone, of which LoRA leaves most frozen, and the head."""
        return {"backbone": self.backbone, "head": self.head}
