"""From uint8 images to a backbone's input: resizing, cropping, augmentation and normalisation, batched on any device.

Augmentation is one warp and one change of colour per image. Its random numbers are drawn beforehand, for each image of
the data set, from the seed and the epoch: so it is the same on every device, for any batch size and any number of
processes, and does not touch the global random state.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from vimlight.errors import unknown_name
from vimlight.tasks.targets import Frame

__all__ = ["AUGMENTATIONS", "Augmentation", "Preprocessing", "augmentation", "fit", "frame_of", "normalise", "reframe"]

_MODES = {
    "bilinear": InterpolationMode.BILINEAR,
    "bicubic": InterpolationMode.BICUBIC,
    # The other mode of the name takes the pixel above and left of the middle.
    "nearest": InterpolationMode.NEAREST_EXACT,
}


class Preprocessing(Protocol):
    """What the data room needs to know of a backbone's input; `vimlight.backbone.Preprocessing` is the real one."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""

    @property
    def mean(self) -> tuple[float, float, float]:
        """Mean per channel, for values in [0, 1]."""

    @property
    def std(self) -> tuple[float, float, float]:
        """Standard deviation per channel."""

    @property
    def interpolation(self) -> str:
        """`"bilinear"`, `"bicubic"` or `"nearest"`."""

    @property
    def crop_pct(self) -> float:
        """Share of the resized image that the crop in the middle keeps."""

    @property
    def crop_mode(self) -> str:
        """`"center"`, `"squash"` or `"border"`: how the image is resized."""


def frame_of(old: tuple[int, int], preprocessing: Preprocessing) -> Frame:
    """Says how an image becomes the input, to the pixel as timm does it in evaluation.

    Args:
        old: Height and width of the image in pixels.
        preprocessing: Gives size, crop share and crop mode.
    """
    height, width = preprocessing.size
    goal = math.floor(height / preprocessing.crop_pct), math.floor(width / preprocessing.crop_pct)
    resized = _resized(old, goal, preprocessing.crop_mode)
    corner = _middle(resized[0], height), _middle(resized[1], width)
    return Frame(old, resized, corner, (height, width))


def _resized(old: tuple[int, int], goal: tuple[int, int], crop_mode: str) -> tuple[int, int]:
    """Returns the size to which an image is resized before it is cropped; timm rounds in more than one way."""
    if crop_mode == "squash":
        return goal
    if crop_mode == "center" and goal[0] == goal[1]:
        # Here timm leaves it to torchvision, which rounds the longer side down.
        height, width = (goal[0] if side == min(old) else int(goal[0] * side / min(old)) for side in old)
        return height, width
    ratios = old[0] / goal[0], old[1] / goal[1]
    ratio = max(ratios) if crop_mode == "border" else min(ratios)
    return max(1, round(old[0] / ratio)), max(1, round(old[1] / ratio))


def _middle(resized: int, new: int) -> int:
    """Returns where a crop in the middle begins; below zero, what it lies beyond the image."""
    return round((resized - new) / 2) if resized >= new else -((new - resized) // 2)


def reframe(images: Tensor, frame: Frame, preprocessing: Preprocessing) -> Tensor:
    """Resizes images, and crops or pads them.

    Args:
        images: `(..., 3, H, W)` uint8, or float in [0, 1].
        frame: How.
        preprocessing: Gives the interpolation and the colour of the margin.

    Returns:
        `(..., 3, *frame.new)` of the same type.
    """
    for size in _passes(frame):
        if images.shape[-2:] != size:
            images = T.resize(images, list(size), _MODES[preprocessing.interpolation], antialias=True)
            # Bicubic interpolation overshoots.
            images = images.clamp_(0, 1) if images.is_floating_point() else images
    (top, left), (height, width) = frame.corner, frame.new
    inside = images[..., max(top, 0) : top + height, max(left, 0) : left + width]
    return inside if inside.shape[-2:] == frame.new else _padded(inside, frame, preprocessing)


def _passes(frame: Frame) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the sizes after resizing one side and after resizing the other.

    Overshoot is cut off after each, so that the order shows; it is Pillow's from version 13 on.
    """
    (old_height, old_width), (height, width) = frame.old, frame.resized
    height_first = old_height - height > max(0, 2 * (old_width - width))
    return ((height, old_width) if height_first else (old_height, width)), frame.resized


def _padded(inside: Tensor, frame: Frame, preprocessing: Preprocessing) -> Tensor:
    """Returns images within a margin, of the mean's colour if it is a border, else black."""
    shares = preprocessing.mean if preprocessing.crop_mode == "border" else (0.0, 0.0, 0.0)
    fill = inside.new_tensor([round(255 * share) for share in shares])
    fill = fill / 255 if inside.is_floating_point() else fill
    padded = fill[:, None, None].expand(*inside.shape[:-2], *frame.new).contiguous()
    top, left = (max(0, -corner) for corner in frame.corner)
    padded[..., top : top + inside.shape[-2], left : left + inside.shape[-1]] = inside
    return padded


def fit(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Makes images the input, as `frame_of` says.

    Args:
        images: `(..., 3, H, W)` uint8, or float in [0, 1].
        preprocessing: How.

    Returns:
        `(..., 3, *size)` of the same type.
    """
    height, width = images.shape[-2:]
    return reframe(images, frame_of((height, width), preprocessing), preprocessing)


def normalise(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Subtracts the mean and divides by the standard deviation, `(N, 3, H, W)` float in [0, 1] to float."""
    mean = images.new_tensor(preprocessing.mean)[:, None, None]
    std = images.new_tensor(preprocessing.std)[:, None, None]
    return (images - mean) / std


@dataclass(frozen=True)
class Augmentation:
    """Ranges of random changes to training images; the defaults change nothing.

    Attributes:
        turn: Largest rotation to either side, in degrees.
        shift: Largest shift to either side, as a share of the image's side.
        zoom: Smallest and largest magnification; below one the border's pixels fill the margin.
        stretch: Largest change of the aspect ratio, as a factor.
        flip: Whether half of the images are mirrored left to right.
        light: Largest relative change of brightness, contrast and saturation.
    """

    turn: float = 0.0
    shift: float = 0.0
    zoom: tuple[float, float] = (1.0, 1.0)
    stretch: float = 1.0
    flip: bool = False
    light: float = 0.0

    DRAWS = 9

    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Changes each image in its own way.

        Args:
            images: `(N, 3, H, W)` float in [0, 1].
            draws: `(N, DRAWS)` uniform random numbers in [0, 1), on any device.

        Returns:
            `(N, 3, H, W)` float in [0, 1].
        """
        draws = draws.to(images.device, images.dtype)
        grid = F.affine_grid(self.matrices(draws), list(images.shape), align_corners=False)
        warped = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
        return self._relight(warped, draws[:, 6:9]) if self.light else warped

    def matrices(self, draws: Tensor) -> Tensor:
        """Builds the maps `(N, 2, 3)` from output to input coordinates, both in [-1, 1]."""
        both_ways = 2 * draws - 1
        angle = both_ways[:, 0] * math.radians(self.turn)
        shift = both_ways[:, 1:3] * 2 * self.shift
        low, high = (math.log(bound) for bound in self.zoom)
        zoom = torch.exp(low + (high - low) * draws[:, 3])
        stretch = torch.exp(both_ways[:, 4] * 0.5 * math.log(self.stretch))
        mirror = torch.where(draws[:, 5] < 0.5, -1.0, 1.0) if self.flip else torch.ones_like(angle)
        cos, sin = angle.cos() / zoom, angle.sin() / zoom
        rows = (cos * mirror * stretch, -sin / stretch, shift[:, 0], sin * mirror * stretch, cos / stretch, shift[:, 1])
        return torch.stack(rows, dim=1).view(-1, 2, 3)

    def _relight(self, images: Tensor, draws: Tensor) -> Tensor:
        brightness, contrast, saturation = (1 + self.light * (2 * draws - 1))[:, :, None, None].unbind(dim=1)
        # All three are linear in the pixels: one 3 x 3 matrix and one offset per image do their work.
        identity = torch.eye(3, device=images.device, dtype=images.dtype)
        mixing = brightness * contrast * (saturation * identity + (1 - saturation) / 3)
        offset = (1 - contrast) * brightness * images.mean(dim=(1, 2, 3))[:, None, None]
        return torch.baddbmm(offset, mixing, images.flatten(2)).clamp_(0, 1).view_as(images)


AUGMENTATIONS: dict[str, Augmentation | None] = {
    "none": None,
    # Keeps the meaning of letters, digits and orientations.
    "light": Augmentation(turn=8, shift=0.06, zoom=(0.9, 1.1), stretch=1.1),
    "photo": Augmentation(shift=0.1, zoom=(1.0, 1.5), stretch=1.2, flip=True, light=0.2),
    "strong": Augmentation(turn=15, shift=0.2, zoom=(0.8, 2.0), stretch=1.33, flip=True, light=0.4),
}


def augmentation(name: str) -> Augmentation | None:
    """Returns the augmentation called `name`, or none for `"none"`.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    if name not in AUGMENTATIONS:
        raise unknown_name("augmentation", name, AUGMENTATIONS)
    return AUGMENTATIONS[name]
