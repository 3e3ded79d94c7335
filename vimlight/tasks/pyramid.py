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

    The maps are normalised and projected, and those of one stride are added. If all have one stride, as in a plain
    transformer, the levels are that sum enlarged twice by a transposed convolution, as it is, and max-pooled [Li et
    al. 2022, "Exploring plain vision transformer backbones for object detection"]; otherwise torchvision's feature
    pyramid adds them up from coarse to fine, and levels that are still missing are max-pooled.

    Args:
        channels: Channels of each map.
        strides: Pixels of the image from one position to the next, for each map.
        width: Channels of the levels.
        levels: How many levels; where all maps have one stride, the first has half of it, otherwise there is at least
            one a stride.

    Raises:
        ConfigError: If there is no map, or not one stride a map, or no level.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], *, width: int = 128, levels: int = 4) -> None:
        super().__init__()
        if not channels or len(channels) != len(strides):
            raise ConfigError(f"a pyramid needs one stride a map, got {len(channels)} maps and strides {list(strides)}")
        if levels < 1:
            raise ConfigError(f"a pyramid needs at least 1 level, got {levels}")
        known = sorted(set(strides))
        self.plain = len(known) == 1
        self.levels = levels if self.plain else max(levels, len(known))
        self._stages = [known.index(stride) for stride in strides]
        self.lateral = nn.ModuleList(
            nn.Sequential(_ChannelNorm(count), nn.Conv2d(count, width, 1)) for count in channels
        )
        self.enlarge = nn.Sequential(nn.ConvTranspose2d(width, width, 2, stride=2), nn.GELU()) if self.plain else None
        if self.plain:
            self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(levels))
        else:
            self.merge = FeaturePyramidNetwork([width] * len(known), width)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Returns the levels, finest first.

        Args:
            maps: `(N, channels, height, width)` each, in the order of `channels`.

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
