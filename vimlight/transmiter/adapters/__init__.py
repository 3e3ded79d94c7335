"""All kinds of adapters, and loading one of whatever kind a file holds."""

from __future__ import annotations

import os

from vimlight.errors import AdapterError, UnknownNameError
from vimlight.transmiter.adapters.file import AdapterCard, read_adapter, read_card
from vimlight.transmiter.adapters.gap_ridge import GapRidge
from vimlight.transmiter.adapters.transmiter import ADAPTERS, Adapter, TransMiter

__all__ = ["ADAPTERS", "Adapter", "AdapterCard", "GapRidge", "TransMiter", "load_adapter", "read_card"]


def load_adapter(path: str | os.PathLike[str]) -> Adapter:
    """Loads an adapter of any kind, in eval mode.

    Args:
        path: The file.

    Raises:
        AdapterError: If the file is missing, damaged, of a newer format or of an unknown kind.
    """
    card, tensors = read_adapter(path)
    try:
        kind = ADAPTERS[card.kind]
    except UnknownNameError as error:
        raise AdapterError(f"{os.fspath(path)!r}: {error}") from error
    return kind.rebuild(card, tensors)
