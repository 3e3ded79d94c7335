"""Tensors as they lie in a safetensors file: enough to compare them with their hashes, without waiting for torch."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, deserialize

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Stored", "StoredFile"]

# What torch calls the types of tensors whose names in a file say less than a letter and their bits.
_NAMES = {
    "BOOL": "bool", "BF16": "bfloat16", "F8_E4M3": "float8_e4m3fn", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2": "float8_e5m2", "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E8M0": "float8_e8m0fnu",
}  # fmt: skip
_LETTERS = {"F": "float", "I": "int", "U": "uint", "C": "complex"}
# An integer of the same size, and its bits that are all set where the number is NaN or infinite: the exponent's.
_EXPONENTS = {
    "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000), "C64": ("<u4", 0x7F800000),
    "F64": ("<u8", 0x7FF0000000000000),
}  # fmt: skip


# safetensors ships no types for it.
_read: Any = deserialize


@dataclass(frozen=True)
class Stored:
    """One tensor.

    Attributes:
        shape: Its shape.
        kind: Its type as the file names it, such as `"F32"`.
        data: Its bytes.
    """

    shape: tuple[int, ...]
    kind: str
    data: bytearray

    @property
    def dtype(self) -> str:
        """Its type as torch prints it, such as `"torch.float32"`."""
        return f"torch.{_NAMES.get(self.kind) or _LETTERS.get(self.kind[0], '?') + self.kind[1:]}"

    def numel(self) -> int:
        """Returns how many numbers it has."""
        return math.prod(self.shape)

    def tensor(self) -> Tensor:
        """Returns it as a tensor of torch, which shares its memory.

        Raises:
            SafetensorError: If torch has no such type.
        """
        import torch

        dtype = getattr(torch, self.dtype.removeprefix("torch."), None)
        if dtype is None:
            raise SafetensorError(f"torch {torch.__version__} has no numbers of type {self.kind}")
        # torch takes no empty buffer.
        numbers = torch.frombuffer(self.data, dtype=dtype) if self.data else torch.empty(0, dtype=dtype)
        return numbers.reshape(self.shape)

    def not_finite(self) -> int:
        """Counts the numbers that are NaN or infinite; of types that have no such numbers, none."""
        import numpy as np

        if self.kind not in _EXPONENTS:
            return 0
        integer, exponent = _EXPONENTS[self.kind]
        found = (np.frombuffer(self.data, integer) & exponent) == exponent
        return int(found.reshape(self.numel(), -1).any(axis=1).sum()) if found.any() else 0


class StoredFile:
    """A file's content, with the methods of an opened file of `safetensors`.

    Args:
        content: All of it.

    Raises:
        SafetensorError: If it is damaged or no safetensors file.
    """

    def __init__(self, content: bytes) -> None:
        self._tensors = {
            name: Stored(tuple(entry["shape"]), entry["dtype"], entry["data"]) for name, entry in _read(content)
        }
        length = int.from_bytes(content[:8], "little")
        self._metadata: dict[str, str] = json.loads(content[8 : 8 + length]).get("__metadata__") or {}

    def metadata(self) -> dict[str, str]:
        """Returns what the header says beside the tensors."""
        return self._metadata

    def keys(self) -> list[str]:
        """Returns the names of the tensors."""
        return list(self._tensors)

    def get_tensor(self, name: str) -> Any:
        """Returns a tensor, a `Stored`.

        Args:
            name: Its name.
        """
        return self._tensors[name]
