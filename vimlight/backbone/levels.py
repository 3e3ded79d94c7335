"""The maps that a timm model itself gives of its stages, and outputs of modules that hold the same values.

Where a module's output stands row by row, in windows or in another order cannot be told from its shape. It is told by
comparison: random images make every position's values different, and timm says where each of them belongs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vimlight.backbone.layout import Layout

__all__ = ["Levels", "Match"]

_ROUNDING = 1e-4


@dataclasses.dataclass(frozen=True)
class Match:
    """What a tensor was found to hold.

    Attributes:
        level: Number of the timm model's own map whose values it holds; nothing if it holds those of another map.
        layout: How they are laid out.
        gap: Largest difference, which is rounding.
    """

    level: int | None
    layout: Layout
    gap: float


class Levels:
    """The maps of a model's stages or blocks for one image.

    Args:
        maps: `(1, C, H, W)` each, in timm's order.
    """

    def __init__(self, maps: Sequence[Tensor]) -> None:
        self._sizes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        self._rows = [x[0].flatten(1).T.float() for x in maps]

    @classmethod
    @torch.no_grad()
    def of(cls, model: nn.Module, image: Tensor) -> Levels:
        """Computes the maps.

        Args:
            model: A model made by timm, in eval mode.
            image: `(1, 3, H, W)`.

        Returns:
            The levels; none where timm offers no maps of this model at this size.
        """
        compute = getattr(model, "forward_intermediates", None)
        # On the meta device there are no values to compare.
        if not callable(compute) or image.is_meta:
            return cls([])
        try:
            maps = compute(image, intermediates_only=True)
        except (RuntimeError, ValueError, AssertionError, NotImplementedError):
            # Only the model's own forward pass must work at this size.
            return cls([])
        return cls([x for x in maps if isinstance(x, Tensor) and x.dim() == 4])

    def __len__(self) -> int:
        """Returns the number of levels."""
        return len(self._rows)

    def match(self, x: Tensor) -> Match | None:
        """Finds the level whose values a tensor holds, and how they are laid out in it.

        Args:
            x: A module's output for the same image.

        Returns:
            The nearest level; nothing if the tensor holds no level's values.
        """
        if x.dim() < 3 or x.shape[0] != 1:
            return None
        found = (self._compare(x, level) for level in range(len(self)))
        return min((match for match in found if match), key=lambda match: match.gap, default=None)

    def _compare(self, x: Tensor, level: int) -> Match | None:
        rows, size = self._rows[level], self._sizes[level]
        channels = rows.shape[1]
        if tuple(x.shape[1:]) == (channels, *size):
            gap = _gap(x[0].flatten(1).T, rows)
            if gap is not None:
                return Match(level, Layout("NCHW"), gap)
        if x.shape[-1] != channels or x.numel() < rows.numel():
            return None
        tokens = x[0].reshape(-1, channels)
        prefix = len(tokens) - len(rows)
        gap = _gap(tokens[prefix:], rows)
        if gap is not None:
            is_map = tuple(x.shape[1:-1]) == size
            return Match(level, Layout("NHWC") if is_map else Layout("NLC", prefix, size), gap)
        order = _order(tokens, rows)
        if order is None:
            return None
        return Match(level, Layout("NLC", prefix, size, tuple(order.tolist())), 0.0)


def _gap(found: Tensor, rows: Tensor) -> float | None:
    """Returns the largest difference, if it is one of rounding alone."""
    scale = float(rows[-1].abs().max())
    # One position settles most comparisons.
    if not float((found[-1].float() - rows[-1]).abs().max()) <= _ROUNDING * scale:
        return None
    gap = float((found.float() - rows).abs().max())
    return gap if gap <= _ROUNDING * float(rows.abs().max()) else None


def _order(tokens: Tensor, rows: Tensor) -> Tensor | None:
    """Finds where each row stands among the tokens behind a prefix; nothing unless every row stands there once."""
    prefix = len(tokens) - len(rows)
    first, rounding = rows[0, 0], _ROUNDING * rows[0].abs().max()
    if not bool(((tokens[:, 0].float() - first).abs() <= rounding).any()):
        return None
    order = torch.cdist(rows[None], tokens[None].float())[0].argmin(dim=1)
    every = torch.arange(prefix, len(tokens), device=order.device)
    if not torch.equal(order.sort().values, every) or _gap(tokens[order], rows) is None:
        return None
    return order - prefix
