"""What a backbone expects of its images."""

from __future__ import annotations

import dataclasses
from typing import Any

import timm
from torch import nn

from vimlight.errors import BackboneError

__all__ = ["Preprocessing"]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input; part of the backbone's identity.

    Attributes:
        size: Height and width of the input in pixels.
        mean: Mean of each of the three channels, for values in [0, 1].
        std: Standard deviation of each of the three channels.
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`.
        crop_pct: Share of the resized image's shorter side that the centre crop keeps.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0

    @classmethod
    def of(cls, model: nn.Module, img_size: int | tuple[int, int] | None = None) -> Preprocessing:
        """Reads the preprocessing from a timm model's own configuration.

        Args:
            model: A model made by timm.
            img_size: Height and width where they differ from the configuration's.
        """
        config = timm.data.resolve_model_data_config(model)
        size = img_size if img_size is not None else config["input_size"][1:]
        height, width = (size, size) if isinstance(size, int) else size
        interpolation = config["interpolation"]
        return cls(
            size=(int(height), int(width)),
            mean=_three(config["mean"]),
            std=_three(config["std"]),
            interpolation=interpolation if interpolation in ("bilinear", "bicubic", "nearest") else "bicubic",
            crop_pct=float(config["crop_pct"]),
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for cards and hashes."""
        return dataclasses.asdict(self)


def _three(values: Any) -> tuple[float, float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise BackboneError(f"the backbone normalises {len(numbers)} channels; only models of RGB images are supported")
    return numbers[0], numbers[1], numbers[2]
