"""One module, one safetensors file: writing it whole or not at all, and reading it with suspicion.

A module's file holds its tensors and, in the metadata of its header, its card and the card's SHA-256; the card holds
the SHA-256 of the tensors. A head's file holds its tensors and their SHA-256, which the module's card repeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from vimlight.errors import ZooError, nearest
from vimlight.zoo.card import Card

__all__ = ["pack_head", "pack_module", "plain", "read_card", "read_head", "read_module", "sha256_of"]

# How the files of `torch.save` and `pickle.dump` begin.
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


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


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Returns the SHA-256 over the names, shapes, dtypes and bytes of tensors, in the order of their names.

    Args:
        tensors: Contiguous tensors on the CPU, by name.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def pack_module(card: Card, tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a module's file.

    Args:
        card: The card, with the tensors' hash.
        tensors: Contiguous tensors on the CPU, by name.
    """
    text = card.to_json()
    return save(tensors, {"card": text, "card_sha256": hashlib.sha256(text.encode()).hexdigest()})


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
        ZooError: As `read_card`, or if the tensors were altered.
    """
    with _opened(path) as file:
        card = _card(file, path)
        tensors = _tensors(file)
    if sha256_of(tensors) != card.sha256:
        raise ZooError(f"{path.name}: the tensors were altered after they were saved (their SHA-256 differs)")
    return card, tensors


def read_head(path: Path) -> tuple[str, dict[str, Tensor]]:
    """Reads the tensors of a head and checks their hash.

    Args:
        path: The file.

    Returns:
        The hash and the tensors by name.

    Raises:
        ZooError: If the file is missing, truncated, altered or not a head's.
    """
    with _opened(path) as file:
        sha256 = (file.metadata() or {}).get("head_sha256")
        tensors = _tensors(file)
    if sha256 is None:
        raise ZooError(f"{path.name} holds no head")
    if sha256_of(tensors) != sha256:
        raise ZooError(f"{path.name}: the head was altered after it was saved (its SHA-256 differs)")
    return sha256, tensors


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if path.suffix != ".safetensors":
        raise ZooError(f"{path.name!r} is no .safetensors file; a zoo reads nothing else, since a pickle can run code")
    if not path.is_file():
        close = nearest(path.name, (file.name for file in path.parent.glob("*"))) if path.parent.is_dir() else []
        raise ZooError(f"{str(path)!r} does not exist" + (f"; did you mean {close[0]!r}?" if close else ""))
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise ZooError(f"{path.name} {_diagnosis(path)} ({error})") from error
    except OSError as error:
        raise ZooError(f"{path.name} cannot be read: {error}") from error


def _diagnosis(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(_PICKLES):
        return "is a pickle under a false name and is not read, since a pickle can run code"
    return "is truncated or damaged; fetch or export it again"


def _card(file: Any, path: Path) -> Card:
    metadata = file.metadata() or {}
    text = metadata.get("card")
    if text is None:
        raise ZooError(f"{path.name} holds tensors but no card, so it is no module of a zoo; write it with Zoo.add")
    if hashlib.sha256(text.encode()).hexdigest() != metadata.get("card_sha256"):
        raise ZooError(f"{path.name}: the card was altered after it was saved (its SHA-256 differs)")
    try:
        return Card.from_json(text)
    except ZooError as error:
        raise ZooError(f"{path.name}: {error}") from error


def _tensors(file: Any) -> dict[str, Tensor]:
    # Copies, since what is mapped from the file would change with it.
    return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (it is no mapping)
