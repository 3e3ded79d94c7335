"""The factors of PEFT's layers and those of a module's units: parts of a fused layer are put together and taken apart.

PEFT knows whole layers only. Units at parts of one layer, such as the queries and values of a fused `qkv`, become one
adapter of the sum of their ranks, whose up factor is zero where a part does not write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["CARD", "Factors", "join", "layer_of", "split"]

# Key of the module's card in the header of the tensors' file.
CARD = "vimlight"
_PART = re.compile(r"(.+)\[(\w)\]")


class Factors(NamedTuple):
    """The two factors of a layer's change, and what is added to their product.

    Attributes:
        down: `(r, in)`, of a convolution `(r, in, kh, kw)`.
        up: `(out, r)`, of a convolution `(out, r, 1, 1)`.
        bias: `(out,)`, or nothing.
    """

    down: Tensor
    up: Tensor
    bias: Tensor | None = None

    def does_something(self) -> bool:
        """Tells whether the change is not zero for whatever input."""
        return bool(self.up.any()) or (self.bias is not None and bool(self.bias.any()))

    def change(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Returns what PEFT adds to a layer's output, before the scale.

        Its first factor has a convolution's kernel, stride and padding, but neither its dilation nor its groups.

        Args:
            layer: The layer, linear or a convolution.
            x: The layer's input.
        """
        if not isinstance(layer, nn.Conv2d):
            return F.linear(F.linear(x, self.down), self.up, self.bias)
        return F.conv2d(F.conv2d(x, self.down, stride=layer.stride, padding=layer.padding), self.up, self.bias)


def join(sites: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Returns the factors of whole layers.

    Args:
        sites: Names of the module's sites.
        tensors: The module's tensors by name.
    """
    layers: dict[str, list[tuple[str, Factors]]] = {}
    for site in sites:
        layer, part = layer_of(site)
        down, up, bias = _keys(site)
        layers.setdefault(layer, []).append((part, Factors(tensors[down], tensors[up], tensors.get(bias))))
    return {layer: _joined(layer, units) for layer, units in layers.items()}


def split(sites: Sequence[str], layers: Mapping[str, Factors]) -> dict[str, Tensor]:
    """Returns a module's tensors from the factors of whole layers; undoes `join`.

    Args:
        sites: Names of the module's sites.
        layers: The layers' factors.

    Raises:
        KeyError: If a layer is missing.
        ValueError: If there are others, or ranks do not divide.
    """
    if {layer_of(site)[0] for site in sites} != set(layers):
        raise ValueError("the layers are not those of the sites")
    tensors: dict[str, Tensor] = {}
    for layer, (down, up, bias) in layers.items():
        mine = [site for site in sites if layer_of(site)[0] == layer]
        if down.shape[0] % len(mine):
            raise ValueError("the rank is no multiple of the number of parts")
        rank = down.shape[0] // len(mine)
        for number, site in enumerate(mine):
            ranks, rows = slice(number * rank, (number + 1) * rank), _rows(layer, layer_of(site)[1], up.shape[0])
            parts = down[ranks], up.flatten(1)[rows, ranks], None if bias is None else bias[rows]
            tensors |= {
                key: part.contiguous() for key, part in zip(_keys(site), parts, strict=True) if part is not None
            }
    return tensors


def _joined(layer: str, units: Sequence[tuple[str, Factors]]) -> Factors:
    down = torch.cat([factors.down for _, factors in units])
    letters = _letters(layer)
    width = max(factors.up.shape[0] * (len(letters) if part else 1) for part, factors in units)
    up, first = down.new_zeros(width, down.shape[0]), 0
    bias = None if units[0][1].bias is None else down.new_zeros(width)
    for part, factors in units:
        ranks, rows = slice(first, first := first + factors.up.shape[1]), _rows(layer, part, width)
        up[rows, ranks] = factors.up
        if bias is not None and factors.bias is not None:
            bias[rows] += factors.bias
    return Factors(down, up if down.dim() == 2 else up[:, :, None, None], bias)


def _rows(layer: str, part: str, width: int) -> slice:
    if not part:
        return slice(None)
    letters = _letters(layer)
    size = width // len(letters)
    return slice(letters.index(part) * size, (letters.index(part) + 1) * size)


def layer_of(site: str) -> tuple[str, str]:
    """Returns a site's layer, and the letter of its part or nothing."""
    found = _PART.fullmatch(site)
    return (found[1], found[2]) if found else (site, "")


def _letters(layer: str) -> str:
    """Returns the parts of a fused layer in order, which its name spells."""
    return layer.removesuffix(".linear").rpartition(".")[2]


def _keys(site: str) -> tuple[str, str, str]:
    unit = site.replace(".", "/")
    return f"units.{unit}.down", f"units.{unit}.up", f"units.{unit}.bias"
