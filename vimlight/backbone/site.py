"""A place in a backbone where a plug-in reads and writes, as a value."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from vimlight.backbone.layout import Layout
from vimlight.errors import BackboneError

__all__ = ["Convolution", "Site", "Sites"]


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
        index: Where the tensor that is written stands in `output_module`'s output, where that is a tuple or list.
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
    index: int | None = None
    part: tuple[int, int] | None = None
    convolution: Convolution | None = None
    foldable: bool = False

    def tensor(self, output: Any) -> Tensor:
        """Returns the tensor that is written out of `output_module`'s output.

        Args:
            output: That output.
        """
        found: Tensor = output if self.index is None else output[self.index]
        return found

    def put(self, output: Any, changed: Tensor) -> Any:
        """Returns `output_module`'s output with another tensor in the place of the one that is written.

        Args:
            output: That output.
            changed: The other tensor.
        """
        if self.index is None:
            return changed
        return type(output)(changed if index == self.index else x for index, x in enumerate(output))


@dataclasses.dataclass(frozen=True)
class Sites:
    """All sites of a model, by family, in the order of the forward pass.

    Attributes:
        branches: Attention and MLP branches.
        blocks: Whole blocks.
        layers: Single layers.
        maps: Outputs that are the maps which timm itself gives of the model, in timm's order; nothing is attached here.
    """

    branches: tuple[Site, ...]
    blocks: tuple[Site, ...]
    layers: tuple[Site, ...]
    maps: tuple[Site, ...] = ()

    def __iter__(self) -> Iterator[Site]:
        """Iterates over every site of the three families."""
        return iter(self.branches + self.blocks + self.layers)

    def check_size(self, name: str, size: tuple[int, int], known: tuple[int, int]) -> None:
        """Refuses images in which it is not certain where tokens lie: those of another size than the layouts'.

        Args:
            name: Name of the model.
            size: Height and width of the images.
            known: Those of the images that the sites were found with.

        Raises:
            BackboneError: If they differ and a block's tokens are a grid.
        """
        if size != known and any(site.layout.grid != (0, 0) for site in self.blocks):
            raise BackboneError(
                f"the tokens of {name!r} are known to lie in images of {known[0]} x {known[1]} pixels, not of "
                f"{size[0]} x {size[1]}; create it with img_size: [{size[0]}, {size[1]}]"
            )
