"""What is read out of a backbone: its last feature, that and the pooled output of every block, or some blocks' maps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.backbone.hooks import Hooks, uncompiled
from vimlight.backbone.layout import Layout
from vimlight.backbone.site import Site
from vimlight.errors import BackboneError, ConfigError, unknown_name

__all__ = [
    "MAPS",
    "READOUTS",
    "Features",
    "check_readout",
    "chosen_blocks",
    "map_levels",
    "pool",
    "tap_blocks",
    "tap_maps",
]

Features = Tensor | list[Tensor]
"""Vectors `(N, D)`, or of the readout `maps` a list of `(N, C, H, W)`, finest level first."""

# How many cells along each side of the image a readout averages apart, in every block; 0 reads no block.
READOUTS = {"last": 0, "layers": 1, "grid": 2}
MAPS = "maps"
_LEVELS = 4


def check_readout(readout: str) -> None:
    """Checks the name of a readout: one of `READOUTS`, `"maps"`, or `"maps:"` with numbers of blocks.

    Args:
        readout: The name.

    Raises:
        UnknownNameError: If there is no such readout.
        ConfigError: If what follows `maps:` is no list of block numbers.
    """
    name, colon, numbers = readout.partition(":")
    if name != MAPS:
        if readout not in READOUTS:
            raise unknown_name("readout", readout, [*READOUTS, MAPS])
    elif colon and not all(number.strip().isdecimal() for number in numbers.split(",")):
        raise ConfigError(f"readout {readout!r}: expected numbers of blocks behind the colon, as in 'maps:3,5,7,11'")


def map_levels(sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Chooses four of a model's maps.

    Where the resolution falls from stage to stage these are the last maps of the last four stages; elsewhere four maps,
    evenly spaced, the last one among them (2, 5, 8 and 11 of 12); fewer maps are read repeatedly.

    Args:
        sizes: Height and width of each map, in the order of the forward pass.
    """
    stages = [n for n in range(len(sizes)) if n + 1 == len(sizes) or sizes[n + 1] != sizes[n]]
    if len(stages) > 1:
        return stages[-_LEVELS:]
    return [max(0, (level + 1) * len(sizes) // _LEVELS - 1) for level in range(_LEVELS)]


def chosen_blocks(readout: str, count: int) -> list[int]:
    """Returns the numbers of the blocks that a readout names, in its order; none where it names none.

    Args:
        readout: `"maps"`, or `"maps:3,5,7,11"` for those very blocks, counted from 0.
        count: How many blocks there are.

    Raises:
        ConfigError: If a block of that number does not exist.
    """
    _, colon, numbers = readout.partition(":")
    chosen = [int(number) for number in numbers.split(",")] if colon else []
    if max(chosen, default=0) >= count:
        raise ConfigError(f"readout {readout!r}: there are {count} blocks, counted from 0")
    return chosen


@contextmanager
def tap_blocks(model: nn.Module, blocks: Sequence[Site], cells: int) -> Iterator[dict[str, Tensor]]:
    """Collects the pooled output of each block during the forward passes inside the context.

    Hooks see what earlier hooks left, so plug-ins that were attached before are included.

    Args:
        model: The model that the blocks belong to.
        blocks: Block sites.
        cells: As in `pool`.

    Yields:
        A mapping that receives `(N, P)` by the block's name, in the order of the forward pass.
    """
    pooled: dict[str, Tensor] = {}

    def tap(site: Site) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            pooled[site.name] = pool(site.tensor(output), site.layout, cells)

        return hook

    with _taps(model, [(site, tap(site)) for site in blocks]):
        yield pooled


@contextmanager
def tap_maps(model: nn.Module, blocks: Sequence[Site]) -> Iterator[dict[str, Tensor]]:
    """Collects the output of blocks as maps during the forward passes inside the context; see `tap_blocks`.

    Args:
        model: The model that the blocks belong to.
        blocks: Block sites.

    Yields:
        A mapping that receives `(N, C, H, W)` by the block's name.

    Raises:
        BackboneError: If a block's output is no grid of positions.
    """
    found: dict[str, Tensor] = {}

    def tap(site: Site) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            maps = None if site.layout.kind == "NC" else _maps(site.tensor(output), site.layout)[1]
            if maps is None:
                raise BackboneError(f"the positions of block {site.name!r} form no grid; it cannot be read as a map")
            found[site.name] = maps

        return hook

    with _taps(model, [(site, tap(site)) for site in {site.name: site for site in blocks}.values()]):
        yield found


@contextmanager
def _taps(model: nn.Module, taps: Sequence[tuple[Site, Callable[..., Any]]]) -> Iterator[None]:
    hooks = _tapped(model, taps)
    try:
        yield
    finally:
        hooks.remove()


@uncompiled
def _tapped(model: nn.Module, taps: Sequence[tuple[Site, Callable[..., Any]]]) -> Hooks:
    # Some versions of torch compile the pass as if hooks that come while they trace it were not there.
    hooks = Hooks()
    for site, hook in taps:
        hooks.after(model.get_submodule(site.output_module), hook)
    return hooks


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
        patches = layout.tokens(output)[:, layout.prefix :].mean(dim=1) if maps is None else maps.mean(dim=(2, 3))
    else:
        patches = F.adaptive_avg_pool2d(maps, cells).flatten(1)
    return patches if first is None else torch.cat([first, patches], dim=1)


def _maps(output: Tensor, layout: Layout) -> tuple[Tensor | None, Tensor | None]:
    """Returns the first prefix token, if any, and the patches as `(N, C, H, W)`, if they are a grid."""
    if layout.kind != "NLC":
        return None, layout.maps(output)
    tokens = layout.tokens(output)
    first = tokens[:, 0] if layout.prefix else None
    if tokens.shape[1] != layout.prefix + layout.grid[0] * layout.grid[1]:
        return first, None
    return first, layout.maps(output)
