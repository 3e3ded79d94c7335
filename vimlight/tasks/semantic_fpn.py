"""The Semantic-FPN head: from maps of several blocks to class scores at every position of the finest one."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import ConfigError

__all__ = ["SemanticFPN"]


class SemanticFPN(nn.Module):
    """Brings each map to its stride, adds the maps up from coarse to fine, and sums one branch of convolutions a level.

    Its tensors are named as in the segmentation heads that Vision Middleware published: `pre_fpn`, `fpn_neck` with
    `lateral_convs` and `fpn_convs`, `fpn_head` with `scale_heads` and `conv_seg`.

    Args:
        channels: Channels of each map, finest level first.
        num_outputs: Number of logits at each position, C.
        width: Channels of the pyramid.
        head_width: Channels of the branches.
        strides: Pixels of the image from one position to the next, for each level; powers of two of the first.
        map_strides: The same for the maps as they come in, one number for all or one for each; as `strides` if left
            out. Maps that are too coarse are enlarged by transposed convolutions, those that are too fine max-pooled.
        dropout: Probability with which channels are dropped in training before the last layer.

    Raises:
        ConfigError: If there are not as many strides as maps, or one is no power of two of another.
    """

    def __init__(
        self,
        channels: Sequence[int],
        num_outputs: int,
        *,
        width: int = 256,
        head_width: int = 128,
        strides: Sequence[int] = (4, 8, 16, 32),
        map_strides: int | Sequence[int] | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        given = strides if map_strides is None else map_strides
        starts = [given] * len(channels) if isinstance(given, int) else list(given)
        if not len(channels) == len(strides) == len(starts) > 0:
            raise ConfigError(f"{len(channels)} maps need as many strides, got {list(strides)} and {starts}")
        self.pre_fpn = nn.ModuleList(
            _rescale(count, _doublings(start, stride))
            for count, start, stride in zip(channels, starts, strides, strict=True)
        )
        self.fpn_neck = _Neck(channels, width)
        self.fpn_head = _Head(width, head_width, [_doublings(stride, strides[0]) for stride in strides], num_outputs)
        self.fpn_head.dropout.p = dropout

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Computes logits.

        Args:
            maps: One `(N, channels, height, width)` a level, finest level first.

        Returns:
            Logits `(N, C, H, W)` at the first level's stride.
        """
        levels = [rescale(x) for rescale, x in zip(self.pre_fpn, maps, strict=True)]
        logits: Tensor = self.fpn_head(self.fpn_neck(levels))
        return logits


class _Neck(nn.Module):
    """Lateral 1x1 convolutions, sums from coarse to fine, and a 3x3 convolution at each level."""

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(_Named(nn.Conv2d(count, width, 1)) for count in channels)
        self.fpn_convs = nn.ModuleList(_Named(nn.Conv2d(width, width, 3, padding=1)) for _ in channels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # the bias exists

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        sums = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for level in range(len(sums) - 1, 0, -1):
            sums[level - 1] = sums[level - 1] + F.interpolate(sums[level], size=sums[level - 1].shape[2:])
        return [conv(x) for conv, x in zip(self.fpn_convs, sums, strict=True)]


class _Head(nn.Module):
    """One branch a level, each brought to the first level's size; their sum, dropout, and a 1x1 convolution."""

    def __init__(self, width: int, head_width: int, doublings: Sequence[int], num_outputs: int) -> None:
        super().__init__()
        if min(doublings) < 0:
            raise ConfigError("the first of the strides must be the smallest")
        self.scale_heads = nn.ModuleList(_branch(width, head_width, count) for count in doublings)
        self.dropout = nn.Dropout2d()
        self.conv_seg = nn.Conv2d(head_width, num_outputs, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)  # type: ignore[arg-type]  # the bias exists

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        total: Tensor = self.scale_heads[0](maps[0])
        for head, x in zip(self.scale_heads[1:], maps[1:], strict=True):
            total = total + F.interpolate(head(x), size=total.shape[2:], mode="bilinear", align_corners=False)
        logits: Tensor = self.conv_seg(self.dropout(total))
        return logits


class _Named(nn.Module):
    """A convolution under the name that the published layout has for it."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.conv(x)
        return output


class _ConvNormRelu(nn.Module):
    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        nn.init.kaiming_normal_(self.conv.weight, nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


class _Shrink(nn.Module):
    """Max-pools by a factor; a map that is smaller than the window becomes one position, not none."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        window = [min(self.factor, size) for size in x.shape[2:]]
        return F.max_pool2d(x, window)


def _branch(width: int, head_width: int, doublings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(max(1, doublings)):
        layers.append(_ConvNormRelu(width if index == 0 else head_width, head_width))
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)


def _rescale(channels: int, doublings: int) -> nn.Module:
    if doublings == 0:
        return nn.Identity()
    if doublings < 0:
        return _Shrink(2**-doublings)
    layers: list[nn.Module] = [nn.ConvTranspose2d(channels, channels, 2, stride=2)]
    for _ in range(doublings - 1):
        layers += [nn.BatchNorm2d(channels), nn.GELU(), nn.ConvTranspose2d(channels, channels, 2, stride=2)]
    # A single one has no sequence around it in the published names.
    return nn.Sequential(*layers) if doublings > 1 else layers[0]


def _doublings(start: int, stride: int) -> int:
    """Returns how often the resolution doubles from one stride to another; negative if it halves."""
    larger, smaller = max(start, stride), max(min(start, stride), 1)
    factor, rest = divmod(larger, smaller)
    if rest or factor & (factor - 1) or min(start, stride) < 1:
        raise ConfigError(f"strides must be powers of two of each other, got {start} and {stride}")
    return (factor.bit_length() - 1) * (1 if start >= stride else -1)
