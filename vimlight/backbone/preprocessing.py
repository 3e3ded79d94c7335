"""What a backbone expects of its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import timm
from torch import nn

from vimlight.errors import BackboneError, UnknownNameError, unknown_name

__all__ = ["Preprocessing"]

_INTERPOLATIONS = ("bilinear", "bicubic", "nearest")
_CROP_MODES = ("center", "squash", "border")


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How an image becomes a backbone's input; part of the backbone's identity.

    Fields and their meaning are those of `timm.data.create_transform`, which makes the same pixels of an image.

    Attributes:
        size: Height and width of the input in pixels.
        mean: Mean of each of the three channels, for values in [0, 1].
        std: Standard deviation of each of the three channels.
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`.
        crop_pct: Share of the resized image that the crop in the middle keeps; above one the crop has a black margin.
        crop_mode: How the image is resized to `size / crop_pct`: `"center"` so that it covers it, `"squash"` to it,
            without regard to its proportions, `"border"` so that it fits into it, in a margin of the mean colour.

    Raises:
        UnknownNameError: If there is no such interpolation or crop mode.
        BackboneError: If `crop_pct` is not above zero.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str = "bicubic"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        """Checks the fields."""
        for field, valid in (("interpolation", _INTERPOLATIONS), ("crop_mode", _CROP_MODES)):
            if getattr(self, field) not in valid:
                raise unknown_name(field, getattr(self, field), valid)
        if not self.crop_pct > 0:
            raise BackboneError(f"crop_pct must be above 0, got {self.crop_pct}")

    @classmethod
    def of(cls, model: nn.Module, img_size: int | tuple[int, int] | None = None) -> Preprocessing:
        """Reads the preprocessing from a timm model's own configuration.

        Args:
            model: A model made by timm.
            img_size: Height and width where they differ from the configuration's.

        Raises:
            BackboneError: If the configuration asks for what is not supported.
        """
        config = timm.data.resolve_model_data_config(model)
        size = img_size if img_size is not None else config["input_size"][1:]
        height, width = (size, size) if isinstance(size, int) else size
        try:
            return cls(
                size=(int(height), int(width)),
                mean=_three(config["mean"]),
                std=_three(config["std"]),
                interpolation=config["interpolation"],
                crop_pct=float(config["crop_pct"]),
                crop_mode=config["crop_mode"],
            )
        except UnknownNameError as error:
            raise BackboneError(f"{error}; set another one in pretrained_cfg_overlay") from error

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Preprocessing:
        """Returns what `as_dict` was made of, also behind JSON, which knows no tuples.

        Raises:
            TypeError: If it was made of nothing of the kind.
            UnknownNameError: If there is no such interpolation or crop mode.
        """
        plain: dict[str, Any] = {name: tuple(x) if isinstance(x, list) else x for name, x in fields.items()}
        made = cls(**plain)
        whole = all(type(side) is int and side > 0 for side in made.size)
        real = all(isinstance(number, int | float) for number in (*made.mean, *made.std))
        if not (whole and real) or (len(made.size), len(made.mean), len(made.std)) != (2, 3, 3):
            raise TypeError("size must be two whole numbers, mean and std three numbers each")
        return made

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields as plain values, for cards."""
        return dataclasses.asdict(self)

    def differences(self, other: Preprocessing) -> str:
        """Says in which fields it differs from another one, such as `"size is (48, 48), not (32, 32)"`."""
        mine, theirs = self.as_dict(), other.as_dict()
        return ", ".join(f"{name} is {mine[name]}, not {theirs[name]}" for name in mine if mine[name] != theirs[name])

    def identity(self) -> dict[str, Any]:
        """Returns what of the fields tells backbones apart, for fingerprints."""
        fields = self.as_dict()
        if self.crop_mode == "center":
            # Fingerprints from before there was a choice stay what they are.
            del fields["crop_mode"]
        return fields


def _three(values: Any) -> tuple[float, float, float]:
    numbers = tuple(float(value) for value in values)
    if len(numbers) != 3:
        raise BackboneError(f"the backbone normalises {len(numbers)} channels; only models of RGB images are supported")
    return numbers[0], numbers[1], numbers[2]
