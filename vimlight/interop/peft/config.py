"""What `adapter_config.json` says of a LoRA adapter, and the refusal of all that a `lora` module cannot be."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vimlight.errors import CheckpointError, nearest, shown
from vimlight.files.json_text import json_object

__all__ = ["CONFIG", "WEIGHTS", "LoraSettings", "read_settings"]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Keys that are read below, or change nothing of what an adapter computes once it is trained.
_READ = (
    "r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "target_modules", "exclude_modules",
    "layers_to_transform", "layers_pattern", "modules_to_save", "bias", "lora_bias", "init_lora_weights",
)  # fmt: skip
_IDLE = (
    "peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
    "lora_dropout", "megatron_core", "eva_config", "qalora_group_size",
    # Of linear layers PEFT itself sets it to false; the tensors lie as in any other adapter.
    "fan_in_fan_out",
)  # fmt: skip
# Ways to start that leave the backbone's own weights alone; others move a part of them into the adapter.
_STARTS = (True, False, "gaussian", "eva", "orthogonal")


@dataclasses.dataclass(frozen=True)
class LoraSettings:
    """The part of the config that counts.

    Attributes:
        rank: Rank of every layer without one of its own.
        alpha: Numerator of the scale of every layer without one of its own.
        rank_pattern: Ranks by a regular expression for layers.
        alpha_pattern: The same of alphas.
        rslora: Whether alpha is divided by the root of the rank rather than by the rank.
        targets: The layers, by a regular expression or by the ends of their names; nothing if that is not known.
        excluded: Layers that are left out, in the same way.
        blocks: Numbers of the blocks whose layers are meant; all if left out.
        lists: Names of the lists that those numbers count in; any list if there are none.
        saved: Modules that were trained along whole.
        biases: Whether the layers' own biases were trained along.
        shifts: Whether the second factors have biases of their own.
        base: What the config says of the base model.
    """

    rank: int
    alpha: float
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    rslora: bool
    targets: str | Sequence[str] | None
    excluded: str | Sequence[str] | None
    blocks: tuple[int, ...] | None
    lists: tuple[str, ...]
    saved: tuple[str, ...]
    biases: bool
    shifts: bool
    base: str

    def rank_of(self, layer: str) -> int:
        """Returns a layer's rank."""
        return int(_by_pattern(self.rank_pattern, layer, self.rank))

    def scale_of(self, layer: str) -> float:
        """Returns what a layer's product of factors is multiplied by."""
        rank, alpha = self.rank_of(layer), _by_pattern(self.alpha_pattern, layer, self.alpha)
        return float(alpha / math.sqrt(rank) if self.rslora else alpha / rank)

    def aims_at(self, layer: str) -> bool | None:
        """Tells whether the config means a layer; nothing where that is not known."""
        if self.targets is None:
            return None
        left_out = (self.excluded and _named(self.excluded, layer)) or _lies_in(self.saved, layer)
        return _named(self.targets, layer) and self._in_blocks(layer) and not left_out

    def _in_blocks(self, layer: str) -> bool:
        if self.blocks is None:
            return True
        # As PEFT has it: a list that is named may be the model's own, any other is somebody's part.
        patterns = [rf"(?:^|.*?\.){name}\.(\d+)\." for name in self.lists] or [r".*?\.[^.]*\.(\d+)\."]
        found = next((match for pattern in patterns if (match := re.match(pattern, layer))), None)
        return found is not None and int(found[1]) in self.blocks


def read_settings(folder: Path) -> LoraSettings:
    """Reads the config of an adapter.

    Args:
        folder: The adapter's folder.

    Raises:
        CheckpointError: If it is missing, damaged, of another kind of adapter, or asks for what is no plain LoRA.
    """
    content = _read(folder)
    kind = content.get("peft_type")
    if kind != "LORA":
        raise CheckpointError(f"{CONFIG} is of an adapter of the type {shown(kind)}; only 'LORA' can be read")
    _refuse_others(content)
    try:
        targets = content.get("target_modules")
        return LoraSettings(
            rank=_positive(content.get("r", 8)),
            alpha=_alpha(content.get("lora_alpha", 8)),
            rank_pattern={key: _positive(value) for key, value in _pattern(content, "rank_pattern").items()},
            alpha_pattern={key: _alpha(value) for key, value in _pattern(content, "alpha_pattern").items()},
            rslora=bool(content.get("use_rslora", False)),
            # Which layers "all-linear" means is PEFT's to know.
            targets=None if targets == "all-linear" else _names(targets),
            excluded=_names(content.get("exclude_modules")),
            blocks=_numbers(content.get("layers_to_transform")),
            lists=_texts(content.get("layers_pattern")),
            saved=_texts(content.get("modules_to_save")),
            biases=content.get("bias", "none") != "none",
            shifts=bool(content.get("lora_bias", False)),
            base=str(content.get("base_model_name_or_path") or ""),
        )
    except (TypeError, ValueError, AttributeError, re.error) as error:
        raise CheckpointError(f"{CONFIG} holds a value that makes no sense: {error}") from error


def _read(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        close = nearest(folder.name, (item.name for item in folder.parent.glob("*"))) if folder.parent.is_dir() else []
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise CheckpointError(f"{str(folder)!r} is no folder; PEFT's adapters are folders with {CONFIG}{hint}")
    file = folder / CONFIG
    if not file.is_file():
        raise CheckpointError(f"{str(folder)!r} holds no {CONFIG}, so it is no adapter of PEFT's")
    return json_object(file.read_bytes(), CONFIG, CheckpointError)


def _refuse_others(content: Mapping[str, Any]) -> None:
    for key, value in content.items():
        if key not in _READ and key not in _IDLE and value not in (None, False, {}, [], ""):
            raise CheckpointError(f"{CONFIG} sets {shown(key)} to {shown(value)}, which a lora module cannot hold")
    if content.get("bias", "none") not in ("none", "lora_only"):
        raise CheckpointError(
            f"{CONFIG} sets 'bias' to {shown(content['bias'])}: biases of layers without factors have no place in a "
            "module"
        )
    start = content.get("init_lora_weights", True)
    if not isinstance(start, (bool, str)) or start not in _STARTS:
        raise CheckpointError(
            f"{CONFIG} sets 'init_lora_weights' to {shown(start)}, which changes the base model's own weights; convert "
            "the adapter with PEFT's path_initial_model_for_weight_conversion first"
        )


def _pattern(content: Mapping[str, Any], key: str) -> dict[str, Any]:
    values = content.get(key) or {}
    for layers in values:
        re.compile(layers)
    return dict(values.items())


def _by_pattern(pattern: Mapping[str, Any], layer: str, default: Any) -> Any:
    found = (value for key, value in pattern.items() if re.fullmatch(rf"(.*\.)?({key})", layer))
    return next(found, default)


def _named(names: str | Sequence[str], layer: str) -> bool:
    if isinstance(names, str):
        return re.fullmatch(names, layer) is not None
    return any(layer == name or layer.endswith(f".{name}") for name in names)


def _names(value: Any) -> str | list[str] | None:
    if value is None or isinstance(value, str):
        if value:
            re.compile(value)
        return value or None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError(f"layers must be a text or a list of texts, not {shown(value)}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    """Returns texts that PEFT takes as one or as a list."""
    names = _names(value)
    return (names,) if isinstance(names, str) else tuple(names or ())


def _numbers(value: Any) -> tuple[int, ...] | None:
    """Returns the numbers of blocks, which PEFT takes as one or as a list; an empty list means all of them."""
    numbers = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(number, int) for number in numbers):
        raise TypeError(f"layers_to_transform must be whole numbers, not {shown(value)}")
    return tuple(numbers) or None


def _lies_in(names: Sequence[str], layer: str) -> bool:
    return any(re.match(rf"(^|.*\.){name}($|\..*)", layer) for name in names)


def _alpha(value: Any) -> float:
    if not math.isfinite(value) or value == 0:
        raise ValueError(f"an alpha must be a number other than 0, not {shown(value)}")
    return float(value)


def _positive(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"a rank must be a whole number from 1 on, not {shown(value)}")
    return value
