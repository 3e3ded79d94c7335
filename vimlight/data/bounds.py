"""Settings that are numbers within bounds."""

from __future__ import annotations

from vimlight.errors import ConfigError

__all__ = ["at_least"]


def at_least(minimum: int, name: str, value: int) -> int:
    """Returns a setting.

    Args:
        minimum: The least that it may be.
        name: Its name.
        value: What was given.

    Raises:
        ConfigError: If it is less than the minimum.
    """
    if value < minimum:
        raise ConfigError(f"{name} must be at least {minimum}, got {value}")
    return value
