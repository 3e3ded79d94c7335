"""The file of an offline run of W&B: a log of records in LevelDB's form, behind seven bytes of its own."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vimlight.errors import ConfigError, cut

__all__ = ["wandb_records"]

_MARK, _START = b":W&B", 7
# A block, and what stands before each part of a record: checksum, length and which part it is.
_BLOCK, _HEADER = 32768, struct.Struct("<IHB")
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def wandb_records(file: Path) -> list[Any]:
    """Returns the records of a run, as W&B's own protocol has them; of one that was killed, those that are whole.

    Args:
        file: The file, `run-ID.wandb`.

    Raises:
        ConfigError: If it cannot be read, or was not written by W&B.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made when it is imported

    try:
        data = file.read_bytes()
        if not data.startswith(_MARK):
            raise ConfigError(f"{file} is no file of a W&B run; it does not begin with {_MARK.decode()!r}")
        return [Record.FromString(content) for content in _contents(data)]
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise ConfigError(f"{file} is damaged ({cut(error)})") from error


def _contents(data: bytes) -> Iterator[bytes]:
    """Yields what the log holds, each put together from its parts."""
    parts, place = b"", _START
    while place + _HEADER.size <= len(data):
        left = _BLOCK - place % _BLOCK
        if left < _HEADER.size:
            place += left
            continue
        _, size, part = _HEADER.unpack_from(data, place)
        place += _HEADER.size
        if part not in (_WHOLE, _FIRST, _MIDDLE, _LAST) or place + size > len(data):
            return
        parts += data[place : place + size]
        place += size
        if part in (_WHOLE, _LAST):
            yield parts
            parts = b""
