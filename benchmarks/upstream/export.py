"""Writes a trained model as the package ships it: float16 tensors with a card in the header."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

__all__ = ["export"]

DATA = "Drawn scenes and capital letters with captions (vimlight.data.scenes); one composition in five held out."


def export(model: nn.Module, path: Path, name: str, recipe: dict[str, Any], reached: dict[str, Any]) -> None:
    """Writes the weights of a model of the pair.

    Args:
        model: The trained model.
        path: The file to write.
        name: The model's name.
        recipe: Settings of the training run.
        reached: Steps, minutes and zero-shot accuracies in percent.
    """
    card = {
        "name": name,
        "data": DATA,
        "recipe": recipe,
        "reached": reached,
        "license": "Apache-2.0",
        "versions": {package: version(package) for package in ("torch", "timm", "open_clip_torch", "numpy")},
    }
    tensors = {
        key: (value.half() if value.is_floating_point() else value).clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    save_file(tensors, path, metadata={"format": "pt", "card": json.dumps(card)})
