"""Zoos that people share: modules pushed to places elsewhere and pulled from there, with nothing taken on trust."""

from __future__ import annotations

from vimlight.zoo.sharing.hub import find_repositories
from vimlight.zoo.sharing.index import INDEX, Entry, Index
from vimlight.zoo.sharing.lock import LOCK, Pin, not_here, read_lock, remember, write_lock
from vimlight.zoo.sharing.moving import keep_signatures, matching, missing_here, missing_there, pull, push
from vimlight.zoo.sharing.places import Place, open_place

__all__ = [
    "INDEX", "LOCK", "Entry", "Index", "Pin", "Place", "find_repositories", "keep_signatures", "matching",
    "missing_here", "missing_there", "not_here", "open_place", "pull", "push", "read_lock", "remember", "write_lock",
]  # fmt: skip
