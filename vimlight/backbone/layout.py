"""How the tensor at a site is laid out, and how its positions lie in the image."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

__all__ = ["Layout"]


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a site's tensor is laid out.

    Attributes:
        kind: `"NLC"` for tokens, which may lie in several dimensions (such as windows and their tokens), `"NCHW"` or
            `"NHWC"` for maps, `"NC"` for vectors.
        prefix: Number of tokens before the patches (class and register tokens); 0 for maps.
        grid: Rows and columns of the patches of `"NLC"`; `(0, 0)` for maps, and where no grid is certain.
        order: Where the patches of the grid, row by row, stand among the tokens behind the prefix; empty where they
            stand row by row.
    """

    kind: Literal["NLC", "NCHW", "NHWC", "NC"]
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)
    order: tuple[int, ...] = ()

    @property
    def channel_dim(self) -> int:
        """The dimension that holds the channels."""
        return 1 if self.kind == "NCHW" else -1

    @property
    def has_grid(self) -> bool:
        """Whether every position's place in the image is certain."""
        return self.kind in ("NCHW", "NHWC") or self.grid != (0, 0)

    def tokens(self, x: Tensor) -> Tensor:
        """Returns the tokens of `"NLC"` in one dimension, `(N, L, C)`.

        Args:
            x: A tensor in this layout.
        """
        return x if x.dim() == 3 else x.flatten(1, -2)

    def maps(self, x: Tensor) -> Tensor:
        """Returns the patches as `(N, C, H, W)`: a view, except of tokens in another order.

        Args:
            x: A tensor in this layout, with a grid.
        """
        if self.kind == "NCHW":
            return x
        if self.kind == "NHWC":
            return x.permute(0, 3, 1, 2)
        patches = self.tokens(x)[:, self.prefix :]
        if self.order:
            patches = patches[:, torch.tensor(self.order, device=x.device)]
        # Tokens are images whose channels come last: a view, where a transpose would copy.
        found: Tensor = patches.unflatten(1, self.grid).permute(0, 3, 1, 2)
        return found

    def from_maps(self, maps: Tensor) -> Tensor:
        """Returns maps as the patches of this layout, tokens as `(N, H W, C)`.

        Args:
            maps: `(N, C, H, W)`.
        """
        if self.kind == "NCHW":
            return maps
        if self.kind == "NHWC":
            return maps.permute(0, 2, 3, 1)
        patches = maps.permute(0, 2, 3, 1).flatten(1, 2)
        return patches[:, torch.tensor(self.order, device=maps.device).argsort()] if self.order else patches
