"""Samples in tar files as WebDataset writes them: consecutive files whose names are alike up to the first dot."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vimlight.errors import DataError, shown
from vimlight.files.text import is_file

__all__ = ["Sample", "read_samples"]


@dataclass(frozen=True)
class Sample:
    """One sample of a tar file.

    Attributes:
        file: The tar file.
        key: What the names of its files have in common.
        places: Offset and size in bytes of its files by extension, in lower case.
    """

    file: Path
    key: str
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def place(self, extensions: Sequence[str]) -> tuple[int, int]:
        """Returns offset and size of its file of the first of these extensions that it has.

        Raises:
            DataError: If it has none of them.
        """
        for extension in extensions:
            if extension in self.places:
                return self.places[extension]
        wanted, there = ", ".join(extensions), ", ".join(self.places)
        raise DataError(f"{self.file}: sample {shown(self.key)} has no file {wanted}, only {there}")

    def read(self, extensions: Sequence[str]) -> io.BytesIO:
        """Reads its file of the first of these extensions that it has; see `place`."""
        offset, size = self.place(extensions)
        with self.file.open("rb") as stream:
            stream.seek(offset)
            return io.BytesIO(stream.read(size))


def read_samples(file: Path) -> list[Sample]:
    """Lists the samples of a tar file, reading their headers alone.

    Nothing is copied: images stay where they are and can be read in any order.

    Raises:
        DataError: If it is missing, damaged, cut off or compressed, or has one file of a sample twice.
    """
    samples: list[Sample] = []
    length = file.stat().st_size if is_file(file) else 0
    for name, offset, size in _members(file):
        if not 0 <= offset <= offset + size <= length:
            raise DataError(f"{file} is cut off within {shown(name)}, or no whole tar file")
        folder, slash, base = name.rpartition("/")
        stem, dot, extension = base.partition(".")
        if not dot or not stem:
            continue
        key = f"{folder}{slash}{stem}"
        if not samples or samples[-1].key != key:
            samples.append(Sample(file, key))
        if extension.lower() in samples[-1].places:
            raise DataError(f"{file}: sample {shown(key)} has two files {extension}")
        samples[-1].places[extension.lower()] = (offset, size)
    return samples


def _members(file: Path) -> Iterator[tuple[str, int, int]]:
    """Yields name, offset and size of the regular files."""
    try:
        # Not `tarfile.open`, which unpacks: bytes of compressed files have no place that could be read later.
        with file.open("rb") as stream, tarfile.TarFile(fileobj=stream) as archive:
            for member in archive:
                if member.isfile():
                    yield member.name, member.offset_data, member.size
            # Where a file ends within a header, tarfile takes that for the end of the archive.
            stream.seek(archive.offset)
            block = stream.read(tarfile.BLOCKSIZE)
            if len(block) < tarfile.BLOCKSIZE or block.strip(b"\0"):
                raise DataError(f"{file} is cut off, or no whole tar file")
    except (OSError, ValueError, LookupError, EOFError, OverflowError, tarfile.TarError) as error:
        raise DataError(f"cannot read {file}: {error}; expected an uncompressed tar file") from error
