"""Weight files of other tools, read without running what is in them, and what those of CLIP tell of themselves."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from torch import Tensor

from vimlight.errors import CheckpointError, VimlightError, shown
from vimlight.files.absent import absence
from vimlight.files.checked_members import CheckedMembers
from vimlight.files.torchscript import is_archive, read_archive

__all__ = ["WEIGHT_FAULTS", "WeightFile", "first_line", "read_plain", "read_weights"]

# What OpenAI's first models keep beside their weights; nobody else's do.
_OPENAI = {"input_resolution", "context_length", "vocab_size"}
# Pickles are small programs, and torch's readers believe what they say.
WEIGHT_FAULTS = (
    RuntimeError, OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, OverflowError, AssertionError,
    MemoryError, struct.error, SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip
# Torch packs the code of a program at most, and no tensor.
_LARGEST_PACKED = 1 << 26


@dataclass(frozen=True)
class WeightFile:
    """What a weight file holds.

    Attributes:
        path: The file.
        tensors: Its tensors by name, on the CPU, in their own types.
        openai: Whether it says that it is one of the models of Radford et al. 2021, "Learning Transferable Visual
            Models From Natural Language Supervision", which have QuickGELU and a normalisation of their own: by its
            three extra entries, or as the code of an archive with that activation.
        gelu: Whether it says that its activation is GELU, as the code of other archives does.
    """

    path: Path
    tensors: dict[str, Tensor]
    openai: bool = False
    gelu: bool = False

    @property
    def is_clip(self) -> bool:
        """Whether the tensors have the names of OpenAI's and open_clip's image-text models with towers of their own."""
        return "visual.conv1.weight" in self.tensors


def read_weights(path: Path, what: str = "checkpoint", error: type[VimlightError] = CheckpointError) -> WeightFile:
    """Reads the tensors of a `.safetensors` file, of `torch.save`, or of a TorchScript archive.

    What training tools wrap around a state dictionary is taken off, and the `module.` in front of its names.

    Args:
        path: The file.
        what: What messages call it.
        error: What to raise.

    Raises:
        VimlightError: `error`, if the file is missing, unsafe or damaged.
    """
    with _explained(path, what, error):
        found = _read(path)
    if not (found.is_clip and found.tensors.keys() >= _OPENAI):
        return found
    return replace(found, openai=True, tensors={k: v for k, v in found.tensors.items() if k not in _OPENAI})


def read_plain(path: Path, what: str = "checkpoint", error: type[VimlightError] = CheckpointError) -> Any:
    """Reads what `torch.save` wrote: tensors and plain values, in whichever dictionaries and lists.

    Args:
        path: The file.
        what: What messages call it.
        error: What to raise.

    Raises:
        VimlightError: `error`, if the file is missing, unsafe or damaged.
    """
    with _explained(path, what, error):
        return torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def _explained(path: Path, what: str, error: type[VimlightError]) -> Iterator[None]:
    """Says of a file that is missing, or that a library does not read, what is wrong with it."""
    if not path.is_file():
        raise error(f"{what} {str(path)!r} {absence(path)}")
    try:
        _check_members(path, what, error)
        yield
    except WEIGHT_FAULTS as cause:
        # Both libraries name the global that a pickle would call; other words mean that the file is damaged.
        if "unsupported global" in str(cause).lower():
            raise error(
                f"{path.name} holds more than plain tensors and is not read, since a pickle can run code; "
                "save its state_dict as .safetensors"
            ) from cause
        raise error(f"{path.name} is damaged or no weight file: {first_line(cause)}") from cause


def _check_members(path: Path, what: str, error: type[VimlightError]) -> None:
    """Refuses a zip file with members that unpack to whatever size, or were altered; Python looks at programs itself.

    Raises:
        ValueError: If there is one of any size.
        VimlightError: `error`, if one was altered.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        packed = (each for each in archive.infolist() if each.compress_type != zipfile.ZIP_STORED)
        large = next((each.filename for each in packed if each.file_size > _LARGEST_PACKED), None)
    if large is not None:
        raise ValueError(f"{shown(large)} is compressed, which torch does with no tensor")
    if not is_archive(path):
        with CheckedMembers(path, f"{what} {str(path)!r}", error) as file:
            file.check_all()


def first_line(error: Exception) -> str:
    """Returns the first line of another library's error, or its type where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read(path: Path) -> WeightFile:
    if is_archive(path):
        tensors, code = read_archive(path)
        found = WeightFile(path, tensors, gelu="torch.gelu(" in code)
        # QuickGELU is x * sigmoid(1.702 x), and CLIP has no other sigmoid.
        return replace(found, openai=found.is_clip and not found.gelu and "torch.sigmoid(" in code)
    state = timm.models.load_state_dict(str(path), weights_only=True)
    return WeightFile(path, {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)})
