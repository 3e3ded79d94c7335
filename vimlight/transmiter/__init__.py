"""TransMiter: what fine-tuning changed in a weak image-text model, learnt on cached logits and moved to a strong one.

Names are imported at their first use, so that looking into a cache imports nothing it does not need.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vimlight.transmiter.cache import LogitCache, TextHead, check_paired, write_cache

__all__ = ["LogitCache", "TextHead", "check_paired", "write_cache"]

_HOMES = {
    "LogitCache": "cache",
    "TextHead": "cache",
    "check_paired": "cache",
    "write_cache": "cache",
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module at the first use.

    Raises:
        AttributeError: If there is no such name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    """Lists the public names."""
    return sorted(__all__)
