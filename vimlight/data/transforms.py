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
        """Share of the resized image's shorter side that the centre crop keeps."""


def frame_of(old: tuple[int, int], preprocessing: Preprocessing, *, squash: bool = False) -> Frame:
    """Says how an image becomes the input.

    Args:
        old: Height and width of the image in pixels.
        preprocessing: Gives size and crop share.
        squash: Whether the whole image is resized to the input, without regard to its proportions, rather than resized
            so that it covers the input over `crop_pct`, and cropped in the middle.
    """
    height, width = preprocessing.size
    if squash:
        return Frame(old, (height, width), (0, 0), (height, width))
    scale = max(
        math.floor(height / preprocessing.crop_pct) / old[0], math.floor(width / preprocessing.crop_pct) / old[1]
    )
    resized = max(round(old[0] * scale), height), max(round(old[1] * scale), width)
    corner = round((resized[0] - height) / 2), round((resized[1] - width) / 2)
    return Frame(old, resized, corner, (height, width))


def reframe(images: Tensor, frame: Frame, interpolation: str) -> Tensor:
    """Resizes and crops images.

    Args:
        images: `(..., 3, H, W)` uint8, or float in [0, 1].
        frame: How.
        interpolation: `"bilinear"`, `"bicubic"` or `"nearest"`.

    Returns:
        `(..., 3, *frame.new)` of the same type.
    """
    if frame.resized != frame.old:
        mode = InterpolationMode(interpolation)
        images = T.resize(images, list(frame.resized), mode, antialias=mode is not InterpolationMode.NEAREST)
        # Bicubic interpolation overshoots.
        images = images.clamp_(0, 1) if images.is_floating_point() else images
    (top, left), (height, width) = frame.corner, frame.new
    return images[..., top : top + height, left : left + width]


def fit(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Resizes so that the image covers the input over `crop_pct`, then crops the centre.

    Args:
        images: `(..., 3, H, W)` uint8, or float in [0, 1].
        preprocessing: Gives size, interpolation and crop share.

    Returns:
        `(..., 3, *size)` of the same type.
    """
    height, width = images.shape[-2:]
    return reframe(images, frame_of((height, width), preprocessing), preprocessing.interpolation)


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
