"""The single layers of a timm model as sites: their roles, and what a plug-in must know of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence

from torch import Tensor, nn

from vimlight.backbone.layout import Layout
from vimlight.backbone.site import Convolution, Site
from vimlight.backbone.trace import Call, Trace

__all__ = ["layer_sites"]

# Layers of the same role have different names in timm's families.
_PLACES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "proj",
    "fc1_g": "fc1", "fc1_x": "fc1", "w12": "fc1", "w3": "fc2",
    # Parallel blocks: one layer in front of both branches, one behind each.
    "in_proj": "fc1", "attn_out_proj": "proj", "mlp_out_proj": "fc2",
    # LeViT: pairs of a linear layer and a norm, named by what the pair does.
    "ln": "proj", "ln1": "fc1", "ln2": "fc2",
}  # fmt: skip
# Places that are no layers.
_BRANCHES = ("attn", "mlp", "block")


def layer_sites(seen: Trace, blocks: Sequence[str], layouts: Sequence[Layout]) -> Iterator[Site]:
    """Yields the linear, convolution and norm layers in the order of the forward pass.

    Args:
        seen: What was seen of the model.
        blocks: Names of the blocks, in the same order.
        layouts: Layouts of their outputs.
    """
    reader = _Reader(seen, blocks, layouts)
    for name, call in sorted(seen.calls.items(), key=lambda item: item[1].order):
        if call.output is not None and _is_layer(seen.modules[name]):
            yield from reader.sites(name, call)


class _Reader:
    def __init__(self, seen: Trace, blocks: Sequence[str], layouts: Sequence[Layout]) -> None:
        self.modules, self.blocks, self.layouts = seen.modules, blocks, layouts
        self.shapes = [seen.calls[block].output for block in blocks]
        self.orders = [seen.calls[block].order for block in blocks]

    def sites(self, name: str, call: Call) -> Iterator[Site]:
        module = self.modules[name]
        depth, inside = self.depth(name, call)
        leaf = name.removesuffix(".linear").rpartition(".")[2]
        channels = _channels(module)
        whole = Site(
            name=name,
            place=_place(name, leaf, module, inside),
            depth=depth,
            width=channels[1],
            layout=self.layout(module, call, depth),
            input_width=channels[0],
            input_module=name,
            output_module=name,
            convolution=_convolution(module),
            foldable=not isinstance(module, nn.Conv2d) or type(module).__name__ in ("Conv2d", "Conv2dSame"),
        )
        yield whole
        for index, letter in enumerate(leaf if self._splits(name, channels[1]) else ""):
            width = channels[1] // len(leaf)
            part = (index * width, (index + 1) * width)
            yield dataclasses.replace(whole, name=f"{name}[{letter}]", place=letter, width=width, part=part)

    def depth(self, name: str, call: Call) -> tuple[int, bool]:
        """Returns the number of a layer's block, and whether it lies inside it."""
        for depth, block in enumerate(self.blocks):
            if name == block or name.startswith(f"{block}."):
                return depth, True
        before = bool(self.orders) and call.order < self.orders[0]
        return -1 if before else len(self.blocks), False

    def layout(self, module: nn.Module, call: Call, depth: int) -> Layout:
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)) or type(module).__name__.endswith("2d"):
            return Layout("NCHW")
        assert call.output is not None
        if len(call.output) == 2:
            return Layout("NC")
        # A layer has the positions of its block, or of the block before, if it has as many.
        for number in (depth, depth - 1):
            if 0 <= number < len(self.blocks):
                layout = self.layouts[number]
                if _same_positions(call.output, self.shapes[number], layout):
                    return layout
        return Layout("NLC")

    def _splits(self, name: str, channels: int) -> bool:
        """Tells whether the outputs of a fused layer are its queries, keys and values one behind the other."""
        parent, _, leaf = name.rpartition(".")
        attention, proj = self.modules[parent], self.modules.get(f"{parent}.proj")
        if leaf not in ("qkv", "kv") or not isinstance(self.modules[name], nn.Linear) or channels % len(leaf):
            return False
        # Some families order the outputs by head first, so that q, k and v alternate.
        interleaved = getattr(attention, "head_first", False) or hasattr(attention, "key_dim")
        return not interleaved and isinstance(proj, nn.Linear) and proj.in_features == channels // len(leaf)


def _same_positions(shape: tuple[int, ...], other: tuple[int, ...] | None, layout: Layout) -> bool:
    return layout.channel_dim == -1 and other is not None and shape[:-1] == other[:-1]


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        return True
    norm = (
        isinstance(module, (nn.LayerNorm, nn.BatchNorm2d, nn.GroupNorm)) and getattr(module, "weight", None) is not None
    )
    # A norm with an activation inside cannot absorb a scale and shift of its output.
    return norm and not any(module.children()) and getattr(module, "bias", None) is not None


def _channels(module: nn.Module) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    if isinstance(module, nn.Conv2d):
        return module.in_channels, module.out_channels
    weight = module.weight
    assert isinstance(weight, Tensor)
    return weight.shape[0], weight.shape[0]


def _place(name: str, leaf: str, module: nn.Module, inside: bool) -> str:
    if not inside:
        if name.startswith("patch_embed"):
            return "patch_embed"
        return "other" if isinstance(module, (nn.Linear, nn.Conv2d)) else "norm"
    if isinstance(module, nn.Linear):
        return f"{leaf}_layer" if leaf in _BRANCHES else _PLACES.get(leaf, leaf)
    if not isinstance(module, nn.Conv2d):
        return leaf if re.fullmatch(r"norm\d", leaf) else "norm"
    if module.groups > 1:
        return "depthwise"
    return "pointwise" if tuple(module.kernel_size) == (1, 1) else "conv"


def _convolution(module: nn.Module) -> Convolution | None:
    if not isinstance(module, nn.Conv2d):
        return None
    if type(module) is not nn.Conv2d and tuple(module.kernel_size) != (1, 1):
        # timm's "same" convolutions pad by the input's size, which a mirror would have to guess.
        return None
    padding = (0, 0) if isinstance(module.padding, str) else module.padding
    first, second = (tuple(int(value) for value in pair) for pair in (module.kernel_size, module.stride))
    return Convolution(
        (first[0], first[1]),
        (second[0], second[1]),
        (int(padding[0]), int(padding[1])),
        (int(module.dilation[0]), int(module.dilation[1])),
    )
