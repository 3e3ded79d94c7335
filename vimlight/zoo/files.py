"""One module, one safetensors file: writing it whole or not at all, and reading it with suspicion.

A module's file holds its tensors, those of the head that was trained with it and, in the metadata of its header, its
card and the card's SHA-256; the card holds the SHA-256 of both. Earlier versions wrote the head to a file of its own,
`NAME.head.safetensors`, with its SHA-256 in the header; such pairs are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vimlight.errors import ZooError
from vimlight.files.finite import check_finite
from vimlight.files.replaced import unreplaced
from vimlight.files.stored import Stored
from vimlight.files.tensor_file import as_tensors, card_text, opened, pack, sha256_of, tensors_of
from vimlight.zoo.card import Card
from vimlight.zoo.names import HEAD_SUFFIX, SIGNATURE_SUFFIX

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "beside", "check_head", "check_module", "pack_module", "plain", "read_card", "read_head", "read_module",
    "sha256_of", "signature_beside",
]  # fmt: skip

# What the names of a head's tensors begin with; no name of a module's has a slash.
_HEAD = "head/"

_opened = partial(opened, reader="a zoo", error=ZooError)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies tensors to the CPU, contiguous and sharing no memory, as safetensors wants them.

    Args:
        tensors: Tensors of any device, by name.

    Raises:
        ZooError: If there are none, or something is no tensor.
    """
    import torch
    from torch import Tensor

    if not tensors:
        raise ZooError("there are no tensors to save")
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise ZooError(f"{name!r} must be a tensor, not {type(tensor).__name__}")
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }


def pack_module(card: Card, tensors: Mapping[str, Tensor], head: Mapping[str, Tensor] | None = None) -> bytes:
    """Returns the content of a module's file.

    Args:
        card: The card, with the hashes of the tensors and of the head's.
        tensors: Contiguous tensors on the CPU, by name.
        head: Those of its head, if it has one.
    """
    return pack(card.to_json(), {**tensors, **{_HEAD + name: tensor for name, tensor in (head or {}).items()}})


def read_card(path: Path) -> Card:
    """Reads the card of a module from the header of its file.

    Args:
        path: The file.

    Raises:
        ZooError: If the file is missing, truncated, altered in its card, of a newer format or not a module's.
    """
    with _opened(path, how="header") as file:
        return _card(file, path)


def check_module(path: Path) -> Card:
    """Compares a module with its hash and returns its card, as `read_module` does, and needs no torch for it.

    Args:
        path: The file.

    Raises:
        ZooError: As `read_module`.
    """
    return unreplaced(path, _read_module)[0]


def check_head(path: Path) -> None:
    """Compares the head of a module with its hash, if it has one, as `read_head` does, and needs no torch for it.

    Args:
        path: The module's file.

    Raises:
        ZooError: As `read_head`.
    """
    unreplaced(path, _read_head)


def read_module(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """Reads a module's card and tensors and checks both hashes; its head is left where it is.

    Args:
        path: The file.

    Raises:
        ZooError: As `read_card`, or if the tensors were altered or are not finite.
    """
    card, tensors = unreplaced(path, _read_module)
    return card, as_tensors(tensors, path, ZooError)


def _read_module(path: Path) -> tuple[Card, dict[str, Stored]]:
    with _opened(path, how="stored") as file:
        card = _card(file, path)
        tensors = tensors_of(file, lambda name: not name.startswith(_HEAD))
    if sha256_of(tensors) != card.sha256:
        raise ZooError(f"{path.name}: the tensors were altered after they were saved (their SHA-256 differs)")
    check_finite(tensors, path.name, ZooError)
    return card, tensors


def read_head(path: Path) -> dict[str, Tensor] | None:
    """Reads the tensors of a module's head and checks their hash.

    Args:
        path: The module's file. Earlier versions wrote the head to a file of its own beside it.

    Returns:
        The tensors by name; nothing where the module has no head.

    Raises:
        ZooError: As `read_card`, or if the head is missing, was altered, is not finite or is another module's.
    """
    tensors = unreplaced(path, _read_head)
    return None if tensors is None else as_tensors(tensors, path, ZooError)


def _read_head(path: Path) -> dict[str, Stored] | None:
    with _opened(path, how="stored") as file:
        card = _card(file, path)
        tensors = {
            name.removeprefix(_HEAD): tensor
            for name, tensor in tensors_of(file, lambda name: name.startswith(_HEAD)).items()
        }
    if not tensors and not card.head:
        return None
    if not tensors:
        return _head_beside(path, card)
    if sha256_of(tensors) != card.head:
        raise ZooError(f"{path.name}: the head was altered after it was saved (its SHA-256 differs)")
    check_finite(tensors, f"{path.name}: the head", ZooError)
    return tensors


def beside(path: Path) -> Path:
    """Returns where earlier versions wrote the head of a module.

    Args:
        path: The module's file.
    """
    return path.with_name(f"{path.name.removesuffix(path.suffix)}{HEAD_SUFFIX}{path.suffix}")


def signature_beside(path: Path) -> Path:
    """Returns where the signature of a module lies, if it has one.

    Args:
        path: The module's file.
    """
    return path.with_suffix(SIGNATURE_SUFFIX)


def _head_beside(module: Path, card: Card) -> dict[str, Stored]:
    path = beside(module)
    if not path.is_file():
        raise ZooError(f"{module.name} has lost its head: {path.name} is missing; the module itself is whole")
    with _opened(path, how="stored") as file:
        stated, tensors = (file.metadata() or {}).get("head_sha256"), tensors_of(file)
    if sha256_of(tensors) != stated:
        raise ZooError(f"{path.name}: the head was altered after it was saved (its SHA-256 differs)")
    if stated != card.head:
        raise ZooError(f"{path.name} is not the head that {module.name} was saved with; move it away")
    check_finite(tensors, path.name, ZooError)
    return tensors


def _card(file: Any, path: Path) -> Card:
    text = card_text(file, path, ZooError)
    if text is None:
        raise ZooError(f"{path.name} holds tensors but no card, so it is no module of a zoo; write it with Zoo.add")
    try:
        return Card.from_json(text)
    except ZooError as error:
        raise ZooError(f"{path.name}: {error}") from error
