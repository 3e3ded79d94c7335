"""What the frozen first blocks made of the images, kept on disk: computed once, read in every later pass."""

from __future__ import annotations

from vimlight.prefix_cache.cache import FrozenPart, PrefixCache
from vimlight.prefix_cache.store import Column, Store

__all__ = ["Column", "FrozenPart", "PrefixCache", "Store"]
