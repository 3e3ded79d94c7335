"""What is read out of a backbone: its last feature, or that and the pooled output of every block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vimlight.backbone.sites import Layout, Site

__all__ = ["READOUTS", "pool", "tap_blocks"]

READOUTS = ("last", "layers")


@contextmanager
def tap_blocks(model: nn.Module, blocks: Sequence[Site]) -> Iterator[list[Tensor]]:
    """Collects the pooled output of each block during the forward passes inside the context.

    Hooks see what earlier hooks left, so plug-ins that were attached before are included.

    Args:
        model: The model that the blocks belong to.
        blocks: Block sites.

    Yields:
        A list that receives one `(N, P)` tensor a block, in the order of the forward pass.
    """
    pooled: list[Tensor] = []

    def tap(layout: Layout) -> Any:
        return lambda module, args, output: pooled.append(pool(output, layout))

    handles = [model.get_submodule(site.output_module).register_forward_hook(tap(site.layout)) for site in blocks]
    try:
        yield pooled
    finally:
        for handle in handles:
            handle.remove()


def pool(output: Tensor, layout: Layout) -> Tensor:
    """Averages a block's output over its positions; the class token, where there is one, is kept beside it.

    Args:
        output: A tensor in the given layout with `C` channels.
        layout: Its layout.

    Returns:
        `(N, C)`, or `(N, 2 C)` with prefix tokens: the first of them, then the mean over the patches.
    """
    if layout.kind == "NC":
        return output
    if layout.kind != "NLC":
        return output.mean(dim=(2, 3) if layout.kind == "NCHW" else (1, 2))
    mean = output[:, layout.prefix :].mean(dim=1)
    return torch.cat([output[:, 0], mean], dim=1) if layout.prefix else mean
