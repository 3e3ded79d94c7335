"""One module, one safetensors file: writing it whole or not at all, and reading it with suspicion.

A module's file holds its tensors and, in the metadata of its header, its card and the card's SHA-256; the card holds
the SHA-256 of the tensors. A head's file holds its tensors and their SHA-256, which the module's card repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from vimlight.errors import ZooError
from vimlight.files.finite import check_finite
from vimlight.files.tensor_file import card_text, opened, pack, sha256_of, tensors_of
from vimlight.zoo.card import Card

__all__ = ["pack_head", "pack_module", "plain", "read_card", "read_head", "read_module", "sha256_of"]

_opened = partial(opened, reader="a zoo", error=ZooError)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to the CPU, contiguous and sharing no memory, as safetensors wants them.

    Args:
        tensors: Tensors of any device, by name.

    Raises:
        ZooError: If there are none, or something is no tensor.
    """
    if not tensors:
        raise ZooError("there are no tensors to save")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ZooError(f"{name!r} must be a tensor, not {type(tensor).__name__}")
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def pack_module(card: Card, tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a module's file.

    Args:
        card: The card, with the tensors' hash.
        tensors: Contiguous tensors on the CPU, by name.
    """
    return pack(card.to_json(), tensors)


def pack_head(tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a head's file.

    Args:
        tensors: Contiguous tensors on the CPU, by name.
    """
    return save(tensors, {"head_sha256": sha256_of(tensors)})


def read_card(path: Path) -> Card:
    """Reads the card of a module from the header of its file.

    Args:
        path: The file.

    Raises:
        ZooError: If the file is missing, truncated, altered in its card, of a newer format or not a module's.
    """
    with _opened(path) as file:
        return _card(file, path)


def read_module(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads a module's card and tensors and checks both hashes.

    Args:
        path: The file.

    Raises:
        ZooError: As `read_card`, or if the tensors were altered or are not finite.
    """
    with _opened(path) as file:
        card = _card(file, path)
        tensors = tensors_of(file)
    if sha256_of(tensors) != card.sha256:
        raise ZooError(f"{path.name}: the tensors were altered after they were saved (their SHA-256 differs)")
    check_finite(tensors, path.name, ZooError)
    return card, tensors


def read_head(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Reads the tensors of a head and checks their hash.

    Args:
        path: The file.

    Returns:
        The hash and the tensors by name.

    Raises:
        ZooError: If the file is missing, truncated, altered, not finite or not a head's.
    """
    with _opened(path) as file:
        sha256 = (file.metadata() or {}).get("head_sha256")
        tensors = tensors_of(file)
    if sha256 is None:
        raise ZooError(f"{path.name} holds no head")
    if sha256_of(tensors) != sha256:
        raise ZooError(f"{path.name}: the head was altered after it was saved (its SHA-256 differs)")
    check_finite(tensors, path.name, ZooError)
    return sha256, tensors


def _card(file: Any, path: Path) -> Card:
    text = card_text(file, path, ZooError)
    if text is None:
        raise ZooError(f"{path.name} holds tensors but no card, so it is no module of a zoo; write it with Zoo.add")
    try:
        return Card.from_json(text)
    except ZooError as error:
        raise ZooError(f"{path.name}: {error}") from error
