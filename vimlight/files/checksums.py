"""Checksums of what is read: fast enough to look at every payload once in a process.

They tell damage from use, not forgery: CRC-32, as zip files have it. Intel's library takes it of what lies in the
processor's memory twenty times as fast as zlib, so that what is read is looked at piece by piece on its way.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from isal.isal_zlib import crc32

from vimlight.errors import VimlightError
from vimlight.files.raw_file import RawFile

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BLOCK", "BlockSums", "CheckedFile", "crc32_of", "pieces"]

# Bytes of a file that are looked at together: read within a millisecond, and few enough to be listed.
BLOCK = 1 << 20
# Bytes that a core still has at hand once it has read them: their checksum costs next to nothing then.
_PIECE = 1 << 18


def pieces(file: io.FileIO, buffer: memoryview) -> Iterator[memoryview]:
    """Fills a buffer from an open file and yields each piece once it is filled, fewer where the file ends.

    Args:
        file: The file.
        buffer: What to fill.
    """
    done = 0
    while done < len(buffer) and (count := file.readinto(buffer[done : done + _PIECE])):
        yield buffer[done : done + count]
        done += count


def crc32_of(tensors: Mapping[str, Tensor]) -> int:
    """Returns the CRC-32 over the names, shapes, dtypes and bytes of tensors, in the order of their names.

    Args:
        tensors: Contiguous tensors on the CPU, by name.
    """
    import torch

    crc = 0
    for name, tensor in sorted(tensors.items()):
        crc = crc32(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode(), crc)
        crc = crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, crc)
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
            self._sums[-1] = crc32(part, self._sums[-1])
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
        self.path, self._error = path, error
        self._sums = np.asarray(sums, dtype=np.uint32)
        self._missing = np.ones(len(sums), dtype=bool)

    @property
    def is_checked(self) -> bool:
        """Whether all blocks were looked at."""
        return not self._missing.any()

    def is_missing(self, block: int) -> bool:
        """Tells whether a block is still to be looked at."""
        return block < len(self._missing) and bool(self._missing[block])

    def check(self, starts: Iterable[int], length: int) -> None:
        """Looks at some pieces of the file.

        Args:
            starts: Where each piece begins.
            length: Bytes of a piece, at least 1.

        Raises:
            VimlightError: If a block was altered since it was written.
        """
        if self.is_checked:
            return
        begin = np.asarray(starts, dtype=np.int64)
        first, last = begin // BLOCK, (begin + length - 1) // BLOCK
        near = np.unique([np.minimum(first + step, last) for step in range(length // BLOCK + 2)])
        self._look(near[self._missing[near]].tolist())

    def check_all(self) -> None:
        """Looks at the whole file.

        Raises:
            VimlightError: If a block was altered since it was written.
        """
        self._look(np.flatnonzero(self._missing).tolist())

    def compare(self, block: int, content: bytes | memoryview) -> None:
        """Looks at a block that was read.

        Args:
            block: Its number.
            content: What was read.

        Raises:
            VimlightError: If it was altered since it was written.
        """
        if crc32(content) != self._sums[block]:
            raise self._error(
                f"{str(self.path)!r} was altered or damaged after it was written (block {block} of "
                f"{len(self._sums)}, its checksum differs); restore it from a copy, or make it anew"
            )
        self._missing[block] = False

    def opened(self) -> io.BufferedReader:
        """Opens the file to read it from front to back: of blocks that were not looked at, none is read unseen.

        Raises:
            OSError: If it cannot be opened.
        """
        return io.BufferedReader(_CheckedBlocks(self), BLOCK)

    def _look(self, blocks: Sequence[int]) -> None:
        if not blocks:
            return
        with self.path.open("rb", buffering=0) as file:
            for block in blocks:
                file.seek(block * BLOCK)
                self.compare(block, file.read(BLOCK))


class _CheckedBlocks(RawFile):
    """The file block by block: each is looked at while it lies in the processor's memory."""

    def __init__(self, checked: CheckedFile) -> None:
        super().__init__(checked.path)
        self._checked = checked

    def readinto(self, buffer: Any) -> int:
        view, start = memoryview(buffer).cast("B"), self.tell()
        block, begun = divmod(start, BLOCK)
        view = view[: BLOCK - begun]
        missing = self._checked.is_missing(block)
        if missing and len(view) < BLOCK:
            self._checked.check([start], 1)
        count = sum(map(len, pieces(self._file, view)))
        if missing and len(view) == BLOCK:
            self._checked.compare(block, view[:count])
        return count
