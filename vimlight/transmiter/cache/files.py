"""The files of a cache, written once from front to back and hashed on the way."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vimlight.errors import DataError
from vimlight.files.checksums import BLOCK, BlockSums
from vimlight.transmiter.cache.manifest import CHECKSUMS, MANIFEST, FileEntry, Manifest
from vimlight.transmiter.cache.names import STARTS, TEXT, encode_names

__all__ = ["CacheFiles"]


class CacheFiles:
    """Writes files into the directory of a cache that is being made, and keeps their sizes and hashes.

    Args:
        directory: An empty directory.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.entries: dict[str, FileEntry] = {}
        self._sums: dict[str, Sequence[int]] = {}

    def array(self, name: str, values: NDArray[Any]) -> None:
        """Writes an array."""
        self.stream(name, values.shape, str(values.dtype), [values])

    def stream(self, name: str, shape: tuple[int, ...], dtype: str, blocks: Iterable[NDArray[Any]]) -> None:
        """Writes an array of which only a block is in memory at a time.

        Args:
            name: The file, `.npy`.
            shape: Shape of the whole array.
            dtype: Its type.
            blocks: Its rows, in order.

        Raises:
            DataError: If the blocks have fewer or more rows than the array.
        """
        rows = 0

        def pieces() -> Iterable[bytes]:
            nonlocal rows
            yield _header(shape, dtype)
            for block in blocks:
                rows += len(block)
                yield np.ascontiguousarray(block, dtype=dtype).tobytes()

        self._write(name, pieces())
        if rows != shape[0]:
            raise DataError(f"{name}: {rows} rows instead of {shape[0]}")

    def names(self, ids: Sequence[str]) -> None:
        """Writes the sample ids and where each begins."""
        text, starts = encode_names(ids)
        self._write(TEXT, [text])
        self.array(STARTS, starts)

    def share(self, name: str, source: Path, entry: FileEntry, sums: Sequence[int] | None) -> None:
        """Takes a file over from another cache: as a hard link, or as a copy where there are no links.

        Args:
            name: The file.
            source: Where it is.
            entry: Its size and hash.
            sums: The checksums of its blocks; none where they are not known.
        """
        try:
            os.link(source, self.directory / name)
        except OSError:
            shutil.copyfile(source, self.directory / name)
        self.entries[name] = entry
        if sums is not None:
            self._sums[name] = sums

    def manifest(self, manifest: Manifest) -> Manifest:
        """Writes the checksums and the manifest, completed by what was written before it, and returns it."""
        content = {"block": BLOCK, "crc32": dict(sorted(self._sums.items()))}
        self._write(CHECKSUMS, [json.dumps(content).encode()])
        whole = manifest.replace(files=dict(sorted(self.entries.items())))
        (self.directory / MANIFEST).write_text(whole.to_json(), encoding="utf-8")
        return whole

    def _write(self, name: str, pieces: Iterable[bytes]) -> None:
        digest, sums, size = hashlib.sha256(), BlockSums(), 0
        with (self.directory / name).open("xb") as file:
            for piece in pieces:
                file.write(piece)
                digest.update(piece)
                sums.update(piece)
                size += len(piece)
        self.entries[name] = FileEntry(size, digest.hexdigest())
        self._sums[name] = sums.sums()


def _header(shape: tuple[int, ...], dtype: str) -> bytes:
    buffer = io.BytesIO()
    description = np.lib.format.dtype_to_descr(np.dtype(dtype))
    np.lib.format.write_array_header_1_0(buffer, {"descr": description, "fortran_order": False, "shape": shape})
    return buffer.getvalue()
