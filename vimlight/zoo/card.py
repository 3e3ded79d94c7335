"""The card of a module: what it is, what it was trained on, how good it is and how it was made."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from vimlight.errors import ZooError, nearest, shown
from vimlight.files.json_text import check_version, json_object
from vimlight.masking import masked

if TYPE_CHECKING:
    from vimlight.plugins import Plugin

__all__ = ["FORMAT_VERSION", "REQUIRED", "Card", "describe", "library_versions"]

# 2: the head lies in the module's file.
FORMAT_VERSION = 2
_LIBRARIES = ("vimlight", "torch", "timm", "lightning")


@dataclasses.dataclass(frozen=True)
class Card:
    """What a zoo file says about its module.

    The fields up to `format_version` identify the module and are filled in from the plug-in; those from `task` on
    describe it and are the author's. A key that is no field is refused, on writing and on reading alike; keys of one's
    own belong under `extra`.

    Attributes:
        kind: Name of the plug-in type.
        settings: Settings of the type, complete.
        sites: Names of the sites that the units sit at, in order.
        backbone: Name of the backbone.
        fingerprint: Fingerprint of the backbone.
        preprocessing: What the backbone expects of its images.
        sha256: SHA-256 over the names, shapes, dtypes and bytes of the module's tensors.
        head: SHA-256 over the tensors of the head that was trained with the module; empty if there was none.
        blocks: In how many of the backbone's blocks it has units, such as `"12 of 12"`; empty where that is not known.
        format_version: Version of the file's format.
        task: Task kind, such as `"classification"`.
        dataset: Name of the data set.
        classes: Names of the classes, in the order of the head's outputs.
        samples: Number of images by split.
        metrics: Values by split and name, such as `{"val": {"accuracy": 0.93}}`.
        seed: Seed of the training.
        training: Settings of the training.
        versions: Versions of the libraries.
        date: When the module was made, ISO 8601.
        license: Licence, as an SPDX expression.
        author: Who answers for it.
        text: Anything else there is to say.
        extra: Further keys and values.
    """

    kind: str
    settings: dict[str, Any]
    sites: tuple[str, ...]
    backbone: str
    fingerprint: str
    preprocessing: dict[str, Any]
    sha256: str
    head: str = ""
    blocks: str = ""
    format_version: int = FORMAT_VERSION
    task: str = ""
    dataset: str = ""
    classes: tuple[str, ...] = ()
    samples: dict[str, int] = dataclasses.field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = dataclasses.field(default_factory=dict)
    seed: int | None = None
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    date: str = ""
    license: str = ""
    author: str = ""
    text: str = ""
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        """Returns the card as a JSON object.

        Raises:
            ZooError: If a value is nothing that JSON can hold.
        """
        for key, value in vars(self).items():
            try:
                json.dumps(value, default=_plain)
            except TypeError as error:
                raise ZooError(f"card key {shown(key)} holds something that JSON cannot: {error}") from error
        return json.dumps(vars(self), default=_plain)

    @classmethod
    def from_json(cls, text: str) -> Card:
        """Reads a card.

        Args:
            text: A JSON object with this class's fields.

        Raises:
            ZooError: If it is no such object, of a newer format, or has missing, unknown or mistyped keys.
        """
        values = json_object(text, "the card", ZooError)
        check_version(values, FORMAT_VERSION, ZooError)
        missing = [name for name in REQUIRED if name not in values]
        if missing:
            raise ZooError(f"the card lacks {', '.join(map(repr, missing))}")
        return cls(**_checked(values, _HINTS))


_HINTS = get_type_hints(Card)
# The fields that say which module it is have no defaults.
REQUIRED = list(_HINTS)[: list(_HINTS).index("head")]
_DESCRIBING = list(_HINTS)[list(_HINTS).index("task") :]


def describe(plugin: Plugin, given: Card | Mapping[str, Any], sha256: str, head: str) -> Card:
    """Makes the card of a plug-in.

    Args:
        plugin: The plug-in.
        given: The describing fields; of another module's card only those are taken. What is secret in them is masked.
        sha256: Hash of the plug-in's tensors.
        head: Hash of the head's tensors, or nothing.

    Raises:
        ZooError: If a key does not exist, belongs to the plug-in or has a value of the wrong type.
    """
    describing = {key: getattr(given, key) for key in _DESCRIBING} if isinstance(given, Card) else dict(given)
    for key in describing:
        if key in _HINTS and key not in _DESCRIBING:
            raise ZooError(f"card key {shown(key)} is filled in from the plug-in; leave it out")
    # Names of classes are what they are.
    describing = {key: value if key == "classes" else masked(value) for key, value in describing.items()}
    made = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": library_versions(),
    }
    return Card(
        kind=plugin.kind,
        settings=plugin.settings,
        sites=plugin.site_names,
        backbone=plugin.backbone_name,
        fingerprint=plugin.fingerprint,
        preprocessing=plugin.preprocessing.as_dict() if plugin.preprocessing else {},
        sha256=sha256,
        head=head,
        blocks=plugin.reach,
        **made | _checked(describing, {key: _HINTS[key] for key in _DESCRIBING}),
    )


def _checked(values: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    for key in values:
        if key not in hints:
            close = nearest(key, hints)
            hint = f"did you mean {close[0]!r}?" if close else "keys of your own belong under 'extra'"
            raise ZooError(f"unknown card key {shown(key)}; {hint}")
    return {key: _typed(key, value, hints[key]) for key, value in values.items()}


def _typed(key: str, value: Any, hint: Any) -> Any:
    """Returns a value as its field's type."""
    kind = get_origin(hint) or hint
    nested = kind is dict and get_origin(get_args(hint)[1]) is dict
    if kind is tuple:
        wanted, fits = "a list of texts", isinstance(value, (list, tuple)) and all(isinstance(x, str) for x in value)
    elif nested:
        fits = isinstance(value, Mapping) and all(isinstance(item, Mapping) for item in value.values())
        wanted = "a mapping by split"
    elif kind is dict:
        wanted, fits = "a mapping", isinstance(value, Mapping)
    else:
        wanted = "a text" if kind is str else "a whole number"
        fits = isinstance(value, hint) and not isinstance(value, bool)
    if not fits:
        raise ZooError(f"card key {shown(key)} must be {wanted}, not {reprlib.repr(value)}")
    return kind(value) if kind in (tuple, dict) else value


def _plain(value: Any) -> Any:
    """Turns what metrics come as, tensors and arrays of one element, into plain numbers."""
    if callable(getattr(value, "item", None)) and getattr(value, "ndim", 1) == 0:
        return value.item()
    raise TypeError(f"{reprlib.repr(value)} of type {type(value).__name__}")


def library_versions() -> dict[str, str]:
    """Returns the versions of Python and of the libraries that results depend on, as far as they are installed."""
    versions = {"python": platform.python_version()}
    for library in _LIBRARIES:
        # A source tree on the path is no installed distribution.
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[library] = importlib.metadata.version(library)
    return versions
