"""Files of `torch.save`, whose members are compared with their checksums while torch reads them."""

from __future__ import annotations

import io
import zipfile
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from isal.isal_zlib import crc32

from vimlight.errors import VimlightError
from vimlight.files.checksums import BLOCK, pieces
from vimlight.files.raw_file import RawFile

__all__ = ["CheckedMembers"]

# Where a zip file says how long a member's name and what follows it are.
_LENGTHS, _LOCAL = slice(26, 30), 30


class CheckedMembers(RawFile):
    """A file for `torch.load` that ends where a member begins that was altered.

    An exception would have to pass through torch's own code, so that what is wrong is kept until that has ended.

    Args:
        path: The file.
        what: What it is, as messages say it.
        error: What to raise.

    Raises:
        OSError: If the file cannot be opened.
        VimlightError: `error`, if it is no zip file.
    """

    def __init__(self, path: Path, what: str, error: type[VimlightError]) -> None:
        self._what, self._error = what, error
        self._altered = ""
        super().__init__(path)
        try:
            members = self._members()
        except VimlightError:
            self._file.close()
            raise
        self._unseen = {self._start(member): member for member in members}
        if len(self._unseen) < len(members):
            self._altered = "two members in one place"
        # As torch writes them where `torch.serialization.set_crc32_options` says so.
        if not any(member.CRC for member in members):
            self._unseen.clear()
        self.seek(0)

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, after or while looking at the members that lie there.

        Args:
            buffer: What to fill.

        Returns:
            The number of bytes; 0 at the end, or if a member was altered.
        """
        start, view = self.tell(), memoryview(buffer).cast("B")
        member = self._unseen.get(start)
        if member is not None and member.file_size == len(view):
            # As torch reads them: each piece is looked at while it lies in the processor's memory.
            self._compare(start, pieces(self._file, view))
        else:
            self._look(start, start + len(view))
            self.seek(start)
            deque(pieces(self._file, view), maxlen=0)
        return 0 if self._altered else self.tell() - start

    def check(self) -> None:
        """Raises what was found wrong with what was read.

        Raises:
            VimlightError: If a member was altered since it was written.
        """
        if self._altered:
            raise self._error(
                f"{self._what} was altered or damaged after it was written ({self._altered!r}: its checksum differs); "
                "restore it from a copy, or take an earlier one"
            )

    def check_all(self) -> None:
        """Looks at all members.

        Raises:
            VimlightError: If one was altered since it was written.
        """
        self._look(0, self.seek(0, io.SEEK_END))
        self.seek(0)
        self.check()

    def _members(self) -> list[zipfile.ZipInfo]:
        try:
            with zipfile.ZipFile(self._file) as archive:
                return archive.infolist()
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as cause:
            raise self._error(f"{self._what} is damaged or was not written by torch.save: {cause}") from cause

    def _start(self, member: zipfile.ZipInfo) -> int:
        self.seek(member.header_offset)
        lengths = self._file.read(_LOCAL)[_LENGTHS]
        name, extra = int.from_bytes(lengths[:2], "little"), int.from_bytes(lengths[2:], "little")
        return member.header_offset + _LOCAL + name + extra

    def _look(self, start: int, end: int) -> None:
        """Looks at the members between two places that were not looked at before."""
        near = [each for each, member in self._unseen.items() if each < end and each + member.file_size > start]
        for each in near:
            self.seek(each)
            size = self._unseen[each].file_size
            lengths = (min(BLOCK, size - done) for done in range(0, size, BLOCK))
            self._compare(each, (self._file.read(length) for length in lengths))

    def _compare(self, start: int, content: Iterable[bytes | memoryview]) -> None:
        member, found = self._unseen.pop(start), 0
        for piece in content:
            found = crc32(piece, found)
        if member.compress_type != zipfile.ZIP_STORED or found != member.CRC:
            self._altered = self._altered or member.filename
