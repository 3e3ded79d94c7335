"""Tuning without a zoo, by what the field does otherwise: LoRA of `peft` on the task alone, and full fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from vimlight.backbone import Backbone
from vimlight.errors import ConfigError
from vimlight.plugins.blocks import choose_blocks
from vimlight.prefix_cache import FrozenPart
from vimlight.training.downstream import DownstreamModule

__all__ = ["SETTINGS", "TunedAlone", "check_installed"]


def lora_alone(backbone: Backbone, *, rank: int = 8, alpha: float = 16.0, blocks: str = "all") -> int:
    """Puts LoRA of `peft` into the affine and convolutional layers of a backbone.

    Args:
        backbone: The backbone; it is changed.
        rank: Rank of the factors.
        alpha: The update is scaled by `alpha / rank`.
        blocks: `"all"` for all layers of the model, `"last:n"` or `"first:n"` for those of so many blocks.

    Returns:
        The first block that is changed; -1 if what lies outside the blocks is changed, too.
    """
    from peft import LoraConfig, inject_adapter_in_model

    chosen = sorted(choose_blocks(blocks, len(backbone.blocks)))
    within = tuple(f"{backbone.blocks[index].name}." for index in chosen) if blocks != "all" else ("",)
    layers = [
        name
        for name, layer in backbone.model.named_modules()
        if name.startswith(within)
        and (isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1))
    ]
    config = LoraConfig(r=rank, lora_alpha=int(alpha), target_modules=layers, bias="none")
    inject_adapter_in_model(config, backbone.model)
    return -1 if blocks == "all" else chosen[0]


def full_tuning(backbone: Backbone) -> int:
    """Lets all weights of a model be trained; statistics of normalisation layers stay as they are.

    Args:
        backbone: The backbone.

    Returns:
        -1: what comes before the first block is changed, too.
    """
    return -1


SETTINGS: dict[str, Callable[..., int]] = {"lora_alone": lora_alone, "full_tuning": full_tuning}


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
        given = self.backbone
        self.backbone = Backbone(copy.deepcopy(given.model), given.name, given.preprocessing)
        model, first = self.backbone.model, SETTINGS[self._how](self.backbone, **self._tuning)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = self._how == "full_tuning" or "lora_" in name
        # Until that block, the copy does what the backbone does that was given.
        self._frozen = FrozenPart(given, self.readout, tuned=first)
        super().build(names)

    def frozen_part(self) -> FrozenPart:
        """Returns the backbone that was given, up to the first block of the copy that is tuned."""
        return self._frozen

    def trainable_modules(self) -> dict[str, nn.Module]:
        """Returns the copy of the backbone, of which LoRA leaves most frozen, and the head."""
        return {"backbone": self.backbone, "head": self.head}
