"""The factors of PEFT's layers and those of a module's units: parts of a fused layer are put together and taken apart.

PEFT knows whole layers only. Units at parts of one layer, such as the queries and values of a fused `qkv`, become one
adapter of the sum of their ranks, whose up factor is zero where a part does not write.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["CARD", "Factors", "join", "split"]

# Key of the module's card in the header of the tensors' file.
CARD = "vimlight"
_PART = re.compile(r"(.+)\[(\w)\]")


class Factors(NamedTuple):
    """The two factors of a layer's change.

    Attributes:
        down: `(r, in)`, of a convolution `(r, in, kh, kw)`.
        up: `(out, r)`, of a convolution `(out, r, 1, 1)`.
    """

    down: Tensor
    up: Tensor


def join(sites: Sequence[str], tensors: Mapping[str, Tensor]) -> dict[str, Factors]:
    """Returns the factors of whole layers.

    Args:
        sites: Names of the module's sites.
        tensors: The module's tensors by name.
    """
    layers: dict[str, list[tuple[str, Factors]]] = {}
    for site in sites:
        layer, part = _layer(site)
        layers.setdefault(layer, []).append((part, Factors(*(tensors[key] for key in _keys(site)))))
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
    if {_layer(site)[0] for site in sites} != set(layers):
        raise ValueError("the layers are not those of the sites")
    tensors: dict[str, Tensor] = {}
    for layer, (down, up) in layers.items():
        mine = [site for site in sites if _layer(site)[0] == layer]
        if down.shape[0] % len(mine):
            raise ValueError("the rank is no multiple of the number of parts")
        rank = down.shape[0] // len(mine)
        for number, site in enumerate(mine):
            ranks, key = slice(number * rank, (number + 1) * rank), _keys(site)
            tensors[key[0]] = down[ranks].contiguous()
            tensors[key[1]] = up.flatten(1)[_rows(layer, _layer(site)[1], up.shape[0]), ranks].contiguous()
    return tensors


def _joined(layer: str, units: Sequence[tuple[str, Factors]]) -> Factors:
    down = torch.cat([factors.down for _, factors in units])
    letters = _letters(layer)
    width = max(factors.up.shape[0] * (len(letters) if part else 1) for part, factors in units)
    up, first = down.new_zeros(width, down.shape[0]), 0
    for part, factors in units:
        ranks = slice(first, first := first + factors.up.shape[1])
        up[_rows(layer, part, width), ranks] = factors.up
    return Factors(down, up if down.dim() == 2 else up[:, :, None, None])


def _rows(layer: str, part: str, width: int) -> slice:
    if not part:
        return slice(None)
    letters = _letters(layer)
    size = width // len(letters)
    return slice(letters.index(part) * size, (letters.index(part) + 1) * size)


def _layer(site: str) -> tuple[str, str]:
    """Returns a site's layer, and the letter of its part or nothing."""
    found = _PART.fullmatch(site)
    return (found[1], found[2]) if found else (site, "")


def _letters(layer: str) -> str:
    """Returns the parts of a fused layer in order, which its name spells."""
    return layer.removesuffix(".linear").rpartition(".")[2]


def _keys(site: str) -> tuple[str, str]:
    unit = site.replace(".", "/")
    return f"units.{unit}.down", f"units.{unit}.up"
