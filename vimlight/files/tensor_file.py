"""One safetensors file with a card in its header: what is packed, and how it is read with suspicion.

The header's metadata hold the card, a JSON text, and its SHA-256. To look at a card, or to compare a file with its
hashes, imports no torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from safetensors import SafetensorError, safe_open

from vimlight.errors import VimlightError
from vimlight.files.absent import absence
from vimlight.files.stored import Stored, StoredFile

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["PICKLES", "Opened", "as_tensors", "card_text", "opened", "pack", "sha256_of", "tensors_of"]

Opened = Literal["pt", "header", "stored"]
# How the files of `torch.save` and `pickle.dump` begin.
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def sha256_of(tensors: Mapping[str, Tensor | Stored]) -> str:
    """Returns the SHA-256 over the names, shapes, dtypes and bytes of tensors, in the order of their names.

    Args:
        tensors: Contiguous tensors on the CPU, or as they lie in a file, by name.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor | Stored) -> Any:
    if isinstance(tensor, Stored):
        return tensor.data
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy().data


def pack(card: str, tensors: dict[str, Tensor]) -> bytes:
    """Returns the content of a file.

    Args:
        card: The card.
        tensors: Contiguous tensors on the CPU, by name.
    """
    from safetensors.torch import save

    return save(tensors, {"card": card, "card_sha256": hashlib.sha256(card.encode()).hexdigest()})


@contextmanager
def opened(path: Path, reader: str, error: type[VimlightError], how: Opened = "pt") -> Iterator[Any]:
    """Opens a safetensors file.

    Args:
        path: The file.
        reader: Who reads it, as messages say it, such as `"a zoo"`.
        error: What to raise.
        how: `"pt"` to read torch's tensors, `"header"` to read none, `"stored"` to read them as they lie there; torch
            is imported for the first alone.

    Raises:
        VimlightError: `error`, if the file is missing, damaged or no safetensors file.
    """
    if path.suffix != ".safetensors":
        raise error(f"{path.name!r} is no .safetensors file; {reader} reads nothing else, since a pickle can run code")
    if not path.is_file():
        raise error(f"{str(path)!r} {absence(path)}")
    try:
        if how == "stored":
            yield StoredFile(path.read_bytes())
            return
        with safe_open(path, framework="pt" if how == "pt" else "np") as file:
            yield file
    except SafetensorError as cause:
        raise error(f"{path.name} {_diagnosis(path)} ({cause})") from cause
    except OSError as cause:
        raise error(f"{path.name} cannot be read: {cause}") from cause


def card_text(file: Any, path: Path, error: type[VimlightError]) -> str | None:
    """Returns the card of an opened file, or nothing if it has none.

    Args:
        file: The opened file.
        path: Its path, for messages.
        error: What to raise.

    Raises:
        VimlightError: `error`, if the card was altered.
    """
    metadata = file.metadata() or {}
    text: str | None = metadata.get("card")
    if text is not None and hashlib.sha256(text.encode()).hexdigest() != metadata.get("card_sha256"):
        raise error(f"{path.name}: the card was altered after it was saved (its SHA-256 differs)")
    return text


def tensors_of(file: Any, wanted: Callable[[str], bool] = lambda _: True) -> dict[str, Any]:
    """Returns copies of tensors of an opened file: what is mapped from the file would change with it.

    Args:
        file: The opened file.
        wanted: Which of them, by name; all by default.
    """
    found = {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118  (no mapping)
    return {name: each if isinstance(each, Stored) else each.clone() for name, each in found.items()}


def as_tensors(stored: Mapping[str, Stored], path: Path, error: type[VimlightError]) -> dict[str, Tensor]:
    """Returns tensors of torch, which share the memory of what was read.

    Args:
        stored: Tensors as they lie in a file, by name.
        path: Its path, for messages.
        error: What to raise.

    Raises:
        VimlightError: `error`, if torch has no such type.
    """
    try:
        return {name: each.tensor() for name, each in stored.items()}
    except SafetensorError as cause:
        raise error(f"{path.name} cannot be read: {cause}") from cause


def _diagnosis(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(PICKLES):
        return "is a pickle under a false name and is not read, since a pickle can run code"
    return "is truncated or damaged; fetch or export it again"
