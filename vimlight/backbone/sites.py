"""Where plug-ins attach: the sites of a timm model, found by running it once.

Three families of sites are found, and each is verified by a probe: a module that was not called once, or whose tensors
do not fit together, is no site.

* *branches*: the attention and MLP branches of transformer blocks, read at the (normed) input of `blocks.i.attn` or
  `blocks.i.mlp` and written where the branch joins the residual stream, behind any LayerScale;
* *blocks*: whole residual blocks, of transformers and of convolutional and hierarchical models alike;
* *layers*: single linear, convolution and norm layers; a fused `qkv` counts as one layer and as its three parts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

from torch import nn

from vimlight.backbone.blocks import block_names, layouts_of
from vimlight.backbone.layers import layer_sites
from vimlight.backbone.layout import Layout
from vimlight.backbone.site import Site, Sites
from vimlight.backbone.trace import Made, Trace

__all__ = ["find_sites"]


def find_sites(model: nn.Module, seen: Trace) -> Sites:
    """Finds the sites of a timm model.

    Args:
        model: A model made by timm, in eval mode.
        seen: What was seen of it in one pass.
    """
    names = block_names(model, seen)
    layouts = layouts_of(model, names, seen)
    names = [name for name in names if name in layouts]
    blocks = [_whole(name, depth, layouts[name], seen) for depth, name in enumerate(names)]
    return Sites(
        branches=tuple(site for block in blocks for site in _branches(block, seen)),
        blocks=tuple(blocks),
        layers=tuple(layer_sites(seen, names, [layouts[name] for name in names])),
        maps=tuple(_maps(blocks, seen)),
    )


def _whole(name: str, depth: int, layout: Layout, seen: Trace) -> Site:
    return _output(name, seen.calls[name].made[0], depth, layout)


def _output(name: str, made: Made, depth: int, layout: Layout) -> Site:
    width = made.shape[layout.channel_dim]
    # A block may change width and resolution, so at a block everything is read from its output.
    return Site(name, "block", depth, width, layout, width, name, name, index=made.index)


def _branches(block: Site, seen: Trace) -> Iterator[Site]:
    calls = seen.calls
    for place, index in (("attn", 1), ("mlp", 2)):
        branch, exit_, norm = f"{block.name}.{place}", f"{block.name}.drop_path{index}", f"{block.name}.norm{index}"
        if branch not in calls or exit_ not in calls:
            return
        shape = calls[branch].input
        if shape is None or len(shape) != 3 or {calls[exit_].output, calls[block.name].output} != {shape}:
            return
        # Where the norm stands behind the branch, its input is not the residual stream.
        before = norm in calls and calls[norm].order < calls[branch].order
        yield dataclasses.replace(
            block,
            name=branch,
            place=place,
            input_module=branch,
            output_module=exit_,
            residual_module=norm if before else None,
            index=None,
        )


def _maps(blocks: Sequence[Site], seen: Trace) -> Iterator[Site]:
    """Yields the modules whose outputs are timm's own maps."""
    known = {block.name: block for block in blocks}
    for level in range(seen.levels):
        held = [
            (name, made, made.match)
            for name, call in seen.calls.items()
            for made in call.made
            if made.match and made.match.level == level
        ]
        nearest = min((match.gap for _, _, match in held), default=0.0)
        makers = {name: made for name, made, match in held if match.gap == nearest}
        if makers:
            name = _maker(makers, known, seen)
            yield _tap(name, makers[name], known, seen)


def _maker(makers: Collection[str], blocks: Collection[str], seen: Trace) -> str:
    """Chooses the last block among modules of one output, else the outermost module around the first."""
    names = sorted(makers, key=lambda name: seen.calls[name].order)
    if found := [name for name in names if name in blocks]:
        return found[-1]
    return [name for name in names if names[0] == name or names[0].startswith(f"{name}.")][-1]


def _tap(name: str, made: Made, blocks: Mapping[str, Site], seen: Trace) -> Site:
    if name in blocks and blocks[name].index == made.index:
        return blocks[name]
    assert made.match is not None
    ended = sum(seen.calls[block].order <= seen.calls[name].order for block in blocks)
    site = _output(name, made, max(0, ended - 1), made.match.layout)
    # One module may make several of the maps.
    return dataclasses.replace(site, name=f"{name}[{made.index}]") if made.index else site
