"""An adapter as one safetensors file: its tensors, and a card that says whose logits it refines and how it was made."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from torch import Tensor

from vimlight.errors import AdapterError, nearest, shown
from vimlight.files.atomic import write_whole
from vimlight.files.finite import check_finite
from vimlight.files.json_text import check_version, json_of
from vimlight.files.tensor_file import as_tensors, card_text, opened, pack, sha256_of, tensors_of
from vimlight.masking import masked

__all__ = ["FORMAT_VERSION", "AdapterCard", "check_path", "read_adapter", "read_card", "write_adapter"]

FORMAT_VERSION = 1
_READER = "vimlight"
# What JSON has for the fields of a card.
_KINDS: dict[str, type] = {
    "kind": str, "settings": dict, "class_names": list, "aux_names": list, "model": str, "history": list, "sha256": str,
}  # fmt: skip
_ENTRIES: dict[str, type] = {"class_names": str, "aux_names": str, "history": dict}
_WORDS: dict[type, str] = {dict: "mapping", list: "list", str: "text"}


@dataclasses.dataclass(frozen=True)
class AdapterCard:
    """What an adapter's file says about it.

    Attributes:
        kind: Kind of adapter, `"transmiter"` or `"gap_ridge"`.
        settings: Arguments that make one of the same form.
        class_names: The C task classes, the first columns of the logits; empty if nobody said.
        aux_names: The auxiliary classes, the columns behind them.
        model: The model whose logits it refines; empty if nobody said.
        history: How it came to be, step by step, the earliest first; each step names itself under `"step"`, and the
            hashes of the caches it looked at under `"caches"`.
        sha256: SHA-256 over the names, shapes, dtypes and bytes of its tensors.
        format_version: Version of the file's format.
        versions: Versions of the libraries that wrote the file.
        date: When it was written, ISO 8601.
    """

    kind: str
    settings: dict[str, Any]
    class_names: tuple[str, ...] = ()
    aux_names: tuple[str, ...] = ()
    model: str = ""
    history: tuple[dict[str, Any], ...] = ()
    sha256: str = ""
    format_version: int = FORMAT_VERSION
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    date: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        """The names of all columns, task classes first."""
        return self.class_names + self.aux_names

    def after(self, step: str, **facts: Any) -> tuple[dict[str, Any], ...]:
        """Returns the history with one more step.

        Args:
            step: Its name.
            **facts: What there is to say of it, as plain values.
        """
        return (*self.history, {"step": step, **masked(facts)})

    def to_json(self) -> str:
        """Returns the card as a JSON object."""
        return json.dumps(vars(self))

    @classmethod
    def from_json(cls, text: str) -> AdapterCard:
        """Reads a card.

        Args:
            text: A JSON object with this class's fields.

        Raises:
            AdapterError: If it is no such object, of a newer format, or has missing or unknown keys.
        """
        values = json_of(text, "the card", AdapterError)
        if not isinstance(values, dict) or "fingerprint" in values:
            raise AdapterError("this is no adapter of logits; those are written by `vimlight fit` and `transfer`")
        check_version(values, FORMAT_VERSION, AdapterError)
        known = [field.name for field in dataclasses.fields(cls)]
        missing = [name for name in ("kind", "settings") if name not in values]
        for key in (key for key in values if key not in known):
            close = nearest(key, known, 1)
            raise AdapterError(f"unknown card key {shown(key)}" + (f"; did you mean {close[0]!r}?" if close else ""))
        if missing:
            raise AdapterError(f"the card lacks {', '.join(map(repr, missing))}")
        _check_kinds(values)
        tuples = {key: tuple(values[key]) for key in ("class_names", "aux_names", "history") if key in values}
        return cls(**values | tuples)


def _check_kinds(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        kind = _KINDS.get(key, object)
        if not isinstance(value, kind):
            raise AdapterError(f"card key {shown(key)} must be a {_WORDS[kind]}, not {shown(value)}")
        wanted = _ENTRIES.get(key, object)
        if isinstance(value, list) and not all(isinstance(entry, wanted) for entry in value):
            raise AdapterError(f"card key {key!r} must be a list, each entry a {_WORDS[wanted]}, not {shown(value)}")


def write_adapter(
    path: str | os.PathLike[str], card: AdapterCard, tensors: Mapping[str, Tensor], overwrite: bool
) -> AdapterCard:
    """Writes an adapter's file, whole or not at all.

    Args:
        path: Where to write, ending in `.safetensors`.
        card: The card; hash, versions and date are filled in.
        tensors: The tensors, of any device, by name.
        overwrite: Whether an existing file is replaced.

    Returns:
        The card as it was written.

    Raises:
        AdapterError: If the path ends in something else, or a tensor is not finite.
        ConfigError: If the file exists and `overwrite` is false.
    """
    file = check_path(path)
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    check_finite(copies, f"adapter {file.name}", AdapterError)
    card = dataclasses.replace(
        card,
        sha256=sha256_of(copies),
        versions={name: importlib.metadata.version(name) for name in ("vimlight", "torch")},
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    write_whole(file, pack(card.to_json(), copies), overwrite=overwrite)
    return card


def check_path(path: str | os.PathLike[str]) -> Path:
    """Returns the path of an adapter's file.

    Raises:
        AdapterError: If it does not end in `.safetensors`.
    """
    file = Path(path).expanduser()
    if file.suffix != ".safetensors":
        raise AdapterError(f"an adapter is a .safetensors file; {str(file)!r} ends in {file.suffix!r}")
    return file


def read_card(path: str | os.PathLike[str]) -> AdapterCard:
    """Reads the card from the header of an adapter's file.

    Args:
        path: The file.

    Raises:
        AdapterError: If the file is missing, truncated, altered in its card, of a newer format or no adapter's.
    """
    file = Path(path).expanduser()
    with opened(file, _READER, AdapterError) as content:
        return _card(content, file)


def read_adapter(path: str | os.PathLike[str]) -> tuple[AdapterCard, dict[str, Tensor]]:
    """Reads an adapter's card and tensors and checks both hashes.

    Args:
        path: The file.

    Raises:
        AdapterError: As `read_card`, or if the tensors were altered or are not finite.
    """
    file = Path(path).expanduser()
    with opened(file, _READER, AdapterError, "stored") as content:
        card, tensors = _card(content, file), tensors_of(content)
    if sha256_of(tensors) != card.sha256:
        raise AdapterError(f"{file.name}: the tensors were altered after they were saved (their SHA-256 differs)")
    check_finite(tensors, file.name, AdapterError)
    return card, as_tensors(tensors, file, AdapterError)


def _card(content: Any, file: Path) -> AdapterCard:
    text = card_text(content, file, AdapterError)
    if text is None:
        raise AdapterError(f"{file.name} holds tensors but no card, so it is no adapter")
    try:
        return AdapterCard.from_json(text)
    except AdapterError as error:
        raise AdapterError(f"{file.name}: {error}") from error
