"""Checksums of what is read: fast enough to look at every payload once in a process.

They tell damage from use, not forgery: CRC-32, as zip files have it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vimlight.errors import VimlightError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCK", "BlockSums", "CheckedFile", "check_members", "crc32_of"]

# Bytes of a file that are looked at together: read within a millisecond, and few enough to be listed.
BLOCK = 1 << 20
# Where a zip file says how long a member's name and what follows it are.
_LENGTHS, _LOCAL = slice(26, 30), 30


def crc32_of(tensors: Mapping[str, Tensor]) -> int:
    """Returns the CRC-32 over the names, shapes, dtypes and bytes of tensors, in the order of their names.

    Args:
        tensors: Contiguous tensors on the CPU, by name.
    """
    import torch

    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = zlib.crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
    return crc


class BlockSums:
    """The CRC-32 of each block of a file that is written from front to back."""

    def __init__(self) -> None:
        self._sums: list[int] = []
        self._filled = BLOCK

    def update(self, piece: bytes) -> None:
        """Adds what is written next."""
        rest = memoryview(piece)
        while rest:
            if self._filled == BLOCK:
                self._sums.append(0)
                self._filled = 0
            part = rest[: BLOCK - self._filled]
            self._sums[-1] = zlib.crc32(part, self._sums[-1])
            self._filled += len(part)
            rest = rest[len(part) :]

    def sums(self) -> list[int]:
        """Returns the checksums of what was added."""
        return list(self._sums)


class CheckedFile:
    """A file whose blocks are compared with their checksums before they are used, each of them once.

    Args:
        path: The file.
        sums: The CRC-32 of each block.
        error: What to raise.
    """

    def __init__(self, path: Path, sums: Sequence[int], error: type[VimlightError]) -> None:
        self._path, self._error = path, error
        self._sums = np.asarray(sums, dtype=np.uint32)
        self._missing = np.ones(len(sums), dtype=bool)

    def check(self, starts: Iterable[int], length: int) -> None:
        """Looks at some pieces of the file.

        Args:
            starts: Where each piece begins.
            length: Bytes of a piece, at least 1.

        Raises:
            VimlightError: If a block was altered since it was written.
        """
        if not self._missing.any():
            return
        begin = np.asarray(starts, dtype=np.int64)
        first, last = begin // BLOCK, (begin + length - 1) // BLOCK
        near = np.unique([np.minimum(first + step, last) for step in range(length // BLOCK + 2)])
        for block in near[self._missing[near]].tolist():
            self._look(block)

    def check_all(self) -> None:
        """Looks at the whole file.

        Raises:
            VimlightError: If a block was altered since it was written.
        """
        for block in np.flatnonzero(self._missing).tolist():
            self._look(block)

    def _look(self, block: int) -> None:
        with self._path.open("rb", buffering=0) as file:
            file.seek(block * BLOCK)
            found = zlib.crc32(file.read(BLOCK))
        if found != self._sums[block]:
            raise self._error(
                f"{str(self._path)!r} was altered or damaged after it was written (block {block} of "
                f"{len(self._sums)}, its checksum differs); restore it from a copy, or make it anew"
            )
        self._missing[block] = False


def check_members(content: bytes, what: str, error: type[VimlightError]) -> None:
    """Compares the members of a zip file, as `torch.save` writes it, with their own checksums; torch does not look.

    Args:
        content: The file's content.
        what: What it is, as messages say it.
        error: What to raise.

    Raises:
        VimlightError: `error`, if it is no zip file, or a member was altered since it was written.
    """
    view = memoryview(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as cause:
        raise error(f"{what} is damaged or was not written by torch.save: {cause}") from cause
    for member in members:
        lengths = view[member.header_offset :][_LENGTHS]
        name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
        start = member.header_offset + _LOCAL + name + extra
        stored = member.compress_type == zipfile.ZIP_STORED
        if not stored or zlib.crc32(view[start : start + member.file_size]) != member.CRC:
            raise error(
                f"{what} was altered or damaged after it was written ({member.filename!r}: its checksum differs); "
                "restore it from a copy, or take an earlier one"
            )
