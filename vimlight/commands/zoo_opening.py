"""Opening the zoo that a command is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimlight.errors import ZooError, nearest

if TYPE_CHECKING:
    from vimlight.zoo import Zoo

__all__ = ["open_zoo"]


def open_zoo(path: str) -> Zoo:
    """Opens a zoo that exists.

    Args:
        path: Its directory.

    Raises:
        ZooError: If there is none.
    """
    from vimlight.zoo import Zoo

    zoo = Zoo(path)
    if not zoo.path.is_dir():
        parent = zoo.path.parent
        close = nearest(zoo.path.name, (entry.name for entry in parent.iterdir())) if parent.is_dir() else []
        hint = f"did you mean {str(parent / close[0])!r}?" if close else "name the directory with --zoo DIR"
        raise ZooError(f"zoo {path!r} does not exist; {hint}")
    return zoo
