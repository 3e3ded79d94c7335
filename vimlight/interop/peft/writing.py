"""From a `lora` module of a zoo to an adapter of PEFT's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vimlight.atomic import publish_directory, temporary_directory
from vimlight.errors import CheckpointError
from vimlight.interop.base import Fact
from vimlight.interop.peft.config import CONFIG, WEIGHTS
from vimlight.interop.peft.factors import CARD, Factors, join
from vimlight.zoo import Card, Zoo

__all__ = ["write"]


def write(zoo: Zoo, name: str, to: Path) -> list[Fact]:
    """Writes a module as an adapter that PEFT loads onto the same timm model; the folder appears whole or not at all.

    Args:
        zoo: The zoo.
        name: The module.
        to: A new folder.

    Returns:
        What was written.

    Raises:
        ZooError: If there is no such module or its file is damaged.
        CheckpointError: If the module is no `lora`, or something is at `to` already.
    """
    card, tensors = zoo.read(name)
    if card.kind != "lora":
        raise CheckpointError(f"module {name!r} is a {card.kind}; PEFT's LoRA adapters hold lora modules only")
    if to.exists():
        raise CheckpointError(f"{str(to)!r} exists; an adapter is written to a new folder")
    layers = join(card.sites, tensors)
    content = {
        f"base_model.model.{layer}.lora_{letter}.weight": tensor.contiguous()
        for layer, factors in layers.items()
        for letter, tensor in zip("AB", factors, strict=True)
    }
    try:
        with temporary_directory(to) as copy:
            (copy / CONFIG).write_text(json.dumps(_config(card, layers), indent=2) + "\n", encoding="utf-8")
            (copy / WEIGHTS).write_bytes(save(content, {"format": "pt", CARD: card.to_json()}))
            publish_directory(copy, to, overwrite=False)
    except OSError as error:
        raise CheckpointError(f"{str(to)!r} cannot be written: {error.strerror or error}") from error
    head = "; its head stays in the zoo" if card.head else ""
    return [Fact("adapter", f"lora of {len(layers)} layers for {card.backbone!r}{head}", to)]


def _config(card: Card, layers: dict[str, Factors]) -> dict[str, Any]:
    rank, alpha = card.settings["rank"], card.settings["alpha"]
    parts = {layer: factors.down.shape[0] // rank for layer, factors in layers.items()}
    common = Counter(parts.values()).most_common(1)[0][0]
    numerator = rank if alpha is None else alpha
    others = {layer: count for layer, count in parts.items() if count != common}
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": card.backbone,
        "inference_mode": True,
        "r": rank * common,
        "lora_alpha": _plain(numerator * common),
        "rank_pattern": {layer: rank * count for layer, count in others.items()},
        "alpha_pattern": {layer: _plain(numerator * count) for layer, count in others.items()},
        "target_modules": list(layers),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _plain(alpha: float) -> float:
    """Returns a whole number as such, which is what PEFT declares."""
    return int(alpha) if float(alpha).is_integer() else float(alpha)
