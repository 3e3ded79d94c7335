"""A feature pyramid for heads that look at several scales: from the one map of a plain transformer, or from stages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FeaturePyramidNetwork

from vimlight.errors import ConfigError

__all__ = ["Pyramid"]


class Pyramid(nn.Module):
    """Makes levels of falling resolution, all of one width, out of the maps of a backbone.

    The maps are normalised and projected, and those of one size are added. If all have one size, as in a plain
    transformer, the levels are that sum enlarged twice by a transposed convolution, as it is, and max-pooled [Li et
    al. 2022, "Exploring plain vision transformer backbones for object detection"]; otherwise torchvision's feature
    pyramid adds them up from coarse to fine, and levels that are still missing are max-pooled.

    Args:
        shapes: Channels, height and width of each map of an image.
        width: Channels of the levels.
        levels: How many levels; where all maps have one size, the first has twice that, otherwise there is at least one
            level a size.

    Raises:
        ConfigError: If there is no map or no level.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]], *, width: int = 128, levels: int = 4) -> None:
        super().__init__()
        if not shapes or any(len(shape) != 3 for shape in shapes):
            raise ConfigError(f"a pyramid needs maps (channels, height, width), got features of shapes {list(shapes)}")
        if levels < 1:
            raise ConfigError(f"a pyramid needs at least 1 level, got {levels}")
        sizes = sorted({shape[1:] for shape in shapes}, reverse=True)
        self.plain = len(sizes) == 1
        self.levels = levels if self.plain else max(levels, len(sizes))
        self._stages = [sizes.index(shape[1:]) for shape in shapes]
        self.lateral = nn.ModuleList(
            nn.Sequential(_ChannelNorm(shape[0]), nn.Conv2d(shape[0], width, 1)) for shape in shapes
        )
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), nn.GELU()) if self.plain else None
        if self.plain:
            self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        else:
            self.merge = FeaturePyramidNetwork([width] * len(sizes), width)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Returns the levels, finest first.

        Args:
            maps: `(N, channels, height, width)` each, in the order of `shapes`.

        Returns:
            Tensors `(N, width, H, W)` of falling size.
        """
        stages: dict[int, Tensor] = {}
        for stage, lateral, x in zip(self._stages, self.lateral, maps, strict=True):
            projected = lateral(x)
            stages[stage] = stages[stage] + projected if stage in stages else projected
        if self.enlarge is not None:
            found = [self.enlarge(stages[0]), stages[0]]
        else:
            merged = self.merge(OrderedDict((str(stage), stages[stage]) for stage in sorted(stages)))
            found = list(merged.values())
        while len(found) < self.levels:
            # A map that is smaller than the window becomes one position, not none.
            found.append(F.max_pool2d(found[-1], [min(2, size) for size in found[-1].shape[2:]]))
        found = found[: self.levels]
        return [smooth(x) for smooth, x in zip(self.smooth, found, strict=True)] if self.plain else found


class _ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position: the maps of raw blocks differ in scale by orders."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalises `(N, C, H, W)`, in single precision."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float().permute(0, 2, 3, 1)).permute(0, 3, 1, 2).to(x.dtype)
