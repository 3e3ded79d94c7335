"""Where plug-ins attach: the sites of a timm model, found by running it once.

Three families of sites are found, and each is verified by a probe: a module that was not called, or whose tensors do
not fit together, is no site.

* *branches*: the attention and MLP branches of transformer blocks, read at the (normed) input of `blocks.i.attn` or
  `blocks.i.mlp` and written where the branch joins the residual stream, behind any LayerScale;
* *blocks*: whole residual blocks or stages, of transformers and of convolutional and hierarchical models alike;
* *layers*: single linear, convolution and norm layers; a fused `qkv` counts as one layer and as its three parts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Literal

import torch
from torch import Tensor, nn

__all__ = ["Convolution", "Layout", "Site", "Sites", "find_sites"]

# Layers of the same role have different names in timm's families.
_PLACES = {
    "q_proj": "q", "k_proj": "k", "v_proj": "v", "out_proj": "proj",
    "fc1_g": "fc1", "fc1_x": "fc1", "w12": "fc1", "w3": "fc2",
    # Parallel blocks: one layer in front of both branches, one behind each.
    "in_proj": "fc1", "attn_out_proj": "proj", "mlp_out_proj": "fc2",
    # LeViT: pairs of a linear layer and a norm, named by what the pair does.
    "ln": "proj", "ln1": "fc1", "ln2": "fc2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Layout:
    """How a site's tensor is laid out.

    Attributes:
        kind: `"NLC"` for tokens, `"NCHW"` or `"NHWC"` for maps, `"NC"` for vectors.
        prefix: Number of tokens before the patches (class and register tokens); 0 for maps.
        grid: Rows and columns of the patches of `"NLC"`; `(0, 0)` for maps, and where the tokens are no grid.
    """

    kind: Literal["NLC", "NCHW", "NHWC", "NC"]
    prefix: int = 0
    grid: tuple[int, int] = (0, 0)

    @property
    def channel_dim(self) -> int:
        """The dimension that holds the channels."""
        return 1 if self.kind == "NCHW" else -1


@dataclasses.dataclass(frozen=True)
class Convolution:
    """The geometry of a convolution layer, for plug-ins that mirror it."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in the backbone where a plug-in can read and write.

    Attributes:
        name: Unique name, such as `"blocks.3.attn"` or `"blocks.3.attn.qkv[q]"`.
        place: Its role: `"attn"`, `"mlp"`, `"block"`, or a layer's role such as `"qkv"`, `"q"`, `"fc1"`, `"pointwise"`.
        depth: Index of the block it belongs to; -1 before the first block, the number of blocks behind the last.
        width: Channels of the tensor that is written.
        layout: Layout of the tensor that is written.
        input_width: Channels of the tensor at the input.
        input_module: Name of the module whose input is read.
        output_module: Name of the module whose output is written.
        residual_module: Name of the module whose input is the residual stream, where there is one.
        part: First and last + 1 channel of `output_module`'s output that belong to the site, where it is not all of it.
        convolution: Geometry, where the site is a convolution with fixed padding.
        foldable: Whether the site is a layer whose weights can absorb a linear change of its input or output.
    """

    name: str
    place: str
    depth: int
    width: int
    layout: Layout
    input_width: int
    input_module: str
    output_module: str
    residual_module: str | None = None
    part: tuple[int, int] | None = None
    convolution: Convolution | None = None
    foldable: bool = False


@dataclasses.dataclass(frozen=True)
class Sites:
    """All sites of a model, by family, in the order of the forward pass."""

    branches: tuple[Site, ...]
    blocks: tuple[Site, ...]
    layers: tuple[Site, ...]

    def __iter__(self) -> Iterator[Site]:
        """Iterates over every site of the three families."""
        return iter(self.branches + self.blocks + self.layers)


@dataclasses.dataclass(frozen=True)
class _Call:
    """What the probe saw of one module: its order and the shapes of its first input and its output."""

    order: int
    input: tuple[int, ...]
    output: tuple[int, ...]


def find_sites(model: nn.Module, size: tuple[int, int]) -> Sites:
    """Finds the sites of a timm model by its block names and one forward pass over an empty image.

    Args:
        model: A model made by timm, in eval mode.
        size: Height and width of the input in pixels.
    """
    calls = _probe(model, size)
    reader = _Reader(model, calls, size)
    names = [name for name in _block_names(model) if name in calls]
    names.sort(key=lambda name: calls[name].order)
    return Sites(
        branches=tuple(site for depth, name in enumerate(names) for site in reader.branches(name, depth)),
        blocks=tuple(reader.block(name, depth) for depth, name in enumerate(names)),
        layers=tuple(reader.layers(names)),
    )


def _block_names(model: nn.Module) -> list[str]:
    """Lists the residual blocks, by the patterns with which timm's models group their layers.

    Without such patterns the innermost elements of sequences that have parts of their own are taken for the blocks.
    """
    matcher = getattr(model, "group_matcher", None)
    groups = matcher(coarse=False) if callable(matcher) else {}
    patterns = groups.get("blocks") if isinstance(groups, dict) else None
    entries = [patterns] if isinstance(patterns, str) else list(patterns or [])
    # An entry with fixed ordinals is a norm or a downsampling between the blocks.
    regexes = [
        entry if isinstance(entry, str) else entry[0] for entry in entries if isinstance(entry, str) or entry[1] is None
    ]
    modules = {name: module for name, module in model.named_modules() if any(module.children())}
    if regexes:
        found = [name for name in modules if any(re.fullmatch(regex.lstrip("^"), name) for regex in regexes)]
    else:
        found = [name for name in modules if re.search(r"\.\d+$", name)]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


@torch.no_grad()
def _probe(model: nn.Module, size: tuple[int, int]) -> dict[str, _Call]:
    calls: dict[str, _Call] = {}
    repeated: set[str] = set()
    handles = []

    def record(name: str) -> Any:
        def hook(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            if name in calls:
                repeated.add(name)
            if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
                calls[name] = _Call(len(calls), tuple(args[0].shape), tuple(output.shape))

        return hook

    for name, module in model.named_modules():
        handles.append(module.register_forward_hook(record(name)))
    try:
        parameter = next(model.parameters())
        model(torch.zeros(1, 3, *size, device=parameter.device, dtype=parameter.dtype))
    finally:
        for handle in handles:
            handle.remove()
    return {name: call for name, call in calls.items() if name not in repeated}


class _Reader:
    """Turns module names into sites, with what the probe saw."""

    def __init__(self, model: nn.Module, calls: dict[str, _Call], size: tuple[int, int]) -> None:
        self.model = model
        self.modules = dict(model.named_modules())
        self.calls = calls
        self.size = size

    def branches(self, block: str, depth: int) -> Iterator[Site]:
        for place, index in (("attn", 1), ("mlp", 2)):
            branch, exit_, norm = f"{block}.{place}", f"{block}.drop_path{index}", f"{block}.norm{index}"
            if branch not in self.calls or exit_ not in self.calls:
                return
            call = self.calls[branch]
            shapes = {call.input, self.calls[exit_].output, self.calls[block].output}
            if len(shapes) != 1 or len(call.input) != 3:
                return
            yield Site(
                name=branch,
                place=place,
                depth=depth,
                width=call.input[-1],
                layout=self.layout(call.input, call.input[-1]),
                input_width=call.input[-1],
                input_module=branch,
                output_module=exit_,
                residual_module=norm if norm in self.calls and not self._post_norm(block, norm, index) else None,
            )

    def _post_norm(self, block: str, norm: str, index: int) -> bool:
        """Tells whether a block applies its norm behind the branch, so that its input is not the residual stream."""
        branch = f"{block}.{'attn' if index == 1 else 'mlp'}"
        return self.calls[norm].order > self.calls[branch].order

    def block(self, name: str, depth: int) -> Site:
        call = self.calls[name]
        width = self._width(name, call.output)
        return Site(
            name=name,
            place="block",
            depth=depth,
            width=width,
            layout=self.layout(call.output, width),
            # A block may change width and resolution, so at a block everything is read from its output.
            input_width=width,
            input_module=name,
            output_module=name,
        )

    def layers(self, blocks: list[str]) -> Iterator[Site]:
        orders = [self.calls[name].order for name in blocks]
        for name, call in sorted(self.calls.items(), key=lambda item: item[1].order):
            module = self.modules[name]
            if not _is_layer(module):
                continue
            inside = [depth for depth, block in enumerate(blocks) if name.startswith(f"{block}.")]
            before_blocks = bool(orders) and call.order < orders[0]
            depth = inside[0] if inside else (-1 if before_blocks else len(blocks))
            yield from self._layer(name, module, call, depth, inside=bool(inside))

    def _layer(self, name: str, module: nn.Module, call: _Call, depth: int, *, inside: bool) -> Iterator[Site]:
        leaf = name.removesuffix(".linear").rpartition(".")[2]
        channels = _channels(module)
        whole = Site(
            name=name,
            place=_place(name, leaf, module, inside),
            depth=depth,
            width=channels[1],
            layout=self._layer_layout(module, call),
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

    def _splits(self, name: str, channels: int) -> bool:
        """Tells whether the outputs of a fused layer are its queries, keys and values one behind the other."""
        parent, _, leaf = name.rpartition(".")
        attention, proj = self.modules[parent], self.modules.get(f"{parent}.proj")
        if leaf not in ("qkv", "kv") or not isinstance(self.modules[name], nn.Linear) or channels % len(leaf):
            return False
        # Some families order the outputs by head first, so that q, k and v alternate.
        interleaved = getattr(attention, "head_first", False) or hasattr(attention, "key_dim")
        return not interleaved and isinstance(proj, nn.Linear) and proj.in_features == channels // len(leaf)

    def _layer_layout(self, module: nn.Module, call: _Call) -> Layout:
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)) or type(module).__name__.endswith("2d"):
            return Layout("NCHW")
        if len(call.output) == 4:
            return Layout("NHWC")
        return self.layout(call.output, call.output[-1])

    def layout(self, shape: tuple[int, ...], width: int) -> Layout:
        if len(shape) == 2:
            return Layout("NC")
        if len(shape) == 4:
            channels_last = shape[-1] == width and (shape[1] != width or self._channels_last())
            return Layout("NHWC" if channels_last else "NCHW")
        return Layout("NLC", *self._tokens(shape[1]))

    def _tokens(self, tokens: int) -> tuple[int, tuple[int, int]]:
        """Splits a token count into prefix tokens and a grid of the input's proportions."""
        for prefix in (getattr(self.model, "num_prefix_tokens", 0), 0):
            patches = tokens - prefix
            declared = getattr(getattr(self.model, "patch_embed", None), "grid_size", None)
            if declared is not None and declared[0] * declared[1] == patches:
                return prefix, (int(declared[0]), int(declared[1]))
            rows = round((patches * self.size[0] / self.size[1]) ** 0.5)
            if rows > 0 and patches % rows == 0 and rows * self.size[1] == (patches // rows) * self.size[0]:
                return prefix, (rows, patches // rows)
        return 0, (0, 0)

    def _width(self, name: str, shape: tuple[int, ...]) -> int:
        if len(shape) != 4:
            return shape[-1]
        if shape[1] == shape[2] == shape[3]:
            return shape[1]
        # Maps are square in their spatial dimensions unless the input is not.
        first_is_channel = shape[2] * self.size[1] == shape[3] * self.size[0]
        last_is_channel = shape[1] * self.size[1] == shape[2] * self.size[0]
        if (first_is_channel and last_is_channel) or first_is_channel == last_is_channel:
            return shape[-1] if self._channels_last() else shape[1]
        return shape[1] if first_is_channel else shape[-1]

    def _channels_last(self) -> bool:
        return getattr(self.model, "output_fmt", "NCHW") == "NHWC"


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
        return _PLACES.get(leaf, leaf)
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
