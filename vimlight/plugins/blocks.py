"""Which blocks of a backbone are meant."""

from __future__ import annotations

from collections.abc import Sequence

from vimlight.errors import PluginError

__all__ = ["Blocks", "choose_blocks"]

Blocks = str | Sequence[int]
"""`"all"`, `"last:n"` or `"first:n"`, or the indices of blocks."""


def choose_blocks(blocks: Blocks, count: int) -> set[int]:
    """Returns the indices of blocks.

    Args:
        blocks: `"all"`, `"last:n"` or `"first:n"`, or the indices.
        count: How many blocks there are.

    Raises:
        PluginError: If there are no such blocks.
    """
    if blocks == "all":
        return set(range(count))
    if isinstance(blocks, str):
        side, _, number = blocks.partition(":")
        if side not in ("first", "last") or not number.isdigit() or not 0 < int(number) <= count:
            raise PluginError(
                f"blocks {blocks!r}: expected 'all', 'first:n' or 'last:n' with n from 1 to {count}, or a list"
            )
        return set(range(int(number))) if side == "first" else set(range(count - int(number), count))
    outside = [index for index in blocks if not 0 <= index < count]
    if outside:
        raise PluginError(f"block {outside[0]} does not exist; the backbone's blocks are 0 to {count - 1}")
    return set(blocks)
