"""What is read out of a backbone: its last feature, or that and the pooled output of every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.backbone.sites import Layout, Site

__all__ = ["READOUTS", "pool", "tap_blocks"]

# How many cells along each side of the image a readout averages apart, in every block; 0 reads no block.
READOUTS = {"last": 0, "layers": 1, "grid": 2}


@contextmanager
def tap_blocks(model: nn.Module, blocks: Sequence[Site], cells: int) -> Iterator[list[Tensor]]:
    """Collects the pooled output of each block during the forward passes inside the context.

    Hooks see what earlier hooks left, so plug-ins that were attached before are included.

    Args:
        model: The model that the blocks belong to.
        blocks: Block sites.
        cells: As in `pool`.

    Yields:
        A list that receives one `(N, P)` tensor a block, in the order of the forward pass.
    """
    pooled: list[Tensor] = []

    def tap(layout: Layout) -> Any:
        return lambda module, args, output: pooled.append(pool(output, layout, cells))

    handles = [model.get_submodule(site.output_module).register_forward_hook(tap(site.layout)) for site in blocks]
    try:
        yield pooled
    finally:
        for handle in handles:
            handle.remove()


def pool(output: Tensor, layout: Layout, cells: int = 1) -> Tensor:
    """Averages a block's output over the cells of a grid; the class token, where there is one, is kept beside them.

    Args:
        output: A tensor in the given layout with `C` channels.
        layout: Its layout.
        cells: Cells along each side of the image; 1 averages over all positions. Where positions are no grid, or fewer
            than the cells, they are averaged all the same.

    Returns:
        `(N, cells^2 C)`, behind `(N, C)` of the first prefix token where there are any.
    """
    if layout.kind == "NC":
        return output
    first, maps = _maps(output, layout)
    if maps is None or cells == 1 or min(maps.shape[2:]) < cells:
        patches = output[:, layout.prefix :].mean(dim=1) if maps is None else maps.mean(dim=(2, 3))
    else:
        patches = F.adaptive_avg_pool2d(maps, cells).flatten(1)
    return patches if first is None else torch.cat([first, patches], dim=1)


def _maps(output: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Returns the first prefix token, if any, and the patches as `(N, C, H, W)`, if they are a grid."""
    if layout.kind != "NLC":
        return None, output if layout.kind == "NCHW" else output.permute(0, 3, 1, 2)
    first = output[:, 0] if layout.prefix else None
    patches, (rows, columns) = output[:, layout.prefix :], layout.grid
    if patches.shape[1] != rows * columns:
        return first, None
    return first, patches.unflatten(1, (rows, columns)).permute(0, 3, 1, 2)
