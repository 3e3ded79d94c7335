"""The tensors of an adapter of PEFT's, sorted by what they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from vimlight.errors import CheckpointError, ZooError, shown
from vimlight.files.tensor_file import opened, tensors_of
from vimlight.interop.peft.config import WEIGHTS
from vimlight.interop.peft.factors import CARD, Factors
from vimlight.zoo.card import Card

__all__ = ["Contents", "read_tensors"]

_PREFIX = "base_model.model."
_DOWN, _UP, _BIAS, _OWN_BIAS = "lora_A.weight", "lora_B.weight", "lora_B.bias", "base_layer.bias"
_PART = re.compile(rf"(.+)\.({'|'.join(map(re.escape, (_DOWN, _UP, _BIAS, _OWN_BIAS)))})")


class Contents(NamedTuple):
    """What the file of an adapter's tensors holds.

    Attributes:
        layers: Factors by layer.
        biases: The layers' own biases as they were trained, by layer.
        others: Everything else by name.
        card: The card of the module that a zoo exported, if it was one.
    """

    layers: dict[str, Factors]
    biases: dict[str, Tensor]
    others: dict[str, Tensor]
    card: Card | None


def read_tensors(folder: Path) -> Contents:
    """Reads the tensors of an adapter, in single precision, in which PEFT computes whatever the file's is.

    Args:
        folder: The adapter's folder.

    Raises:
        CheckpointError: If the file is missing, damaged, a pickle, or holds no factors or halves of them.
    """
    file = folder / WEIGHTS
    if not file.is_file() and (folder / "adapter_model.bin").is_file():
        raise CheckpointError(
            "adapter_model.bin is a pickle and is not read, since a pickle can run code; save the adapter again with "
            "save_pretrained(..., safe_serialization=True)"
        )
    with opened(file, "an import", CheckpointError) as content:
        tensors = tensors_of(content)
        text = (content.metadata() or {}).get(CARD)
    parts, others = _sorted(tensors)
    layers = {
        layer: Factors(found[_DOWN], found[_UP], found.get(_BIAS)) for layer, found in parts.items()
    }  # fmt: skip
    biases = {layer: found[_OWN_BIAS] for layer, found in parts.items() if _OWN_BIAS in found}
    try:
        card = None if text is None else Card.from_json(text)
    except ZooError as error:
        raise CheckpointError(f"{WEIGHTS}: {error}") from error
    return Contents(layers, biases, others, card)


def _sorted(tensors: dict[str, Tensor]) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    others = {}
    for key, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{WEIGHTS}: tensor {shown(key)} holds {tensor.dtype}, not floating-point numbers")
        name = key.removeprefix(_PREFIX)
        if found := _PART.fullmatch(name):
            parts.setdefault(found[1], {})[found[2]] = tensor.float()
        else:
            others[name] = tensor.float()
    half = next((layer for layer, found in parts.items() if not {_DOWN, _UP} <= set(found)), None)
    if half is not None:
        raise CheckpointError(f"{WEIGHTS} holds only one of the two factors of {shown(half)}")
    if not parts:
        raise CheckpointError(f"{WEIGHTS} holds no LoRA factors, such as '{_PREFIX}blocks.0.attn.qkv.lora_A.weight'")
    return parts, others
