"""Results on disk: one small file for each, written whole, and named by all that the result depends on."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vimlight import __version__
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole
from vimlight.files.json_text import check_version, json_object
from vimlight.masking import masked

__all__ = ["Store", "key_of"]

_SUM, _VERSION, _NEWEST = "crc32", "format_version", 1


def key_of(content: Mapping[str, Any]) -> str:
    """Returns the key of a result: a hash over what it depends on and the version of this package.

    With another token or password it is the same result.

    Args:
        content: Plain values.
    """
    text = json.dumps({"vimlight": __version__, **masked(content)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Store:
    """A directory of results.

    Several processes, on one machine or on many that share the directory, may write into it: nobody finds half a file,
    and whoever computes the same thing writes the same.

    Args:
        folder: The directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, key: object) -> bool:
        """Tells whether there is a result."""
        return self._path(str(key)).is_file()

    def read(self, key: str) -> dict[str, Any] | None:
        """Returns a result, or nothing if there is none.

        Args:
            key: Its key.

        Raises:
            ConfigError: If its file was damaged, or is of a newer format.
        """
        path = self._path(key)
        if not path.is_file():
            return None
        try:
            content = json_object(path.read_bytes(), path.name, ConfigError)
            _check_sum(content)
        except ConfigError as error:
            raise ConfigError(f"{path} is damaged; delete it, and the same command computes it anew") from error
        check_version(content, _NEWEST, ConfigError, what=str(path), unstated=1)
        content.pop(_VERSION, None)
        return content

    def write(self, key: str, content: Mapping[str, Any]) -> None:
        """Writes a result, less what is secret in it.

        Args:
            key: Its key.
            content: Plain values.
        """
        whole = {_VERSION: _NEWEST, **masked(content)}
        whole[_SUM] = _sum_of(whole)
        write_whole(self._path(key), json.dumps(whole, indent=1, ensure_ascii=False) + "\n", overwrite=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"


def _check_sum(content: dict[str, Any]) -> None:
    """Takes the checksum off a result; it or the version is left by damage, and earlier versions wrote neither."""
    stated = content.pop(_SUM, None)
    if (stated is not None or _VERSION in content) and stated != _sum_of(content):
        raise ConfigError("its checksum differs")


def _sum_of(content: Mapping[str, Any]) -> int:
    """Returns the checksum of what a result says, however its text is laid out."""
    plain = json.loads(json.dumps(content))
    return zlib.crc32(json.dumps(plain, sort_keys=True).encode())
