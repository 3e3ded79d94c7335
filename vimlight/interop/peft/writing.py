"""From a `lora` module of a zoo to an adapter of PEFT's."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from safetensors.torch import save

from vimlight.backbone import Backbone, create_backbone
from vimlight.errors import CheckpointError
from vimlight.files.atomic import publish_directory, temporary_directory
from vimlight.interop.base import Fact
from vimlight.interop.peft.config import CONFIG, WEIGHTS
from vimlight.interop.peft.factors import CARD, Factors, join, layer_of
from vimlight.interop.peft.plain import check_changes, uncalled
from vimlight.zoo import Card, Zoo

__all__ = ["write"]


def write(zoo: Zoo, name: str, to: Path, backbone: Backbone | None = None) -> list[Fact]:
    """Writes a module as an adapter that PEFT loads onto the same timm model; the folder appears whole or not at all.

    Args:
        zoo: The zoo.
        name: The module.
        to: A new folder.
        backbone: A backbone of the module's architecture, whatever its weights; made by its name if left out.

    Returns:
        What was written.

    Raises:
        ZooError: If there is no such module or its file is damaged.
        CheckpointError: If the module is no `lora`, is of another architecture, would not do in PEFT what it does here,
            or something is at `to` already.
    """
    card, tensors = zoo.read(name)
    if card.kind != "lora":
        raise CheckpointError(f"module {name!r} is a {card.kind}; PEFT's LoRA adapters hold lora modules only")
    if to.exists():
        raise CheckpointError(f"{str(to)!r} exists; an adapter is written to a new folder")
    layers = join(card.sites, tensors)
    _check(name, card, layers, backbone or create_backbone(card.backbone, img_size=_size(card)))
    content = {
        f"base_model.model.{layer}.lora_{key}": tensor.contiguous()
        for layer, factors in layers.items()
        for key, tensor in zip(("A.weight", "B.weight", "B.bias"), factors, strict=True)
        if tensor is not None
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


def _check(name: str, card: Card, layers: dict[str, Factors], backbone: Backbone) -> None:
    """Checks that PEFT's adapter will do on a plain timm model what the module does here."""
    both = next((site for site in card.sites if layer_of(site) != (site, "") and layer_of(site)[0] in card.sites), None)
    if both is not None and card.settings.get("bias"):
        raise CheckpointError(f"module {name!r} has a bias at {both!r} and one at the whole layer; PEFT has but one")
    sites = {site.name: site for site in backbone.all_sites}
    for layer, factors in layers.items():
        site = sites.get(layer)
        shape = None if site is None else (site.width, site.input_width)
        if shape != (factors.up.shape[0], factors.down.shape[1]):
            raise CheckpointError(
                f"module {name!r} changes {layer!r}, which is not so in {backbone.name!r} as it comes; describe the "
                "module's backbone with --backbone '{name: ..., img_size: ...}'"
            )
    check_changes(layers, sites, backbone)
    idle = uncalled(layers, backbone)
    if idle:
        raise CheckpointError(
            f"module {name!r} changes {idle[0]!r}, whose weights timm's {card.backbone!r} uses without calling it, so "
            "PEFT's adapter would do nothing there; train one at other places, such as [proj, fc1, fc2]"
        )


def _size(card: Card) -> tuple[int, int] | None:
    size = card.preprocessing.get("size")
    return (int(size[0]), int(size[1])) if size else None


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
        "lora_bias": bool(card.settings.get("bias")),
        "use_rslora": False,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
    }


def _plain(alpha: float) -> float:
    """Returns a whole number as such, which is what PEFT declares."""
    return int(alpha) if float(alpha).is_integer() else float(alpha)
