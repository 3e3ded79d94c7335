"""The manifest of a cache: everything that its numbers depend on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vimlight.errors import CacheError, shown
from vimlight.files.json_text import check_version, json_of
from vimlight.masking import masked

__all__ = ["CHECKSUMS", "FORMAT", "LABELS", "MANIFEST", "FileEntry", "Manifest", "read_manifest"]

FORMAT = 1
MANIFEST = "manifest.json"
LABELS = "labels.npy"
# The CRC-32 of each block of the other files; caches of earlier versions have none.
CHECKSUMS = "checksums.json"


_NUMBER = int | float | None
# What JSON has for the entries.
_KINDS: dict[str, Any] = {
    "model": str, "split": str, "class_names": list, "aux_names": list, "rows": int, "views": int, "width": int | None,
    "dtype": str, "scale": _NUMBER, "bias": _NUMBER, "partitions": dict, "weights": str, "preprocessing": dict,
    "text": dict, "data": dict, "augmentation": dict, "vocabulary": dict, "model_arguments": dict, "files": dict,
}  # fmt: skip


@dataclass(frozen=True)
class FileEntry:
    """Size and content of a file.

    Attributes:
        bytes: Its size.
        sha256: SHA-256 of its content, in hexadecimal digits.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """Everything that the numbers of a cache depend on; times and machines are no part of it.

    Attributes:
        model: The model's name.
        split: The split of the data set that was cached, such as `"train"`.
        class_names: The C task classes, which are the first columns of the logits.
        aux_names: The A auxiliary classes, which are the columns behind them.
        rows: Number of images N.
        views: Number of views V of each image; view 0 is the image as in evaluation.
        width: Width E of the features; none for bare logits.
        dtype: Type of the stored features or logits.
        scale: Factor of the cosines; none for bare logits.
        bias: What is added to every logit; none for bare logits.
        partitions: Named sets of class indices, such as `base` and `novel`.
        weights: SHA-256 of the model's weights, where they are known.
        preprocessing: How an image became the model's input.
        text: Templates of the class names, and which tokeniser read them.
        data: Data set, its arguments, sampling and seed.
        augmentation: What the views beyond the first are, and their seed.
        vocabulary: How the auxiliary names were drawn.
        model_arguments: What the model is loaded by, for those who need its text tower again.
        files: Size and hash of every file.
    """

    model: str
    split: str
    class_names: tuple[str, ...]
    aux_names: tuple[str, ...] = ()
    rows: int = 0
    views: int = 1
    width: int | None = None
    dtype: str = "float32"
    scale: float | None = None
    bias: float | None = None
    partitions: dict[str, list[int]] = field(default_factory=dict)
    weights: str = ""
    preprocessing: dict[str, Any] = field(default_factory=dict)
    text: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    augmentation: dict[str, Any] = field(default_factory=dict)
    vocabulary: dict[str, Any] = field(default_factory=dict)
    model_arguments: dict[str, Any] = field(default_factory=dict)
    files: dict[str, FileEntry] = field(default_factory=dict)

    @property
    def num_classes(self) -> int:
        """Number of task classes C."""
        return len(self.class_names)

    @property
    def num_logits(self) -> int:
        """Number of columns M = C + A."""
        return len(self.class_names) + len(self.aux_names)

    @property
    def array(self) -> str:
        """Name of the file of features or logits."""
        return "logits.npy" if self.width is None else "features.npy"

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of that file's array, `(N, V, E)` or `(N, V, M)`."""
        return self.rows, self.views, self.num_logits if self.width is None else self.width

    @property
    def hash(self) -> str:
        """SHA-256 over the whole content, the hashes of the files included."""
        return hashlib.sha256(_canonical(dataclasses.asdict(self))).hexdigest()

    def to_json(self) -> str:
        """Writes the manifest down, with the format's number and its own hash."""
        content = {"format": FORMAT, "hash": self.hash, **dataclasses.asdict(self)}
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads what `to_json` wrote.

        Raises:
            CacheError: If it is no manifest, one of a newer format, or an altered one.
        """
        content = _parsed(text)
        check_version(content, FORMAT, CacheError, what="is not read", key="format")
        content.pop("format")
        stated = content.pop("hash", None)
        if set(content) != {entry.name for entry in dataclasses.fields(cls)}:
            raise CacheError("was altered after it was written: it has other entries")
        if hashlib.sha256(_canonical(content)).hexdigest() != stated:
            raise CacheError("was altered after it was written (its SHA-256 differs)")
        _check(content)
        content["class_names"], content["aux_names"] = tuple(content["class_names"]), tuple(content["aux_names"])
        content["files"] = {name: FileEntry(**entry) for name, entry in content["files"].items()}
        return cls(**content)

    def without_secrets(self) -> Manifest:
        """Returns a copy with what is secret masked in what data and model were opened with."""
        return self.replace(data=masked(self.data), model_arguments=masked(self.model_arguments))

    def replace(self, **changes: Any) -> Manifest:
        """Returns a copy with some entries changed."""
        return dataclasses.replace(self, **changes)


def read_manifest(directory: Path) -> Manifest:
    """Reads the manifest of a cache.

    Args:
        directory: The cache.

    Raises:
        CacheError: If it is missing, altered or of another format.
    """
    path = directory / MANIFEST
    try:
        return Manifest.from_json(path.read_text(encoding="utf-8"))
    except CacheError as error:
        raise CacheError(f"{path} {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise CacheError(f"{path} cannot be read: {error}") from error


def _check(content: Mapping[str, Any]) -> None:
    """Checks the types of what whoever computed the hash wrote down.

    Raises:
        CacheError: If one is another; the text names the entry.
    """
    fits = {key: isinstance(content[key], kind) and content[key] is not True for key, kind in _KINDS.items()}
    for key in ("class_names", "aux_names"):
        fits[key] = fits[key] and all(isinstance(name, str) for name in content[key])
    count = len(content["class_names"]) if fits["class_names"] else 0
    fits["rows"] = fits["rows"] and content["rows"] >= 0
    fits["partitions"] = fits["partitions"] and all(
        isinstance(part, list) and all(type(index) is int and 0 <= index < count for index in part)
        for part in content["partitions"].values()
    )
    fits["files"] = fits["files"] and all(
        isinstance(entry, dict)
        and {key: type(value) for key, value in entry.items()} == {"bytes": int, "sha256": str}
        for entry in content["files"].values()
    )
    wrong = next((key for key, right in fits.items() if not right), None)
    if wrong is not None:
        raise CacheError(f"has an entry {wrong!r} that makes no sense: {shown(content[wrong])}")


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json_of(text, "its text", CacheError)
    except CacheError as error:
        raise CacheError(f"is damaged: {error}") from error
    if not isinstance(content, dict):
        raise CacheError("is no manifest of a logit cache")
    return content
